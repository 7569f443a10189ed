"""Turns: units that run from memory on the event loop, those that ask SQLite after all, and the rows of both."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from haltline.errors import StoreUnavailable
from haltline.store.unit import Tx
from haltline.store.writer import UNITS_AT_ONCE_S
from support.writing import PUT, Gate, a_writer, keys, put


async def test_a_unit_from_memory_runs_on_the_loop_and_its_result_arrives_after_its_commit(tmp_path: Path) -> None:
    where: list[int] = []

    def unit(tx: Tx) -> int:
        where.append(threading.get_ident())
        tx.insert(PUT, ("a", "x"))
        return tx.now_us

    async with a_writer(tmp_path) as writer:
        assert await writer.run(unit, from_memory=True) == 7
        assert keys(tmp_path) == ["a"]
    assert where == [threading.get_ident()]


@pytest.mark.promise("R15")
@pytest.mark.parametrize("keeps_it", [False, True])
async def test_a_unit_from_memory_that_asks_sqlite_is_undone_and_run_again_in_the_thread(
    tmp_path: Path, keeps_it: bool
) -> None:
    remembered: list[str] = []

    def unit(tx: Tx) -> list[str]:
        tx.insert(PUT, ("a", "x"))
        for name in ("first", "second"):
            remembered.append(name)
            tx.on_rollback(lambda name=name: remembered.remove(name) if remembered[-1] == name else None)
        try:
            return [row[0] for row in tx.execute("SELECT key FROM meta")]
        except BaseException:
            if not keeps_it:
                raise
            return ["a wrong answer"]

    async with a_writer(tmp_path) as writer:
        assert await writer.run(unit, from_memory=True) == ["a"]
    assert remembered == ["first", "second"]
    assert keys(tmp_path) == ["a"]


@pytest.mark.promise("R15")
async def test_a_unit_from_memory_that_raises_fails_alone(tmp_path: Path) -> None:
    undone: list[str] = []

    def breaks(tx: Tx) -> None:
        tx.insert(PUT, ("bad", "x"))
        tx.on_rollback(lambda: undone.append("it"))
        raise ValueError("after its rows")

    async with a_writer(tmp_path) as writer:
        units = [lambda tx: tx.insert(PUT, ("a", "x")), breaks, lambda tx: tx.insert(PUT, ("b", "x"))]
        became = await asyncio.gather(*(writer.run(unit, from_memory=True) for unit in units), return_exceptions=True)
    assert [type(one) for one in became] == [type(None), ValueError, type(None)]
    assert undone == ["it"]
    assert keys(tmp_path) == ["a", "b"]


@pytest.mark.promise("R15")
async def test_rows_from_memory_that_do_not_fit_lose_their_whole_turn_and_the_hooks_hear_of_it(tmp_path: Path) -> None:
    lost: list[str] = []
    async with a_writer(tmp_path) as writer:
        writer.on_lost(lambda: lost.append("lost"))

        def twice(tx: Tx) -> None:
            tx.insert(PUT, ("a", "x"))

        became = await asyncio.gather(*(writer.run(twice, from_memory=True) for _ in range(2)), return_exceptions=True)
        assert [type(one) for one in became] == [StoreUnavailable, StoreUnavailable]
        assert lost == ["lost"]
        await writer.run(lambda tx: tx.insert(PUT, ("b", "x")), from_memory=True)
    assert keys(tmp_path) == ["b"]


async def test_no_unit_runs_from_memory_while_a_turn_is_with_the_thread(tmp_path: Path) -> None:
    ran: list[str] = []
    async with a_writer(tmp_path) as writer, anyio.create_task_group() as tasks:
        gate = Gate()
        tasks.start_soon(writer.run, gate)
        await gate.reached()

        async def one() -> None:
            await writer.run(lambda tx: ran.append("from memory"), from_memory=True)

        tasks.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        assert (ran, writer.waiting) == ([], 1)
        gate.open.set()
    assert ran == ["from memory"]


@pytest.mark.promise("R15")
async def test_a_step_that_cannot_undo_a_unit_loses_its_turn_and_the_writer_goes_on(tmp_path: Path) -> None:
    lost: list[str] = []

    def breaks(tx: Tx) -> None:
        tx.on_rollback(lambda: {}[1])
        raise ValueError

    async with a_writer(tmp_path) as writer:
        writer.on_lost(lambda: lost.append("lost"))
        with anyio.fail_after(30):
            units = [lambda tx: tx.insert(PUT, ("a", "x")), breaks, lambda tx: tx.insert(PUT, ("b", "x"))]
            became = await asyncio.gather(
                *(writer.run(unit, from_memory=True) for unit in units), return_exceptions=True
            )
            assert [type(one) for one in became] == [StoreUnavailable] * 3
            assert lost == ["lost"]
            await writer.run(put("c"), urgent=True)
    assert keys(tmp_path) == ["c"]


async def test_units_from_memory_leave_the_loop_to_others_between_them(tmp_path: Path) -> None:
    """Each takes longer than all may at once, so each is a turn of its own, in their order."""
    heard: list[str] = []

    def long(name: str) -> Callable[[Tx], None]:
        def unit(tx: Tx) -> None:
            until = time.perf_counter() + UNITS_AT_ONCE_S
            while time.perf_counter() <= until:
                pass
            tx.insert(PUT, (name, "x"))
            tx.after_commit(lambda: heard.append(name))

        return unit

    async def other() -> None:
        while len(heard) < 3:
            if heard and heard[-1] != "other":
                heard.append("other")
            await asyncio.sleep(0)

    async with a_writer(tmp_path) as writer:
        await asyncio.gather(*(writer.run(long(name), from_memory=True) for name in "ab"), other())
    assert heard == ["a", "other", "b"]
    assert keys(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 300])
async def test_many_rows_of_one_turn_are_all_there_in_their_order(tmp_path: Path, rows: int) -> None:
    def unit(tx: Tx) -> None:
        for number in range(rows):
            tx.insert(PUT, (f"{number:03}", "x"))

    async with a_writer(tmp_path) as writer:
        await writer.run(unit, from_memory=True)
    assert keys(tmp_path) == [f"{number:03}" for number in range(rows)]
