"""Proves that the money follows from the log: every hold, session, agent and allowance is what the events say of it (P7, P8).

One walk along the events, in pieces, on a database opened read-only: beside a running broker, or on a copy. What is
remembered on the way is bounded: calls that have not ended yet, and of those so many; any call that looks wrong is judged once
more by itself, in one snapshot, so that a call that ends meanwhile is no fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from haltline.audit import GENESIS, Kind, chain_hash
from haltline.audit_check import Fault, Progress, nobody_watches, said_by
from haltline.books.holds import ENDINGS, HOLD_COLUMNS, Story, row_of
from haltline.books.openings import OPENINGS, Found, opening_faults, unannounced

if TYPE_CHECKING:
    import sqlite3

__all__ = ["OPEN_MAX", "Books", "check_books"]

_PIECE = 2_000
"""Events read in one go."""
OPEN_MAX = 20_000
"""Calls whose end was not met yet; above it the oldest are looked up one by one."""
_NAMED_MAX = 1_000
_OF_CALLS = frozenset({Kind.CALL_ALLOWED, Kind.CALL_IN_DOUBT, *ENDINGS})


def _nothing() -> dict[str, int]:
    return {"settled": 0, "held": 0, "in_doubt": 0}


@dataclass(slots=True)
class Books:
    """What was walked, and sums over the calls, of the rows and of the events."""

    events_read: int = 0
    calls: int = 0
    found: Found = field(default_factory=lambda: dict.fromkeys(("holds", "sessions", "agents", "allowances"), 0))
    rows: dict[str, int] = field(default_factory=_nothing)
    events: dict[str, int] = field(default_factory=_nothing)

    def add(self, story: Story) -> None:
        if story.row is not None:
            self.found["holds"] += 1
            _add(self.rows, story.row.state, story.row.charged if story.row.state == "settled" else story.row.amount)
        _add(self.events, story.state, story.charged if story.state == "settled" else story.amount)


def _add(sums: dict[str, int], state: str, amount: Any) -> None:
    if state in sums and isinstance(amount, int):
        sums[state] += amount


def check_books(
    connection: sqlite3.Connection, books: Books, progress: Progress = nobody_watches, *, chain: bool = True
) -> Iterator[Fault]:
    """Every place where rows and events do not agree. `chain`: and every event that does not follow from the one before it."""
    walk = _Walk(connection, books, chain=chain)
    while True:
        with _snapshot(connection):  # a hold and its events commit together, so one snapshot sees them agree
            found = walk.piece()
            if not found:
                yield from walk.rest()
                return
            yield from walk.faults(found)
        progress(walk.seq)


class _Walk:
    def __init__(self, connection: sqlite3.Connection, books: Books, *, chain: bool) -> None:
        self.seq = 0
        self._chained = chain
        self._connection = connection
        self._books = books
        self._head = GENESIS
        self._open: dict[str, Story] = {}
        self._named: set[str] = set()
        self._terms_since = _terms_since(connection)

    def piece(self) -> list[tuple[Any, ...]]:
        return self._connection.execute(
            "SELECT seq, kind, call_id, body, hash FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (self.seq, _PIECE)
        ).fetchall()

    def faults(self, found: list[tuple[Any, ...]]) -> Iterator[Fault]:
        told = [said_by(body) for *_, body, _ in found]
        rows = self._holds([said.get("call") for said in told if said.get("kind") == Kind.CALL_ALLOWED])
        for (seq, kind, call, body, digest), said in zip(found, told, strict=True):
            if self._chained:
                yield from self._chain(seq, body, digest)
                if (said.get("kind"), said.get("call"), said.get("seq")) != (kind, call, seq):
                    yield Fault(seq, f"event {seq}: its columns do not say what its body says")
            self.seq = seq
            yield from self._event(seq, said, rows)
            self._books.events_read += 1

    def _event(self, seq: int, said: Mapping[str, Any], rows: Mapping[str, Any]) -> Iterator[Fault]:
        """What is hashed counts, not what stands beside it."""
        kind = said.get("kind")
        if kind in _OF_CALLS:
            yield from self._call(seq, str(kind), str(said.get("call")), said, rows)
        elif kind in OPENINGS:
            yield from opening_faults(self._connection, seq, str(kind), said, self._books.found)

    def rest(self) -> Iterator[Fault]:
        """What is still open when the log is at its end, and rows that no event speaks of."""
        while self._open:
            yield from self._close(next(iter(self._open)))
        yield from unannounced(self._connection, self._books.found)

    def _chain(self, seq: int, body: bytes, digest: bytes) -> Iterator[Fault]:
        if seq != self.seq + 1:
            yield Fault(self.seq + 1, f"event {self.seq + 1} is missing: the one after {self.seq} is {seq}")
        if chain_hash(self._head, body) != digest:
            yield Fault(seq, f"event {seq} was changed, or one before it: its hash does not follow")
        self._head = digest

    def _holds(self, calls: list[Any]) -> dict[str, tuple[Any, ...]]:
        some = f"SELECT id, {HOLD_COLUMNS} FROM holds WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
        found = self._connection.execute(some, (json.dumps(calls),))
        return {call: row for call, *row in found}

    def _call(
        self, seq: int, kind: str, call: str, said: Mapping[str, Any], rows: Mapping[str, Any]
    ) -> Iterator[Fault]:
        story = self._open.get(call)
        if kind == Kind.CALL_ALLOWED:
            self._books.calls += 1
            self._open[call] = Story.begin(call, seq, said, row_of(rows.get(call)), terms=seq > self._terms_since)
            if len(self._open) > OPEN_MAX:
                yield from self._look_up(next(iter(self._open)), counts=True)
        elif story is None:
            yield from self._look_up(call, counts=False)  # ended before, or never admitted
        else:
            story.hear(seq, kind, said)
            if kind in ENDINGS:
                yield from self._close(call)

    def _close(self, call: str) -> Iterator[Fault]:
        story = self._open[call]
        if any(story.faults()):
            yield from self._look_up(call, counts=True)
            return
        del self._open[call]
        self._books.add(story)

    def _look_up(self, call: str, *, counts: bool) -> Iterator[Fault]:
        """The whole story of one call, and its hold as it is now."""
        self._open.pop(call, None)
        story = self._told(call)
        if counts and story is not None:
            self._books.add(story)
        if call in self._named:
            return
        faults = (
            list(story.faults())
            if story is not None
            else [Fault(None, f"call {call} has ended, but no event admitted it")]
        )
        if faults and len(self._named) < _NAMED_MAX:
            self._named.add(call)
        yield from faults

    def _told(self, call: str) -> Story | None:
        story = None
        for seq, kind, body in self._connection.execute(
            "SELECT seq, kind, body FROM events WHERE call_id = ? ORDER BY seq", (call,)
        ):
            if kind == Kind.CALL_ALLOWED and story is None:
                row = self._holds([call]).get(call)
                story = Story.begin(call, seq, said_by(body), row_of(row), terms=seq > self._terms_since)
            elif story is not None and kind in _OF_CALLS:
                story.hear(seq, kind, said_by(body))
        return story


def _terms_since(connection: sqlite3.Connection) -> float:
    """The last event that does not say what of its price a hold keeps. A copy may be of an older schema: then all of them."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'terms'").fetchone() is None:
        return math.inf
    row = connection.execute("SELECT since FROM terms").fetchone()
    return 0 if row is None else int(row[0])


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()
