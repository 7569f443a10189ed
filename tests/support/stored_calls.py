"""What a broker's database says of the calls it admitted, by the reference each carried: read beside it or after it."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Halted", "StoredCall", "halts_set", "over_cap", "stored_calls"]

_CALLS = """
SELECT json_extract(p.data, '$.reference'), h.id, h.session_id, a.handle, h.state, h.amount_micros,
       coalesce(h.charged_micros, 0), h.admitted_us / 86400000000,
       (SELECT group_concat(o.kind) FROM events o WHERE o.call_id = h.id AND o.seq > e.seq), e.seq
FROM events e
JOIN holds h ON h.id = e.call_id
JOIN agents a ON a.id = h.agent_id
JOIN payloads p ON p.seq = e.seq AND p.part = 'arguments'
WHERE e.kind = 'call.allowed'
"""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """An admitted call: it has its event and its hold. `day` is the calendar day in UTC of its admission."""

    reference: str
    call: str
    session: str
    agent: str
    state: str
    amount: int
    charged: int
    day: int
    later: str
    """The kinds of what was recorded of it afterwards."""
    seq: int

    @property
    def counts(self) -> int:
        """What it counts against caps now, in micro-units."""
        return self.charged if self.state == "settled" else 0 if self.state == "voided" else self.amount


@dataclass(frozen=True, slots=True)
class Halted:
    scope: str
    subject_id: str
    code: str


def stored_calls(database: Path) -> dict[str, StoredCall]:
    with closing(_read_only(database)) as connection:
        rows = connection.execute(_CALLS).fetchall()
    return {row[0]: StoredCall(row[0], *row[1:8], row[8] or "", row[9]) for row in rows}


def halts_set(database: Path) -> set[Halted]:
    with closing(_read_only(database)) as connection:
        rows = connection.execute("SELECT scope, subject_id, code FROM halts WHERE lifted_us IS NULL").fetchall()
    return {Halted(*row) for row in rows}


def over_cap(calls: Iterable[StoredCall], *, task: int, day: int) -> int:
    """The micro-units by which any session is over `task`, or any agent on any day over `day`, summed."""
    sums: defaultdict[tuple[object, ...], int] = defaultdict(int)
    for call in calls:
        sums[("task", call.session)] += call.counts
        sums[("day", call.agent, call.day)] += call.counts
    return sum(max(0, spent - (task if key[0] == "task" else day)) for key, spent in sums.items())


def _read_only(database: Path) -> sqlite3.Connection:
    """Beside the broker that writes, or after it: never writes and never checkpoints."""
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)
