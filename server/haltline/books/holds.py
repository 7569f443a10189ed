"""What the events of one call say of its hold, and where the hold is another (P7). Pure: rows and events come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from haltline.audit import Kind
from haltline.audit_check import Fault

__all__ = ["ENDINGS", "HOLD_COLUMNS", "HoldRow", "Story", "row_of"]

ENDINGS = frozenset({Kind.CALL_SUCCEEDED, Kind.CALL_FAILED, Kind.CALL_VOIDED, Kind.CALL_RESOLVED})
HOLD_COLUMNS = (
    "agent_id, session_id, tool, upstream, admitted_us, amount_micros, charged_micros, state, charge_on_error, read_only,"
    " ended_us, doubt_us, charges_at_us"
)
_WHO = ("agent_id", "session", "tool", "upstream")


class HoldRow(NamedTuple):
    """A row of holds, by `HOLD_COLUMNS`."""

    agent_id: str
    session: str
    tool: str
    upstream: str
    admitted_us: int
    amount: int
    charged: int | None
    state: str
    charge_on_error: int
    read_only: int
    ended_us: int | None
    doubt_us: int | None
    charges_at_us: int | None


def row_of(values: Any) -> HoldRow | None:
    return None if values is None else HoldRow(*values)


@dataclass(slots=True)
class Story:
    """One admitted call. `terms`: whether its event says what of its price the hold keeps (older ones did not)."""

    call: str
    seq: int
    row: HoldRow | None
    who: tuple[Any, ...]
    admitted_us: Any
    amount: Any
    terms: tuple[bool, bool] | None
    state: str = "held"
    charged: Any = None
    doubt_us: Any = None
    charges_at_us: Any = None
    ends: list[int] = field(default_factory=list)
    ended_us: Any = None

    @classmethod
    def begin(cls, call: str, seq: int, said: Mapping[str, Any], row: HoldRow | None, *, terms: bool) -> Story:
        known = (said.get("charge_on_error", True), said.get("read_only", False)) if terms else None
        who = tuple(said.get(name) for name in _WHO)
        return cls(call, seq, row, who, said.get("at_us"), said.get("amount_micros"), known)

    def hear(self, seq: int, kind: str, said: Mapping[str, Any]) -> None:
        """One more event of it, in their order."""
        if kind == Kind.CALL_IN_DOUBT:
            self.state, self.doubt_us, self.charges_at_us = "in_doubt", said.get("at_us"), said.get("charges_at_us")
            return
        void = kind == Kind.CALL_VOIDED or (kind == Kind.CALL_RESOLVED and said.get("outcome") == "void")
        self.state, self.charged = ("voided", None) if void else ("settled", said.get("charged_micros"))
        self.ended_us, self.charges_at_us = said.get("at_us"), None
        self.ends.append(seq)

    def faults(self) -> Iterator[Fault]:
        """Where its hold is not what its events say; each names the call and the event."""
        row, call = self.row, self.call
        if row is None:
            yield Fault(self.seq, f"call {call} was admitted by event {self.seq}, but its hold is gone")
            return
        for name, mine, theirs in zip(_WHO, row[:4], self.who, strict=True):
            if mine != theirs:
                yield Fault(self.seq, f"call {call}: its hold is of {name} {mine}, event {self.seq} admitted {theirs}")
        if row.admitted_us != self.admitted_us:
            text = f"call {call}: its hold was admitted at {row.admitted_us}, event {self.seq} is of {self.admitted_us}"
            yield Fault(self.seq, text)
        if row.amount != self.amount:
            yield Fault(self.seq, f"call {call}: its hold is {row.amount}, event {self.seq} admitted {self.amount}")
        if self.terms is not None and self.terms != (bool(row.charge_on_error), bool(row.read_only)):
            yield Fault(self.seq, f"call {call}: its hold is of a tool declared otherwise than event {self.seq} says")
        yield from self._end_faults(row)

    def _end_faults(self, row: HoldRow) -> Iterator[Fault]:
        call, last = self.call, self.ends[-1] if self.ends else self.seq
        if len(self.ends) > 1:
            yield Fault(self.ends[1], f"call {call} ends more than once, in events {', '.join(map(str, self.ends))}")
        if row.state != self.state:
            yield Fault(last, f"call {call}: its hold is {row.state}, its events say {self.state}")
            return
        if self.state == "settled" and row.charged != self.charged:
            yield Fault(last, f"call {call}: {row.charged} was charged, event {last} says {self.charged}")
        for name, mine, theirs in (
            ("ended", row.ended_us, self.ended_us),
            ("was in doubt from", row.doubt_us, self.doubt_us),
            ("is charged", row.charges_at_us, self.charges_at_us),
        ):
            if mine != theirs:
                yield Fault(last, f"call {call}: its hold {name} at {mine}, its events say {theirs}")
