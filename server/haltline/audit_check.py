"""Proves the records of a database opened read-only: the log was only added to (P8), and the money follows from it (P7).

Works while the broker runs and on a copy. Reads in pieces, so that the write-ahead log is never held open for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from haltline.audit import GENESIS, SALT_BYTES, Kind, chain_hash, payload_digest
from haltline.stored_json import loads

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Books", "Fault", "LogWalk", "check_books", "damage"]

_PIECE = 5_000
"""Events read in one go."""
_BEFORE_ALL = -(1 << 63)
_COLUMN_NAMES = ("at_us", "kind", "agent_id", "session", "call", "tool")
_ENDINGS = {
    Kind.CALL_SUCCEEDED: "settled",
    Kind.CALL_FAILED: "settled",
    Kind.CALL_VOIDED: "voided",
    Kind.CALL_RESOLVED: "resolved",
}
Progress = Callable[[int], None]
"""Told the sequence number that was reached."""


def _nobody_watches(seq: int) -> None:
    del seq


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where the records do not hold. `seq`: the event, where one can be named."""

    seq: int | None
    what: str


def damage(connection: sqlite3.Connection) -> Iterator[Fault]:
    """What SQLite itself finds wrong with the file."""
    for (said,) in connection.execute("PRAGMA quick_check(20)"):
        if said != "ok":
            yield Fault(None, f"the file is damaged: {said}")


@dataclass(slots=True)
class LogWalk:
    """Walks the chain from the first event to the last; `seq` and `head` say how far it came."""

    connection: sqlite3.Connection
    progress: Progress = _nobody_watches
    seq: int = 0
    head: bytes = GENESIS
    _read_to: int = _BEFORE_ALL

    def faults(self) -> Iterator[Fault]:
        """Every place where the chain, a column or a payload does not hold, in order."""
        while rows := self._piece():
            payloads = self._payloads(rows[-1][0])
            for seq, *columns, body, digest in rows:
                said = _said(body)
                yield from self._event(seq, columns, body, digest, said)
                yield from _payload_faults(seq, said, payloads.pop(seq, ()))
                self.seq, self.head = seq, digest
            yield from map(_stray, sorted(payloads))
            self._read_to = self.seq
            self.progress(self.seq)
        stray = self.connection.execute("SELECT min(seq) FROM payloads WHERE seq > ?", (self._read_to,)).fetchone()[0]
        if stray is not None:
            yield _stray(stray)

    def _piece(self) -> list[tuple[Any, ...]]:
        return self.connection.execute(
            "SELECT seq, at_us, kind, agent_id, session_id, call_id, tool, body, hash FROM events"
            " WHERE seq > ? ORDER BY seq LIMIT ?",
            (self._read_to, _PIECE),
        ).fetchall()

    def _payloads(self, until_seq: int) -> dict[int, list[tuple[Any, ...]]]:
        found: dict[int, list[tuple[Any, ...]]] = {}
        rows = self.connection.execute(
            "SELECT seq, part, salt, data FROM payloads WHERE seq > ? AND seq <= ?", (self._read_to, until_seq)
        )
        for seq, *payload in rows:
            found.setdefault(seq, []).append(tuple(payload))
        return found

    def _event(
        self, seq: int, columns: list[Any], body: bytes, digest: bytes, said: Mapping[str, Any]
    ) -> Iterator[Fault]:
        if seq != self.seq + 1:
            missing = self.seq + 1 if seq > self.seq else seq
            yield Fault(missing, f"event {self.seq + 1} is missing: the one after {self.seq} is {seq}")
        if chain_hash(self.head, body) != digest:
            yield Fault(seq, f"event {seq} was changed, or one before it: its hash does not follow")
        if said.get("seq") != seq or any(
            said.get(name) != column for name, column in zip(_COLUMN_NAMES, columns, strict=True)
        ):
            yield Fault(seq, f"event {seq}: its columns do not say what its body says")


def _payload_faults(seq: int, said: Mapping[str, Any], payloads: Iterable[tuple[Any, ...]]) -> Iterator[Fault]:
    """An erased payload is no fault; a changed or an added one is."""
    digests = {part: one.get("sha256") for part, one in (said.get("payloads") or {}).items()}
    for part, salt, data in payloads:
        if part not in digests:
            yield Fault(seq, f"event {seq}: a payload {part!r} was added")
        elif len(salt) != SALT_BYTES or payload_digest(salt, data) != digests[part]:
            yield Fault(seq, f"event {seq}: its {part} were changed")


def _stray(seq: int) -> Fault:
    return Fault(seq, f"a payload belongs to event {seq}, which is not there")


