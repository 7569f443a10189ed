"""Ready or not, and why: false, with its reason, whenever calls would be refused."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.calls.recovery import Unrecorded
from haltline.health import Health
from haltline.store.database import connect_writer
from haltline.store.writer import Tx, Writer
from support.broker_process import broker_process
from support.desk import Desk, desk

POLICY = """
version: "1"
tiers: {t: {tools: ["*"], caps: {day: "5.00"}}}
"""


def health(at: Desk, **more: Any) -> Health:
    parts = at.parts
    writer = more.pop("writer", parts.writer)
    return Health(parts.clock, writer, parts.policies, Unrecorded(writer), parts.halts, started_us=0, **more)


@pytest.fixture
async def at(tmp_path: Path):
    async with desk(tmp_path) as found:
        yield found


@pytest.mark.promise("P4", "R16")
async def test_while_everything_is_halted_nobody_is_told_that_calls_would_be_admitted(at: Desk) -> None:
    await at.agent()
    asked = health(at)
    await at.ask("halt", target="booking-7", reason="one agent alone")
    assert asked.answer() == (200, "ready")
    await at.ask("halt", target="everything", reason="the secret incident")
    assert asked.answer() == (503, "not ready: everything is halted"), "without what a person wrote"
    status = await at.ask("status")
    assert not status["ready"]
    assert "operator:anna" in status["not_ready_because"]
    assert "the secret incident" in status["not_ready_because"]
    assert "haltline resume everything" in status["not_ready_because"]
    await at.ask("resume", target="everything", reason="over")
    assert asked.answer() == (200, "ready")
    assert (await at.ask("status"))["ready"]


@pytest.mark.promise("R15", "R16")
async def test_a_halt_of_everything_that_is_not_committed_is_none(at: Desk) -> None:
    def unit(tx: Tx) -> None:
        at.parts.halts.set(tx, "everything", "everything", code="operator.halt", text="x", by="operator:anna")
        raise RuntimeError("and then it fails")

    with pytest.raises(RuntimeError):
        await at.run(unit)
    assert health(at).answer() == (200, "ready")


async def test_a_writer_that_is_stuck_in_a_commit_is_not_ready_until_it_goes_on(at: Desk) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def unit(tx: Tx) -> None:
        del tx
        begun.set()
        goes_on.wait(30)

    asked = health(at, stuck_s=0.0)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.run, unit)
            while not begun.is_set():
                await anyio.lowlevel.checkpoint()
            while asked.answer() != (503, "not ready: the store cannot be written"):
                await anyio.lowlevel.checkpoint()
            assert "a commit has not ended for" in str(asked.problem)
            assert health(at).answer() == (200, "ready"), "one that has only begun is not stuck"
            goes_on.set()
    assert asked.answer() == (200, "ready")


async def test_a_store_that_cannot_be_written_is_noticed_before_a_call_finds_out(tmp_path: Path, at: Desk) -> None:
    broken = threading.Event()

    def connect() -> sqlite3.Connection:
        if broken.is_set():
            raise OSError("No space left on device")
        return connect_writer(tmp_path / "other.db")

    writer = Writer(connect, lambda: 1, idle_probe_s=0.01)
    asked = health(at, writer=writer)
    writer.start()
    try:
        with anyio.fail_after(30):
            assert asked.answer() == (200, "ready")
            broken.set()
            await writer.run(lambda tx: tx.execute("PRAGMA query_only = ON"))  # from now on nothing is written
            while asked.answer() != (503, "not ready: the store cannot be written"):
                await anyio.lowlevel.checkpoint()
            broken.clear()
            while asked.answer() != (200, "ready"):
                await anyio.lowlevel.checkpoint()
    finally:
        await writer.aclose()


async def test_a_writer_that_has_ended_is_not_ready(at: Desk) -> None:
    writer = Writer(lambda: sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None), lambda: 1)
    asked = health(at, writer=writer)
    writer.start()
    assert asked.answer() == (200, "ready")
    await writer.aclose()
    assert "has ended" in str(asked.problem)


@pytest.mark.promise("P4", "R16")
def test_a_broker_that_starts_while_everything_is_halted_is_up_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    with broker_process(tmp_path / "b", upstreams={}, policy=POLICY) as broker:
        assert broker.readiness() == (200, "ready")
        with broker.control() as control:
            control.halt("everything", reason="incident")
            assert broker.readiness() == (503, "not ready: everything is halted")
        broker.kill()
        broker.start()
        assert broker.readiness() == (503, "not ready: everything is halted")
        assert "NOT READY" in broker.log.read_text()
        with broker.control() as control:
            control.resume("everything", reason="over")
        assert broker.readiness() == (200, "ready")
