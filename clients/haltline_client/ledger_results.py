"""The shape of a check of the ledger, for type checkers and readers, and nothing at run time."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["LedgerChecked", "LedgerDifference", "LedgerFault", "LedgerSums"]


class LedgerDifference(TypedDict):
    """One figure that decisions remember otherwise than the rows say it. Micro-units, counts, or microseconds (`…_us`)."""

    of: Literal["agent", "session"]
    id: str
    name: str
    figure: str
    remembered: int | None
    rows: int | None
    what: str


class LedgerFault(TypedDict):
    """A row of the ledger that does not follow from the events. `seq`: the event, where one can be named."""

    seq: int | None
    what: str


class LedgerSums(TypedDict):
    """Over all calls, in micro-units."""

    settled: int
    held: int
    in_doubt: int


class LedgerChecked(TypedDict):
    """`agents` and `sessions`: how many had sums in memory; None where no broker runs that would remember any."""

    ok: bool
    calls: int
    agents: int | None
    sessions: int | None
    rows: LedgerSums
    events: LedgerSums
    differences: list[LedgerDifference]
    faults: list[LedgerFault]
