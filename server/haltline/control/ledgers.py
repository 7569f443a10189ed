"""Proves the balances of a running broker: what decisions remember, halts and what people added to caps with it, what the
rows say, and what the events say.

The rows are loaded a second time, in short units of the writer, and compared with what is in memory; the events are read
beside it, in a reader. Changes nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from haltline.accounts import Differs
from haltline.audit_check import Fault
from haltline.books import Books, check_books
from haltline.errors import NotFound

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable

    from haltline.control.desk import Desk, Request
    from haltline.store.writer import Tx
    from haltline_client import ledger_results as g

__all__ = ["FAULTS_MAX", "LedgerDesk"]

FAULTS_MAX = 100
"""More than these are not listed: the first one says where to look."""
_UNIT_S = 0.002
"""So long may one unit load accounts again, for calls wait for it; one account with many calls may take longer."""
_AT_ONCE_MAX = 256


class LedgerDesk:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def check_ledger(self, request: Request) -> g.LedgerChecked:
        """Every figure in memory against the rows, every row against the events."""
        agents, sessions = await self._desk.act(request, lambda *_: self._parts.ledger.remembered())
        differences = [one async for one in self._all_differing(agents, sessions)]
        books, faults = await self._parts.reader.in_thread(_check)
        return {
            "ok": not differences and not faults,
            "calls": books.calls,
            "agents": len(agents),
            "sessions": len(sessions),
            "rows": _sums(books.rows),
            "events": _sums(books.events),
            "differences": differences[:FAULTS_MAX],
            "faults": [{"seq": one.seq, "what": one.what} for one in faults],
        }

    async def _all_differing(
        self, agents: tuple[str, ...], sessions: tuple[str, ...]
    ) -> AsyncIterator[g.LedgerDifference]:
        """As many accounts at once as take little time, and the first differences alone."""
        shown = 0
        for of_agents, names in ((True, agents), (False, sessions)):
            start, at_once = 0, 1
            while start < len(names) and shown < FAULTS_MAX:
                some = names[start : start + at_once]
                both = (some, ()) if of_agents else ((), some)
                found, took_s = await self._parts.writer.run(lambda tx, both=both: self._timed(tx, *both))  # type: ignore[misc]  # bound early
                start += at_once
                at_once = max(1, at_once // 2) if took_s > _UNIT_S else min(2 * at_once, _AT_ONCE_MAX)
                shown += len(found)
                for one in found:
                    yield one

    def _timed(
        self, tx: Tx, agents: tuple[str, ...], sessions: tuple[str, ...]
    ) -> tuple[list[g.LedgerDifference], float]:
        began = time.perf_counter()
        return self._differing(tx, agents, sessions), time.perf_counter() - began

    def _differing(self, tx: Tx, agents: tuple[str, ...], sessions: tuple[str, ...]) -> list[g.LedgerDifference]:
        found = self._parts.ledger.differing(tx, agents, sessions)
        halts = self._parts.halts
        found += (Differs("agent", name, *one) for name in agents for one in halts.differing(tx, "agent", name))
        found += (Differs("session", name, *one) for name in sessions for one in halts.differing(tx, "session", name))
        return [self._shown(tx, one) for one in found]

    def _shown(self, tx: Tx, one: Differs) -> g.LedgerDifference:
        name = self._handle(tx, one.id) if one.of == "agent" else one.id
        return {
            "of": one.of,
            "id": one.id,
            "name": name,
            "figure": one.figure,
            "remembered": one.remembered,
            "rows": one.rows,
            "what": f"{one.of} {name}: {one.figure} is {one.remembered} in memory, {one.rows} from the rows",
        }

    def _handle(self, tx: Tx, agent_id: str) -> str:
        try:
            return self._parts.identity.agent_by_id(tx, agent_id).handle
        except NotFound:
            return agent_id


class _Unwanted(Exception):
    """Whoever asked went away."""


def _check(connection: sqlite3.Connection, wanted: Callable[[], bool]) -> tuple[Books, list[Fault]]:
    def progress(_: int) -> None:
        if not wanted():
            raise _Unwanted

    books = Books()
    faults: list[Fault] = []
    for fault in check_books(connection, books, progress):  # to the end: the sums are of all calls
        if len(faults) < FAULTS_MAX:
            faults.append(fault)
    return books, faults


def _sums(sums: dict[str, int]) -> g.LedgerSums:
    return {"settled": sums["settled"], "held": sums["held"], "in_doubt": sums["in_doubt"]}
