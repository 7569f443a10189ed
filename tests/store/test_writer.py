"""The single writer: what reaches its callers, when, and what happens when the store or a unit breaks."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.errors import StoreUnavailable
from haltline.store.database import connect_writer
from haltline.store.writer import WAL_ALARM_BYTES, Tx, Writer
from support.writing import Gate, a_writer, keys, put


async def test_a_result_arrives_after_its_commit(tmp_path: Path) -> None:
    async with a_writer(tmp_path) as writer:
        assert await writer.run(lambda tx: (put("a")(tx), tx.now_us)[1]) == 7
        assert keys(tmp_path) == ["a"]


@pytest.mark.promise("R15")
async def test_a_unit_that_raises_rolls_back_alone(tmp_path: Path) -> None:
    seen: list[str] = []

    def breaks(tx: Tx) -> None:
        tx.on_rollback(lambda: seen.append("rolled back"))
        put("bad")(tx)
        tx.after_commit(lambda: seen.append("never"))
        raise ValueError("after its statements")

    async with a_writer(tmp_path) as writer:
        gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.reached()
            tasks.start_soon(writer.run, put("before"))
            await anyio.lowlevel.checkpoint()
            failing = asyncio.ensure_future(writer.run(breaks))
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(writer.run, put("after"))
            await anyio.lowlevel.checkpoint()
            gate.open.set()
            with pytest.raises(ValueError, match="after its statements"):
                await failing
        assert writer.failure is None
    assert keys(tmp_path) == ["before", "after"]
    assert seen == ["rolled back"]


@pytest.mark.promise("R15")
async def test_a_commit_that_fails_fails_every_unit_of_its_batch_and_calls_the_lost_hooks(tmp_path: Path) -> None:
    class Failing(sqlite3.Connection):
        commits_fail = False

        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and Failing.commits_fail:
                Failing.commits_fail = False
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *rest)

    def connect(path: Path) -> sqlite3.Connection:
        connect_writer(path).close()
        return sqlite3.connect(path, factory=Failing, isolation_level=None, check_same_thread=False)

    steps: list[str] = []
    outcomes: list[str] = []
    async with a_writer(tmp_path, connect) as writer:
        writer.on_lost(lambda: steps.append("lost"))
        gate = Gate()

        async def one(name: str) -> None:
            def unit(tx: Tx) -> None:
                put(name)(tx)
                tx.after_commit(lambda: steps.append(name))
                Failing.commits_fail = True

            try:
                await writer.run(unit)
            except StoreUnavailable as error:
                outcomes.append(f"{name}: {error}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.reached()
            for number in range(3):
                tasks.start_soon(one, f"unit-{number}")
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
        assert outcomes == [f"unit-{number}: the record could not be written (disk I/O error)" for number in range(3)]
        assert steps == ["lost"]
        assert writer.failure == "OperationalError: disk I/O error"
        await writer.run(put("again"))
        assert writer.failure is None
    assert keys(tmp_path) == ["again"]


class Cancelled(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize(
    "error", [Cancelled(), asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt(), StopIteration()]
)
async def test_whatever_a_unit_raises_its_caller_gets_an_error_and_the_writer_goes_on(
    tmp_path: Path, error: BaseException
) -> None:
    def unit(tx: Tx) -> None:
        put("bad")(tx)
        raise error

    async with a_writer(tmp_path) as writer:
        with pytest.raises(RuntimeError, match=f"raised {type(error).__name__}"):
            await writer.run(unit)
        await writer.run(put("good"))
    assert keys(tmp_path) == ["good"]


async def test_a_step_after_commit_that_fails_is_its_callers_error_and_nobody_elses(tmp_path: Path) -> None:
    ran: list[str] = []

    def unit(tx: Tx) -> None:
        tx.after_commit(lambda: ran.append("first"))
        tx.after_commit(lambda: {}[1])
        tx.after_commit(lambda: ran.append("third"))

    async with a_writer(tmp_path) as writer:
        gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.reached()
            failing = asyncio.ensure_future(writer.run(unit))
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(writer.run, put("other"))
            await anyio.lowlevel.checkpoint()
            gate.open.set()
            with pytest.raises(KeyError):
                await failing
    assert ran == ["first", "third"]
    assert keys(tmp_path) == ["other"]


async def test_steps_after_commit_run_in_the_order_of_commits_before_their_callers_go_on(tmp_path: Path) -> None:
    order: list[str] = []

    async def one(writer: Writer, name: str) -> None:
        await writer.run(lambda tx: tx.after_commit(lambda: order.append(f"step {name}")))
        order.append(f"caller {name}")

    async with a_writer(tmp_path) as writer, anyio.create_task_group() as tasks:
        gate = Gate()
        tasks.start_soon(writer.run, gate)
        await gate.reached()
        for name in "abc":
            tasks.start_soon(one, writer, name)
        await anyio.wait_all_tasks_blocked()
        gate.open.set()
    assert order == ["step a", "step b", "step c", "caller a", "caller b", "caller c"]


@pytest.mark.promise("P3")
async def test_an_operators_unit_goes_before_all_that_wait(tmp_path: Path) -> None:
    async with a_writer(tmp_path) as writer, anyio.create_task_group() as tasks:
        gate = Gate()
        tasks.start_soon(writer.run, gate)
        await gate.reached()
        for name in "abc":
            tasks.start_soon(writer.run, put(name))
        await anyio.wait_all_tasks_blocked()

        async def urgent() -> None:
            await writer.run(put("revoke"), urgent=True)

        tasks.start_soon(urgent)
        await anyio.wait_all_tasks_blocked()
        gate.open.set()
    assert keys(tmp_path) == ["revoke", "a", "b", "c"]


@pytest.mark.promise("P3")
async def test_an_operators_unit_waits_for_none_of_those_behind_it_to_be_committed(tmp_path: Path) -> None:
    said: list[str] = []

    def connect(path: Path) -> sqlite3.Connection:
        connection = connect_writer(path)
        connection.set_trace_callback(said.append)
        return connection

    async with a_writer(tmp_path, connect) as writer:
        said.clear()
        units = [put("a"), put("b")]
        waiting = [asyncio.ensure_future(writer.run(unit)) for unit in units]
        await asyncio.gather(*waiting, writer.run(put("revoke"), urgent=True))
    told = [one.partition("VALUES ")[2] or one for one in said if one.startswith(("INSERT", "COMMIT"))]
    assert told == ["('revoke','x')", "COMMIT", "('a','x')", "('b','x')", "COMMIT"]


async def test_operators_who_never_stop_keep_nobody_else_waiting_for_ever(tmp_path: Path) -> None:
    async with a_writer(tmp_path) as writer:
        served = asyncio.ensure_future(writer.run(put("a")))

        async def without_end() -> int:
            acts = 0
            while not served.done():
                await writer.run(lambda _: None, urgent=True)
                acts += 1
            return acts

        with anyio.fail_after(30):
            acts = await asyncio.gather(*(without_end() for _ in range(3)))
    assert max(acts) <= 3
    assert keys(tmp_path) == ["a"]


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_full_queue_refuses_and_loses_nothing(tmp_path: Path, urgent: bool) -> None:
    most = 2_000 if urgent else 20_000
    ran = 0

    def unit(tx: Tx) -> None:
        nonlocal ran
        ran += 1

    async with a_writer(tmp_path) as writer, anyio.create_task_group() as tasks:
        gate = Gate()
        tasks.start_soon(writer.run, gate)
        await gate.reached()

        async def one() -> None:
            await writer.run(unit, urgent=urgent)

        for _ in range(most):
            tasks.start_soon(one)
        while writer.waiting < most:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(StoreUnavailable, match="overloaded"):
            await writer.run(unit, urgent=urgent)
        gate.open.set()
    assert ran == most


async def test_a_callers_cancel_scope_strikes_after_the_result(tmp_path: Path) -> None:
    got: list[int] = []
    async with a_writer(tmp_path) as writer:
        gate = Gate()
        with anyio.CancelScope() as scope:

            async def cancel_it() -> None:
                await gate.reached()
                scope.cancel()
                gate.open.set()

            cancelling = asyncio.ensure_future(cancel_it())
            got.append(await writer.run(lambda tx: (gate(tx), put("a")(tx), 5)[2]))
            await anyio.lowlevel.checkpoint()
            got.append(0)
        await cancelling
    assert got == [5]
    assert keys(tmp_path) == ["a"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_task_still_learns_what_was_committed_for_it(tmp_path: Path, times: int) -> None:
    got: list[Any] = []
    async with a_writer(tmp_path) as writer:
        gate = Gate()

        async def caller() -> None:
            try:
                got.append(await writer.run(lambda tx: (gate(tx), put("a")(tx), 5)[2]))
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                got.append("cancelled")
                raise

        task = asyncio.ensure_future(caller())
        await gate.reached()
        for _ in range(times):
            task.cancel("because")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == times
    assert got == [5, "cancelled"]


async def test_a_timeout_of_asyncio_is_still_a_timeout(tmp_path: Path) -> None:
    async with a_writer(tmp_path) as writer:
        gate = Gate()
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with asyncio.timeout(None) as limit:
                pending = asyncio.ensure_future(gate.reached())
                pending.add_done_callback(lambda _: (limit.reschedule(0), threading.Timer(0.05, gate.open.set).start()))
                await writer.run(gate)
                await asyncio.sleep(0)


async def test_closing_writes_what_waits_and_then_refuses(tmp_path: Path) -> None:
    async with a_writer(tmp_path) as writer:
        gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, gate)
            await gate.reached()
            for number in range(600):  # more than two batches
                tasks.start_soon(writer.run, put(f"{number:03}"))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(writer.aclose)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable, match="shutting down"):
                await writer.run(put("late"))
            gate.open.set()
    assert keys(tmp_path) == [f"{number:03}" for number in range(600)]
    assert not (tmp_path / "haltline.db-wal").exists()


def test_a_loop_that_ends_with_waiting_callers_leaves_nobody_hanging_and_their_units_are_written(
    tmp_path: Path,
) -> None:
    writer = Writer(lambda: connect_writer(tmp_path / "haltline.db"), lambda: 7)
    gate = Gate()

    async def leave() -> None:
        writer.start()
        left = [
            asyncio.ensure_future(writer.run(gate)),
            *(asyncio.ensure_future(writer.run(put(name))) for name in "abc"),
        ]
        await gate.reached()
        asyncio.get_running_loop().call_later(0.01, gate.open.set)
        assert len(left) == 4

    asyncio.run(leave())  # it cancels the four and waits for them: each learns its result first
    asyncio.run(writer.aclose())
    assert keys(tmp_path) == ["a", "b", "c"]


def test_units_of_a_loop_that_is_gone_are_written_all_the_same(tmp_path: Path) -> None:
    writer = Writer(lambda: connect_writer(tmp_path / "haltline.db"), lambda: 7)
    gate = Gate()

    async def leave() -> None:
        writer.start()
        for unit in (gate, put("a")):
            writer._enqueue(unit, urgent=False)
        await gate.reached()

    asyncio.run(leave())
    gate.open.set()
    asyncio.run(writer.aclose())
    assert keys(tmp_path) == ["a"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_units_that_wait_when_the_thread_ends_by_itself_are_told(tmp_path: Path) -> None:
    """Whatever ends it: a failure of the interpreter that no handler of ours takes."""

    class Exiting(sqlite3.Connection):
        exits = False

        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and Exiting.exits:
                sys.exit(1)
            return super().execute(sql, *rest)

    def connect(path: Path) -> sqlite3.Connection:
        connect_writer(path).close()
        return sqlite3.connect(path, factory=Exiting, isolation_level=None, check_same_thread=False)

    async with a_writer(tmp_path, connect) as writer:
        gate = Gate()
        held = asyncio.ensure_future(writer.run(gate))
        await gate.reached()
        waits = [asyncio.ensure_future(writer.run(put("a"), from_memory=number > 0)) for number in range(2)]
        await asyncio.sleep(0)
        Exiting.exits = True
        gate.open.set()
        with anyio.fail_after(30):
            became = await asyncio.gather(held, *waits, return_exceptions=True)
        assert [type(one) for one in became] == [StoreUnavailable] * 3
        with pytest.raises(StoreUnavailable, match="shutting down"):
            await writer.run(put("b"))
    assert keys(tmp_path) == []


@pytest.mark.promise("P6", "R12")
async def test_a_full_disk_fails_closed_and_heals_without_a_restart(tmp_path: Path) -> None:
    limit = [0]

    def connect(path: Path) -> sqlite3.Connection:
        connection = connect_writer(path)
        if limit[0]:
            connection.execute(f"PRAGMA max_page_count = {limit[0]}")
        return connection

    async with a_writer(tmp_path, connect) as writer:
        limit[0] = await writer.run(lambda tx: tx.execute("PRAGMA page_count").fetchone()[0])
        await writer.run(lambda tx: tx.execute(f"PRAGMA max_page_count = {limit[0] + 2}").fetchone())
        limit[0] += 2
        acknowledged = 0
        with pytest.raises(StoreUnavailable, match="full"):  # noqa: PT012
            for number in range(10_000):
                await writer.run(put(f"{number:06}", "x" * 500))
                acknowledged += 1
        assert writer.failure is not None
        assert len(keys(tmp_path)) == acknowledged
        limit[0] = 0
        with anyio.fail_after(30):  # nobody asks it to: a broker that refuses everything would never find out
            while writer.failure is not None:
                await anyio.sleep(0.05)
        await writer.run(put("again"))
        assert len(keys(tmp_path)) == acknowledged + 1


async def test_a_store_that_cannot_be_opened_again_keeps_failing_until_it_can(tmp_path: Path) -> None:
    broken = [False]

    def connect(path: Path) -> sqlite3.Connection:
        if broken[0]:
            raise sqlite3.OperationalError("unable to open database file")
        return connect_writer(path)

    async with a_writer(tmp_path, connect) as writer:
        broken[0] = True

        def full(tx: Tx) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        for unit in (full, put("b"), put("c")):
            with pytest.raises(StoreUnavailable):
                await writer.run(unit)
        broken[0] = False
        await writer.run(put("d"))
        assert writer.failure is None
    assert keys(tmp_path) == ["d"]


async def test_a_writer_that_cannot_open_its_store_says_so_at_start(tmp_path: Path) -> None:
    (tmp_path / "haltline.db").write_bytes(b"something else entirely " * 100)
    writer = Writer(lambda: connect_writer(tmp_path / "haltline.db"), lambda: 7)
    with pytest.raises(Exception, match="cannot be opened"):
        writer.start()
    await writer.aclose()


async def test_a_reader_that_keeps_the_log_from_being_checkpointed_is_told_of_and_the_log_shrinks_after_it(
    tmp_path: Path,
) -> None:
    async with a_writer(tmp_path) as writer:
        await writer.run(put("first"))
        reader = sqlite3.connect(tmp_path / "haltline.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        number = 0
        while writer.wal_bytes < WAL_ALARM_BYTES:
            await writer.run(put(f"{number}", "x" * 4_000_000))
            number += 1
            assert number < 40
        reader.close()
        for _ in range(3):
            await writer.run(put(f"after-{number}"))
            number += 1
        assert writer.wal_bytes <= 8 * 1024 * 1024


async def test_only_the_writer_checkpoints(tmp_path: Path) -> None:
    """Its settings, not a second connection's, decide (sqlite.org/wal.html, the WAL-reset bug)."""
    async with a_writer(tmp_path) as writer:
        assert await writer.run(lambda tx: tx.execute("PRAGMA wal_autocheckpoint").fetchone()[0]) == 1000
        assert await writer.run(lambda tx: tx.execute("PRAGMA synchronous").fetchone()[0]) == 2
