"""The single writer: one thread, one connection, many units of work per commit (group commit).

A unit is a plain function of a `Tx` (see `unit`). Its result reaches the caller only after COMMIT; a unit that raises rolls
back alone, a failed COMMIT fails every unit of its batch (R15). A lone unit is committed at once. Knows no tables.

The event loop gathers a batch for as long as it is busy with others who may ask, runs what needs no SQLite of it, then hands
it over; the thread runs the rest, writes the rows and commits. While a batch is with the thread, the loop runs no unit:
what units remember is touched by one of the two.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import structlog

from haltline.errors import StoreUnavailable
from haltline.store.turn import Job, Turn
from haltline.store.unit import Tx

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["UNITS_AT_ONCE_S", "WAL_ALARM_BYTES", "Tx", "Writer"]

T = TypeVar("T")
Unit = Callable[["Tx"], T]

WAL_ALARM_BYTES = 64 * 1024 * 1024
"""A write-ahead log this long means that some reader keeps it from being checkpointed."""
PROBE_EVERY_S = 1.0
"""How often a failed store is tried again when nothing else tries it."""
LOG_LOOKED_AT_EVERY_S = 0.25
UNITS_AT_ONCE_S = 0.005
"""How long the event loop may run units before it serves others."""
GATHERED_S = 0.010
"""How long units wait for others while the event loop is busy with those who may bring them."""
IDLE_ROUND_S = 20e-6
"""A round of the event loop that is as short as this served nobody."""
IDLE_PROBE_EVERY_S = 30.0
"""So that `/readyz` says that the disk takes nothing before the first call finds out."""
_BATCH_MAX = 256
_QUEUE_MAX = 20_000
_URGENT_MAX = 2_000
log = structlog.get_logger(__name__)


class Writer:
    """Owns the writing connection. `connect` is called at start, and in the writer thread again after a failure."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        now_us: Callable[[], int],
        *,
        idle_probe_s: float = IDLE_PROBE_EVERY_S,
    ) -> None:
        self._idle_probe_s = idle_probe_s
        self._connect = connect
        self._now_us = now_us
        self._urgent: deque[Job[Any]] = deque()
        self._queue: deque[Job[Any]] = deque()
        self._lock = threading.Lock()
        self._desk: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        """From the loop to the thread; None says that there will be no more."""
        self._taken = False
        """One of the two is at work on units: the loop on those of a turn, or the thread."""
        self._turn_comes = False
        self._asked_s, self._looked_s = 0.0, 0.0
        """When the turn that comes was asked for, and when was looked last whether the loop is idle."""
        self._was_alone = False
        """The last turn was of urgent units alone: so that many of them keep nobody waiting for ever, the next is not."""
        self._closing = False
        self._gone = False
        self._connection: sqlite3.Connection | None = None
        self._wal: Path | None = None
        self._log_bytes, self._log_seen = 0, 0.0
        self._lost_hooks: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._work, name="haltline-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy_since: float | None = None
        self.failure: str | None = None
        """Why the last commit failed, until one succeeds; `/readyz` says it. The writer tries by itself every second."""

    def on_lost(self, hook: Callable[[], None]) -> None:
        """Called when a batch was lost, before another unit runs: drop everything remembered from uncommitted units."""
        self._lost_hooks.append(hook)

    def start(self) -> None:
        """Open the connection (raises what `connect` raises) and start the thread. Call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._open()
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._urgent)

    @property
    def wal_bytes(self) -> int:
        """Length of the write-ahead log; past `WAL_ALARM_BYTES` it is logged as an error."""
        return _size(self._wal)

    @property
    def busy_s(self) -> float:
        """How long the batch that is being written has taken so far."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def ended(self) -> bool:
        """Its thread is not there any more: nothing is ever written again."""
        return self._thread.ident is not None and not self._thread.is_alive()

    async def run(self, unit: Unit[T], *, urgent: bool = False, from_memory: bool = False) -> T:
        """Run one unit and return its result after COMMIT.

        `from_memory`: it mostly asks nothing of SQLite, and so runs on the event loop; where it does ask after all, it is
        undone and run again in the thread, so it must leave nothing behind but through its `Tx`.

        Once asked, it is awaited to its end whatever cancels the caller (a cancel scope, or the task itself; that
        cancellation strikes at the caller's next await), so that no hold is ever made without its owner knowing.
        `urgent` units (an operator's) go before all that wait. Raises what the unit raised, or StoreUnavailable.
        """
        job = self._enqueue(unit, urgent=urgent, from_memory=from_memory)
        try:
            await job.future
        except asyncio.CancelledError as cancelled:
            await self._delivered(job)
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
                task.cancel(*cancelled.args)
        return job.outcome()

    async def _delivered(self, job: Job[Any]) -> None:
        """Whatever cancels the caller meanwhile: only a caller that was cancelled comes here, a scope costs its while."""
        with anyio.CancelScope(shield=True):
            while not job.delivered:
                job.future = job.future.get_loop().create_future()
                with suppress(asyncio.CancelledError):
                    await job.future

    async def aclose(self) -> None:
        """Write what waits, checkpoint, close."""
        with self._lock:
            self._closing = True
        self._desk.put(None)
        if self._thread.is_alive():
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(self._thread.join)

    # on the event loop

    def _enqueue(self, unit: Unit[T], *, urgent: bool, from_memory: bool = False) -> Job[T]:
        assert self._loop is not None, "start() first"
        waiting, most = (self._urgent, _URGENT_MAX) if urgent else (self._queue, _QUEUE_MAX)
        job = Job(unit, self._loop.create_future(), from_memory=from_memory)
        with self._lock:
            if self._closing:
                raise StoreUnavailable("the broker is shutting down")
            if len(waiting) >= most:
                raise StoreUnavailable("the broker is overloaded; try again shortly")
            waiting.append(job)
        self._next_turn()
        return job

    def _next_turn(self) -> None:
        """Once the event loop has nothing else to do, so that whoever is about to ask is committed with those who have.

        A turn costs the same for one unit as for fifty. A lone unit waits for nobody, and urgent ones do not either.
        """
        assert self._loop is not None
        if self._taken:
            return
        if self._urgent:
            self._loop.call_soon(self._take_turn)
        elif not self._turn_comes:
            self._turn_comes = True
            self._asked_s = self._looked_s = time.perf_counter()
            self._loop.call_soon(self._take_turn_if_idle)

    def _take_turn_if_idle(self) -> None:
        now_s = time.perf_counter()
        idle = now_s - self._looked_s <= IDLE_ROUND_S
        if idle or now_s - self._asked_s >= GATHERED_S:
            self._take_turn()
        elif self._turn_comes:  # else one was taken meanwhile, for an urgent unit
            assert self._loop is not None
            self._looked_s = now_s
            self._loop.call_soon(self._take_turn_if_idle)

    def _take_turn(self) -> None:
        self._turn_comes = False
        now_us = self._now_us()
        with self._lock:
            if self._taken or self._closing or not (self._queue or self._urgent):
                return
            self._taken = True
            urgent = bool(self._urgent)
            self._was_alone = urgent and not self._was_alone
            turn = Turn(self._waiting_jobs(0 if self._was_alone else _BATCH_MAX), now_us)
        if not urgent:  # an operator's unit asks SQLite, and comes before all others
            self._queue.extendleft(reversed(turn.run_from_memory(UNITS_AT_ONCE_S)))
        self._desk.put(turn)
        if self._gone:
            self._lose_what_waits()

    def _waiting_jobs(self, most: int = _BATCH_MAX) -> list[Job[Any]]:
        """All urgent ones, and `most` with those behind them. With the lock."""
        jobs = list(self._urgent)
        self._urgent.clear()
        while self._queue and len(jobs) < most:
            jobs.append(self._queue.popleft())
        return jobs

    def _over(self, turn: Turn) -> None:
        """A turn is committed, or lost."""
        self._taken = False
        for job in turn.jobs:
            job.deliver()
        if self._queue or self._urgent:
            self._next_turn()

    # in the writer thread

    def _work(self) -> None:
        try:
            while (turn := self._next()) is not None:
                self._do(turn)
            while jobs := self._waiting_jobs():  # closing: the loop takes no turn any more
                self._do(Turn(jobs, self._now_us()))
        finally:
            self._end()

    def _next(self) -> Turn | None:
        """The next turn; one without jobs is to see whether the store can be written. None: closing."""
        while True:
            try:
                return self._desk.get(timeout=PROBE_EVERY_S if self.failure else self._idle_probe_s)
            except queue.Empty:
                with self._lock:
                    if not self._taken:  # else a turn is on its way
                        self._taken = True
                        return Turn((), self._now_us())

    def _do(self, turn: Turn) -> None:
        self._busy_since = time.monotonic()
        try:
            self._commit(turn)
        except BaseException as error:  # the boundary: whatever broke, every unit of the turn failed
            self._lose(turn.jobs, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._busy_since = None
            self._deliver(turn)

    def _end(self) -> None:
        self._gone = True
        self._lose_what_waits()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _lose_what_waits(self) -> None:
        """Nothing waits for ever, also when the thread ended for a reason that nobody thought of."""
        with self._lock:
            self._closing = True
            left = [*self._urgent, *self._queue]
            self._urgent.clear()
            self._queue.clear()
        with suppress(queue.Empty):
            while True:
                turn = self._desk.get_nowait()
                left += () if turn is None else turn.jobs
        if left:
            self._lose(left, RuntimeError("the writer ended"))
            self._deliver(Turn(left, 0))

    def _open(self) -> sqlite3.Connection:
        connection = self._connection = self._connect()
        file = connection.execute("PRAGMA database_list").fetchone()[2]
        self._wal = Path(f"{file}-wal") if file else None
        return connection

    def _commit(self, turn: Turn) -> None:
        connection = self._connection or self._open()
        connection.execute("BEGIN IMMEDIATE")
        turn.write(connection)
        if not turn.jobs:
            _write_something(connection)
        connection.execute("COMMIT")
        if self.failure is not None:
            log.warning("commits_succeed_again", after=self.failure)
            self.failure = None
        self._watch_wal()

    def _lose(self, jobs: Iterable[Job[Any]], error: BaseException) -> None:
        """A connection whose commit failed is not trusted again: it is closed and the next batch opens a new one."""
        self.failure = f"{type(error).__name__}: {error}"
        log.error("commit_failed", error=self.failure)
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as close_error:
                log.error("close_failed", error=str(close_error))
        for hook in self._lost_hooks:
            hook()
        for job in jobs:
            job.error = StoreUnavailable(f"the record could not be written ({error})")
            job.after = ()

    def _deliver(self, turn: Turn) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._over, turn)
        except RuntimeError:  # the loop is closed: nobody is left who could wait; closing writes what waits
            log.warning("nobody_waits", units=len(turn.jobs))
            self._taken = False

    def _watch_wal(self) -> None:
        now = time.monotonic()
        if now < self._log_seen + LOG_LOOKED_AT_EVERY_S:
            return
        before, self._log_bytes, self._log_seen = self._log_bytes, self.wal_bytes, now
        if before < WAL_ALARM_BYTES <= self._log_bytes:
            advice = "a reader holds it open, such as a long audit query or a copy, or one transaction was this large"
            log.error("wal_grows", bytes=self._log_bytes, advice=advice)


def _write_something(connection: sqlite3.Connection) -> None:
    """Write a page without changing what it says, so that the COMMIT after it proves that the disk takes writes."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {int(version)}")


def _size(file: Path | None) -> int:
    try:
        return 0 if file is None else file.stat().st_size
    except OSError:
        return 0
