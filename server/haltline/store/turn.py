"""What is committed together: units with their callers, run from memory where they ask nothing of SQLite, else in the transaction.

A unit that raises fails alone (R15). Knows no threads: whoever owns a turn runs it, and nobody else meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from haltline.store.unit import Batch, BatchLost, Tx

if TYPE_CHECKING:
    import asyncio
    import sqlite3

__all__ = ["Job", "Turn"]

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Job(Generic[T]):
    """One unit, its caller's future, and what became of it. `deliver` and `outcome` run on the event loop."""

    __slots__ = ("after", "delivered", "error", "from_memory", "future", "result", "unit")

    def __init__(self, unit: Callable[[Tx], T], future: asyncio.Future[None], *, from_memory: bool) -> None:
        self.unit = unit
        self.future = future
        self.from_memory = from_memory
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


class Turn:
    """What is committed together: the jobs in their order, those of them whose units are still to be run, and the rows.

    `now_us`: the time of all of them.
    """

    __slots__ = ("broken", "jobs", "left", "together")

    def __init__(self, jobs: Sequence[Job[Any]], now_us: int) -> None:
        self.jobs = jobs
        self.left: Sequence[Job[Any]] = jobs
        self.together = Batch(None, now_us)
        self.broken: BaseException | None = None
        """What broke it before the transaction began: then nothing of it is committed."""

    def run_from_memory(self, most_s: float) -> Sequence[Job[Any]]:
        """Run what asks nothing of SQLite, for so long; the others come after it, also in the order of delivery.

        Returns the jobs that there was no time for, which are of this turn no more.
        """
        try:
            return self._run_from_memory(perf_counter() + most_s)
        except BaseException as error:  # noqa: BLE001 - the boundary: a step that undoes a unit failed, so what is remembered is lost
            self.broken = error
            return ()

    def _run_from_memory(self, until: float) -> Sequence[Job[Any]]:
        ran: list[Job[Any]] = []
        left: list[Job[Any]] = []
        for at, job in enumerate(self.jobs):
            if at and perf_counter() > until:
                break
            (ran if job.from_memory and _ran_from_memory(self.together, job) else left).append(job)
        else:
            at = len(self.jobs)
        later = self.jobs[at:]
        self.jobs, self.left = [*ran, *left], left
        return later

    def write(self, connection: sqlite3.Connection) -> None:
        """Run what is left, in the transaction that has begun on this connection, and write all rows. Raises what breaks it."""
        if self.broken is not None:
            raise self.broken
        self.together.connection = connection
        for job in self.left:
            _run(self.together, job)
        self.together.write()


def _ran_from_memory(together: Batch, job: Job[Any]) -> bool:
    """Whether it could be run, or failed; False: it asks SQLite, and nothing of it has stayed."""
    tx = Tx(together)
    try:
        job.result = job.unit(tx)
    except BaseException as error:  # noqa: BLE001 - as in `_run`; a unit that asks comes here too, or has kept that for itself
        job.error = None if tx.asks else _raisable(error)
    if tx.asks or job.error is not None:
        tx.undo()
    else:
        job.after = tx.end()
    return not tx.asks


def _run(together: Batch, job: Job[Any]) -> None:
    tx = Tx(together)
    try:
        job.result = job.unit(tx)
        job.after = tx.end()
    except BatchLost:
        raise
    except BaseException as error:  # noqa: BLE001 - the boundary: a unit that raises, whatever it raises, fails alone
        tx.undo(error)
        job.error = _raisable(error)


def _raisable(error: BaseException) -> Exception:
    """What the caller may be given: a StopIteration or a cancellation out of a unit would steer its task."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    wrapped = RuntimeError(f"a unit of work raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