def _said(body: bytes) -> dict[str, Any]:
    """What an event says; nothing where somebody made it unreadable."""
    try:
        said = loads(body)
    except (ValueError, RecursionError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


# money


def _nothing() -> dict[str, int]:
    return {"settled": 0, "held": 0, "in_doubt": 0}


@dataclass(slots=True)
class Books:
    """Sums over the calls, of the rows and of the events; where they agree, the money follows from the log."""

    calls: int = 0
    holds: int = 0
    rows: dict[str, int] = field(default_factory=_nothing)
    events: dict[str, int] = field(default_factory=_nothing)


_HOLD = "SELECT agent_id, session_id, tool, upstream, admitted_us, amount_micros, charged_micros, state FROM holds WHERE id = ?"


def check_books(connection: sqlite3.Connection, books: Books, progress: Progress = _nobody_watches) -> Iterator[Fault]:
    """Every admitted call has its one hold, of the same amount, ended as its events say; no hold is without its event."""
    last = 0
    while True:
        connection.execute("BEGIN")  # a hold and its events commit together, so one snapshot sees them agree
        try:
            admitted = connection.execute(
                "SELECT seq, call_id, body FROM events WHERE kind = ? AND seq > ? ORDER BY seq LIMIT ?",
                (Kind.CALL_ALLOWED, last, _PIECE),
            ).fetchall()
            for seq, call, body in admitted:
                yield from _call_faults(connection, books, seq, call, _said(body))
            if not admitted:
                yield from _unannounced(connection, books)
                return
        finally:
            connection.rollback()
        last = admitted[-1][0]
        progress(last)


def _call_faults(
    connection: sqlite3.Connection, books: Books, seq: int, call: str, admitted: Mapping[str, Any]
) -> Iterator[Fault]:
    books.calls += 1
    row = connection.execute(_HOLD, (call,)).fetchone()
    if row is None:
        yield Fault(seq, f"call {call} was admitted by event {seq}, but its hold is gone")
        return
    books.holds += 1
    *who, admitted_us, amount, charged, state = row
    said_state, said_charged, ends = _ending(connection, call)
    for sums, as_state, as_amount in (
        (books.rows, state, charged if state == "settled" else amount),
        (books.events, said_state, said_charged if said_state == "settled" else admitted.get("amount_micros")),
    ):
        if as_state in sums:
            sums[as_state] += as_amount if isinstance(as_amount, int) else 0
    if who != [admitted.get(name) for name in ("agent_id", "session", "tool", "upstream")]:
        yield Fault(seq, f"call {call}: its hold is not of the agent, session and tool that event {seq} admitted")
    if admitted_us != admitted.get("at_us"):
        yield Fault(
            seq, f"call {call}: its hold was admitted at {admitted_us}, event {seq} is of {admitted.get('at_us')}"
        )
    if amount != admitted.get("amount_micros"):
        yield Fault(seq, f"call {call}: its hold is {amount}, event {seq} admitted {admitted.get('amount_micros')}")
    if len(ends) > 1:
        yield Fault(ends[1], f"call {call} ends more than once, in events {', '.join(map(str, ends))}")
    if state != said_state:
        yield Fault(ends[-1] if ends else seq, f"call {call}: its hold is {state}, its events say {said_state}")
    elif state == "settled" and charged != said_charged:
        yield Fault(ends[-1], f"call {call}: {charged} was charged, event {ends[-1]} says {said_charged}")


def _ending(connection: sqlite3.Connection, call: str) -> tuple[str, Any, list[int]]:
    """(state, amount charged, sequence numbers of the endings) as the events of a call say."""
    state, charged, ends = "held", None, []
    for seq, kind, body in connection.execute(
        "SELECT seq, kind, body FROM events WHERE call_id = ? ORDER BY seq", (call,)
    ):
        if kind == Kind.CALL_IN_DOUBT:
            state = "in_doubt"
        elif kind in _ENDINGS:
            said = _said(body)
            ends.append(seq)
            charged = said.get("charged_micros")
            state = _ENDINGS[kind]
            if state == "resolved":
                state = "voided" if said.get("outcome") == "void" else "settled"
    return state, charged, ends


def _unannounced(connection: sqlite3.Connection, books: Books) -> Iterator[Fault]:
    if connection.execute("SELECT count(*) FROM holds").fetchone()[0] == books.holds:
        return
    rows = connection.execute(
        "SELECT id FROM holds WHERE NOT EXISTS (SELECT 1 FROM events WHERE call_id = holds.id AND kind = ?) LIMIT 20",
        (Kind.CALL_ALLOWED,),
    )
    for (call,) in rows.fetchall():
        yield Fault(None, f"call {call} has a hold, but no event admitted it")
