"""The single writer: one thread, one connection, many units of work per commit (group commit).

A unit is a plain function of a `Tx` (see `unit`). Its result reaches the caller only after COMMIT; a unit that raises rolls
back alone, a failed COMMIT fails every unit of its batch (R15). A lone unit is committed at once. Knows no tables.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import structlog

from haltline.errors import StoreUnavailable
from haltline.store.unit import Batch, BatchLost, Tx

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WAL_ALARM_BYTES", "Tx", "Writer"]

T = TypeVar("T")
Unit = Callable[["Tx"], T]

WAL_ALARM_BYTES = 64 * 1024 * 1024
"""A write-ahead log this long means that some reader keeps it from being checkpointed."""
PROBE_EVERY_S = 1.0
"""How often a failed store is tried again when nothing else tries it."""
IDLE_PROBE_EVERY_S = 30.0
"""So that `/readyz` says that the disk takes nothing before the first call finds out."""
_BATCH_MAX = 256
_QUEUE_MAX = 20_000
_URGENT_MAX = 2_000
log = structlog.get_logger(__name__)


class _Job(Generic[T]):
    """One unit, its caller's future, and what became of it. `deliver` and `result_of` run on the event loop."""

    __slots__ = ("after", "delivered", "error", "future", "result", "unit")

    def __init__(self, unit: Unit[T], future: asyncio.Future[None]) -> None:
        self.unit = unit
        self.future = future
        self.delivered = False
        self.result: T | None = None
        self.error: Exception | None = None
        self.after: Sequence[Callable[[], None]] = ()

    def deliver(self) -> None:
        for step in self.after:
            try:
                step()
            except Exception as error:  # the boundary: one unit's step must not keep the others of its batch waiting
                log.exception("after_commit_failed")
                self.error = error
        self.delivered = True
        if not self.future.done():
            self.future.set_result(None)

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # set by the unit that had no error


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
        self._urgent: deque[_Job[Any]] = deque()
        self._queue: deque[_Job[Any]] = deque()
        self._lock = threading.Lock()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Rung where the thread may be asleep; a ring too many does no harm."""
        self._asleep = False
        self._closing = False
        self._connection: sqlite3.Connection | None = None
        self._wal: Path | None = None
        self._lost_hooks: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._work, name="haltline-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy_since: float | None = None
        self.failure: str | None = None
        """Why the last commit failed, until one succeeds; `/readyz` says it. The writer tries by itself every second."""
        self.wal_bytes = 0
        """Length of the write-ahead log after the last commit; past `WAL_ALARM_BYTES` it is logged as an error."""

    def on_lost(self, hook: Callable[[], None]) -> None:
        """Called in the writer thread when a batch was lost: drop everything remembered from uncommitted units."""
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
    def busy_s(self) -> float:
        """How long the batch that is being written has taken so far."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def ended(self) -> bool:
        """Its thread is not there any more: nothing is ever written again."""
        return self._thread.ident is not None and not self._thread.is_alive()

    async def run(self, unit: Unit[T], *, urgent: bool = False) -> T:
        """Run one unit and return its result after COMMIT.

        Once asked, it is awaited to its end whatever cancels the caller (a cancel scope, or the task itself; that
        cancellation strikes at the caller's next await), so that no hold is ever made without its owner knowing.
        `urgent` units (an operator's) go before all that wait. Raises what the unit raised, or StoreUnavailable.
        """
        job = self._enqueue(unit, urgent=urgent)
        try:
            await job.future
        except asyncio.CancelledError as cancelled:
            await self._delivered(job)
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
                task.cancel(*cancelled.args)
        return job.outcome()

    async def _delivered(self, job: _Job[Any]) -> None:
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
        self._bell.put(None)
        if self._thread.is_alive():
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(self._thread.join)

    def _enqueue(self, unit: Unit[T], *, urgent: bool) -> _Job[T]:
        assert self._loop is not None, "start() first"
        waiting, most = (self._urgent, _URGENT_MAX) if urgent else (self._queue, _QUEUE_MAX)
        job = _Job(unit, self._loop.create_future())
        with self._lock:
            if self._closing:
                raise StoreUnavailable("the broker is shutting down")
            if len(waiting) >= most:
                raise StoreUnavailable("the broker is overloaded; try again shortly")
            waiting.append(job)
            asleep, self._asleep = self._asleep, False
        if asleep:
            self._bell.put(None)
        return job

    # in the writer thread

    def _take(self) -> list[_Job[Any]]:
        """The next batch, urgent units first. Empty: closing, or time to see whether the store can be written."""
        while True:
            with self._lock:
                if self._queue or self._urgent or self._closing:
                    batch = list(self._urgent)
                    self._urgent.clear()
                    while self._queue and len(batch) < _BATCH_MAX:
                        batch.append(self._queue.popleft())
                    return batch
                self._asleep = True
            try:
                self._bell.get(timeout=PROBE_EVERY_S if self.failure else self._idle_probe_s)
            except queue.Empty:
                return []

    def _work(self) -> None:
        try:
            while (batch := self._take()) or not self._closing:
                self._busy_since = time.monotonic()
                try:
                    self._commit(batch)
                except Exception as error:  # noqa: BLE001 - the boundary: whatever broke, every unit of the batch failed
                    self._lose(batch, error)
                self._busy_since = None
                self._deliver(batch)
        finally:
            self._end()

    def _end(self) -> None:
        """Nothing waits for ever, also when this thread ends for a reason that nobody thought of."""
        with self._lock:
            self._closing = True
            left = [*self._urgent, *self._queue]
            self._urgent.clear()
            self._queue.clear()
        if left:
            self._lose(left, RuntimeError("the writer ended"))
            self._deliver(left)
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = self._connection = self._connect()
        file = connection.execute("PRAGMA database_list").fetchone()[2]
        self._wal = Path(f"{file}-wal") if file else None
        return connection

    def _commit(self, batch: Sequence[_Job[Any]]) -> None:
        connection = self._connection or self._open()
        connection.execute("BEGIN IMMEDIATE")
        together = Batch(connection, self._now_us())
        for job in batch:
            self._run_unit(together, job)
        together.write()
        if not batch:
            _write_something(connection)
        connection.execute("COMMIT")
        if self.failure is not None:
            log.warning("commits_succeed_again", after=self.failure)
            self.failure = None
        self._watch_wal()

    @staticmethod
    def _run_unit(batch: Batch, job: _Job[Any]) -> None:
        tx = Tx(batch)
        try:
            job.result = job.unit(tx)
            job.after = tx.end()
        except BatchLost:
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary: a unit that raises, whatever it raises, fails alone
            tx.undo(error)
            job.error = _raisable(error)

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

    def _deliver(self, batch: Sequence[_Job[Any]]) -> None:
        assert self._loop is not None

        def deliver_all() -> None:
            for job in batch:
                job.deliver()

        try:
            self._loop.call_soon_threadsafe(deliver_all)
        except RuntimeError:  # the loop is closed: nobody is left who could wait; what waits is written all the same
            log.warning("nobody_waits", units=len(batch))

    def _watch_wal(self) -> None:
        before, self.wal_bytes = self.wal_bytes, _size(self._wal)
        if before < WAL_ALARM_BYTES <= self.wal_bytes:
            advice = "a reader holds it open, such as a long audit query or a copy, or one transaction was this large"
            log.error("wal_grows", bytes=self.wal_bytes, advice=advice)


def _raisable(error: BaseException) -> Exception:
    """What the caller may be given: a StopIteration or a cancellation out of a unit would steer its task."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    wrapped = RuntimeError(f"a unit of work raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def _write_something(connection: sqlite3.Connection) -> None:
    """Write a page without changing what it says, so that the COMMIT after it proves that the disk takes writes."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {int(version)}")


def _size(file: Path | None) -> int:
    try:
        return 0 if file is None else file.stat().st_size
    except OSError:
        return 0
