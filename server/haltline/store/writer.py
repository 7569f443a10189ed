"""The single writer: one thread, one connection, units of work in savepoints, many units per commit (group commit).

A unit is a plain function of a `Tx`. Its result reaches the caller only after COMMIT; a unit that raises rolls back
alone, a failed COMMIT fails every unit of its batch (R15). A lone unit is committed at once. Knows no tables.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import structlog

from haltline.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Tx", "Writer"]

T = TypeVar("T")
Unit = Callable[["Tx"], T]

_BATCH_MAX = 256
_QUEUE_MAX = 20_000
log = structlog.get_logger(__name__)


class Tx:
    """What a unit works with: the connection inside its savepoint, and one `now_us` for all it does."""

    __slots__ = ("_after_commit", "_on_release", "connection", "execute", "now_us")

    def __init__(self, connection: sqlite3.Connection, now_us: int) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.now_us = now_us
        self._on_release: list[Callable[[], None]] = []
        self._after_commit: list[Callable[[], None]] = []

    def on_release(self, step: Callable[[], None]) -> None:
        """Run in the writer thread once this unit's statements stand, so that the next unit sees it; must not fail.

        What it changes must be dropped by an `on_lost` hook of the writer, for a commit that fails later.
        """
        self._on_release.append(step)

    def after_commit(self, step: Callable[[], None]) -> None:
        """Run on the event loop after COMMIT; never if it fails."""
        self._after_commit.append(step)


class _Job(Generic[T]):
    __slots__ = ("after", "error", "future", "result", "unit")

    def __init__(self, unit: Unit[T], future: asyncio.Future[T]) -> None:
        self.unit = unit
        self.future = future
        self.result: T | None = None
        self.error: BaseException | None = None
        self.after: Sequence[Callable[[], None]] = ()

    def deliver(self) -> None:
        for step in self.after:
            step()
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # set by the unit that had no error


class Writer:
    """Owns the writing connection. `connect` is called in the writer thread, at start and again after a failure."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], now_us: Callable[[], int]) -> None:
        self._connect = connect
        self._now_us = now_us
        self._urgent: deque[_Job[Any]] = deque()
        self._queue: deque[_Job[Any]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._connection: sqlite3.Connection | None = None
        self._lost_hooks: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._work, name="haltline-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: str | None = None
        """Why the last commit failed, until one succeeds; `/readyz` says it."""

    def on_lost(self, hook: Callable[[], None]) -> None:
        """Called in the writer thread when a batch was lost: drop everything remembered from uncommitted units."""
        self._lost_hooks.append(hook)

    def start(self) -> None:
        """Open the connection (raises what `connect` raises) and start the thread. Call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._connection = self._connect()
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._urgent)

    async def run(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """Run one unit and return its result after COMMIT.

        Shielded: once asked, it is awaited to its end even if the caller is cancelled, so that no hold is ever made
        without its owner knowing. `urgent` units (an operator's) go before all that wait.
        Raises what the unit raised, or StoreUnavailable.
        """
        assert self._loop is not None, "start() first"
        job = _Job(unit, self._loop.create_future())
        with self._wake:
            if self._closing:
                raise StoreUnavailable("the broker is shutting down")
            if not urgent and len(self._queue) >= _QUEUE_MAX:
                raise StoreUnavailable("the broker is overloaded; try again shortly")
            (self._urgent if urgent else self._queue).append(job)
            self._wake.notify()
        with anyio.CancelScope(shield=True):
            return await job.future

    async def aclose(self) -> None:
        """Write what waits, checkpoint, close."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _take(self) -> list[_Job[Any]]:
        with self._wake:
            while not self._queue and not self._urgent and not self._closing:
                self._wake.wait()
            batch = list(self._urgent)
            self._urgent.clear()
            while self._queue and len(batch) < _BATCH_MAX:
                batch.append(self._queue.popleft())
            return batch

    def _work(self) -> None:
        while batch := self._take():
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001  # the boundary: whatever broke, every unit of the batch failed
                self._lose(batch, error)
            self._deliver(batch)
        if self._connection is not None:
            self._connection.close()

    def _commit(self, batch: Iterable[_Job[Any]]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        now_us = self._now_us()
        for job in batch:
            self._run_unit(connection, job, now_us)
        connection.execute("COMMIT")
        self.failure = None

    @staticmethod
    def _run_unit(connection: sqlite3.Connection, job: _Job[Any], now_us: int) -> None:
        tx = Tx(connection, now_us)
        connection.execute("SAVEPOINT unit")
        try:
            job.result = job.unit(tx)
        except Exception as error:
            if not connection.in_transaction:  # SQLite gave the whole transaction up (disk full, I/O error)
                raise
            connection.execute("ROLLBACK TO unit")
            connection.execute("RELEASE unit")
            job.error = error
            return
        connection.execute("RELEASE unit")
        for step in tx._on_release:
            step()
        job.after = tx._after_commit

    def _lose(self, batch: Iterable[_Job[Any]], error: Exception) -> None:
        """A connection whose commit failed is not trusted again: it is closed and the next batch opens a new one."""
        self.failure = f"{type(error).__name__}: {error}"
        log.error("commit_failed", error=self.failure)
        if self._connection is not None:
            try:
                self._connection.close()
            except sqlite3.Error as close_error:
                log.error("close_failed", error=str(close_error))
            self._connection = None
        for hook in self._lost_hooks:
            hook()
        for job in batch:
            job.error = StoreUnavailable(f"the record could not be written ({error})")
            job.after = ()

    def _deliver(self, batch: list[_Job[Any]]) -> None:
        assert self._loop is not None

        def deliver_all() -> None:
            for job in batch:
                job.deliver()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver_all)
