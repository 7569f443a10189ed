"""Who is committed with whom: units wait for those that a busy event loop is about to bring, a lone one for nobody."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from haltline.store import writer as module
from haltline.store.database import connect_writer
from haltline.store.writer import Writer
from support.writing import Gate, a_writer, keys, put

ROUNDS = 5
FOR_EVER = 3600.0


class Counting(sqlite3.Connection):
    commits = 0

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        Counting.commits += sql == "COMMIT"
        return super().execute(sql, *rest)


def connect(path: Path) -> sqlite3.Connection:
    connect_writer(path).close()
    Counting.commits = 0
    return sqlite3.connect(path, factory=Counting, isolation_level=None, check_same_thread=False)


async def _in_later_rounds(writer: Writer) -> list[asyncio.Task[None]]:
    """Units that are asked for one after the other, each in a round of the event loop of its own."""
    asked = []
    for number in range(ROUNDS):
        asked.append(asyncio.create_task(writer.run(put(f"unit-{number}"))))
        await asyncio.sleep(0)
    return asked


def _loop_is(monkeypatch: pytest.MonkeyPatch, *, idle: bool, gathered_s: float) -> None:
    monkeypatch.setattr(module, "IDLE_ROUND_S", FOR_EVER if idle else -1.0)
    monkeypatch.setattr(module, "GATHERED_S", gathered_s)


async def test_what_a_busy_loop_brings_round_by_round_is_committed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _loop_is(monkeypatch, idle=False, gathered_s=FOR_EVER)
    async with a_writer(tmp_path, connect) as writer:
        asked = await _in_later_rounds(writer)
        assert (writer.waiting, Counting.commits) == (ROUNDS, 0)
        _loop_is(monkeypatch, idle=True, gathered_s=FOR_EVER)
        await asyncio.gather(*asked)
        assert Counting.commits == 1
    assert keys(tmp_path) == [f"unit-{number}" for number in range(ROUNDS)]


async def test_no_longer_than_it_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loop_is(monkeypatch, idle=False, gathered_s=0.0)
    async with a_writer(tmp_path, connect) as writer:
        await writer.run(put("a"))
        assert Counting.commits == 1


async def test_on_an_idle_loop_a_unit_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loop_is(monkeypatch, idle=True, gathered_s=FOR_EVER)
    async with a_writer(tmp_path, connect) as writer:
        gate = Gate()
        first = asyncio.create_task(writer.run(gate))
        await gate.reached()  # the next one was to come in a later round, and it has not waited for it
        asked = asyncio.create_task(writer.run(put("a")))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, asked)
        assert Counting.commits == 2


@pytest.mark.promise("P5")
async def test_an_operator_s_unit_waits_for_nobody_and_the_others_go_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _loop_is(monkeypatch, idle=False, gathered_s=FOR_EVER)
    async with a_writer(tmp_path, connect) as writer:
        asked = await _in_later_rounds(writer)
        await writer.run(put("urgent"), urgent=True)
        assert keys(tmp_path) == ["urgent"]
        assert not any(one.done() for one in asked)
        _loop_is(monkeypatch, idle=True, gathered_s=FOR_EVER)
        await asyncio.gather(*asked)
    assert keys(tmp_path) == ["urgent", *(f"unit-{number}" for number in range(ROUNDS))]


@pytest.mark.promise("P5")
async def test_an_operator_s_unit_behind_a_turn_waits_for_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_writer(tmp_path, connect) as writer:
        gate = Gate()
        first = asyncio.create_task(writer.run(gate))
        await gate.reached()
        _loop_is(monkeypatch, idle=False, gathered_s=FOR_EVER)
        other = asyncio.create_task(writer.run(put("other")))
        urgent = asyncio.create_task(writer.run(put("urgent"), urgent=True))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, urgent)
        assert (keys(tmp_path), other.done()) == (["urgent"], False)
        _loop_is(monkeypatch, idle=True, gathered_s=FOR_EVER)
        await other


async def test_closing_does_not_wait_for_the_loop_to_be_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loop_is(monkeypatch, idle=False, gathered_s=FOR_EVER)
    async with a_writer(tmp_path, connect) as writer:
        asked = await _in_later_rounds(writer)
    await asyncio.gather(*asked)
    assert keys(tmp_path) == [f"unit-{number}" for number in range(ROUNDS)]
