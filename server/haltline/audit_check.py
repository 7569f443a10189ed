"""Proves the log of a database opened read-only: it was only added to (P8).

Works while the broker runs and on a copy. Reads in pieces, so that the write-ahead log is never held open for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.audit import GENESIS, SALT_BYTES, chain_hash, payload_digest
from haltline.stored_json import loads

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Fault", "LogWalk", "Progress", "damage", "nobody_watches", "said_by"]

_PIECE = 5_000
"""Events read in one go."""
_BEFORE_ALL = -(1 << 63)
_COLUMN_NAMES = ("at_us", "kind", "agent_id", "session", "call", "tool")
Progress = Callable[[int], None]
"""Told the sequence number that was reached."""


def nobody_watches(seq: int) -> None:
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
    progress: Progress = nobody_watches
    seq: int = 0
    head: bytes = GENESIS
    _read_to: int = _BEFORE_ALL

    def faults(self) -> Iterator[Fault]:
        """Every place where the chain, a column or a payload does not hold, in order."""
        while rows := self._piece():
            payloads = self._payloads(rows[-1][0])
            for seq, *columns, body, digest in rows:
                said = said_by(body)
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


def said_by(body: bytes) -> dict[str, Any]:
    """What an event says; nothing where somebody made it unreadable."""
    try:
        said = loads(body)
    except (ValueError, RecursionError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}
