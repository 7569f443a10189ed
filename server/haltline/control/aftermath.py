"""What ran since a halt: read beside the hot path, from committed events, so that a person sees it before they resume.

Also finds the call whose refusal set the halt, for what lies ahead is asked of one like it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haltline.audit import RARE, Kind
from haltline.clock import iso

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from haltline.control.targets import Target
    from haltline.control.views import Shown
    from haltline.halts import HaltRow, HaltScope
    from haltline.store.reader import Reader
    from haltline_client import resume_results as rr

__all__ = ["HALTED", "Aftermath", "Refused", "aftermath"]

HALTED: dict[HaltScope, Kind] = {
    "session": Kind.SESSION_HALTED,
    "agent": Kind.AGENT_HALTED,
    "everything": Kind.EVERYTHING_HALTED,
}
COUNTED_MAX = 20_000
"""Events after the halt that are looked at: a loop that goes on being refused writes many."""
ENDED_MAX = 5_000
LAST = 5
_LOOKED_AT = 60


@dataclass(frozen=True, slots=True)
class Refused:
    """The call that set the halt, as far as its refusal says: the reason's code, and what it would have cost."""

    code: str
    amount_micros: int | None


@dataclass(frozen=True, slots=True)
class Aftermath:
    """`refused` is None where no call set the halt."""

    refused: Refused | None
    counts: dict[str, int]
    charged_micros: int
    running: int
    last: list[dict[str, Any]]

    def shown(self, shown: Shown) -> rr.SinceHalt:
        counts = self.counts
        return {
            "succeeded": counts.get(Kind.CALL_SUCCEEDED, 0),
            "failed": counts.get(Kind.CALL_FAILED, 0),
            "in_doubt": counts.get(Kind.CALL_IN_DOUBT, 0),
            "refused": counts.get(Kind.CALL_DENIED, 0),
            "running": self.running,
            "charged": shown.money(self.charged_micros),
            "more": sum(counts.values()) >= COUNTED_MAX,
            "last": self.last,  # type: ignore[typeddict-item]  # events as they are stored
        }


async def aftermath(reader: Reader, found: Target, halt: HaltRow, sessions: Sequence[str]) -> Aftermath:
    """`sessions`: for a session itself and those below it, which it stops too (R20)."""
    row = await _halting(reader, found, halt)
    where, given = _whose(found, sessions)
    since = 2**62 if row is None else int(row["seq"])
    counted = await reader.rows(
        f"SELECT kind, count(*) AS calls FROM (SELECT kind FROM events WHERE {where} AND seq > ?"  # noqa: S608 - constants
        " AND kind >= 'call.' AND kind < 'call/' LIMIT ?) GROUP BY kind",
        (*given, since, COUNTED_MAX),
    )
    ended = await reader.rows(  # few: none was admitted after the halt
        f"SELECT body FROM events WHERE {where} AND seq > ? AND kind >= 'call.' AND kind < 'call/'"  # noqa: S608
        " AND kind <> 'call.denied' LIMIT ?",
        (*given, since, ENDED_MAX),
    )
    newest = await reader.rows(
        f"SELECT body, call_id FROM events WHERE {where} AND seq > ? AND kind >= 'call.' AND kind < 'call/'"  # noqa: S608
        " ORDER BY seq DESC LIMIT ?",
        (*given, since, _LOOKED_AT),
    )
    return Aftermath(
        None if row is None else await _refused(reader, row["call_id"]),
        {one["kind"]: int(one["calls"]) for one in counted},
        sum(orjson.loads(one["body"]).get("charged_micros") or 0 for one in ended),
        await _running(reader, found, sessions),
        _last(newest),
    )


async def _halting(reader: Reader, found: Target, halt: HaltRow) -> sqlite3.Row | None:
    """The event of this halt; those of later ones are all that is passed over."""
    column = {"session": "session_id", "agent": "agent_id", "everything": "?"}[found.scope]
    return await reader.row(
        f"SELECT seq, call_id FROM events WHERE kind = ? AND {RARE} AND at_us = ? AND {column} = ?"  # noqa: S608 - constants
        " ORDER BY seq DESC LIMIT 1",
        (HALTED[found.scope], halt.set_us, *([""] if found.scope == "everything" else []), _key(found)),
    )


def _key(found: Target) -> str:
    return "" if found.scope == "everything" else found.subject_id


def _whose(found: Target, sessions: Sequence[str]) -> tuple[str, list[Any]]:
    if found.scope == "everything":
        return "agent_id IS NOT NULL", []
    if found.scope == "agent":
        return "agent_id = ?", [found.subject_id]
    named = f"({', '.join('?' * len(sessions))})"
    of = f"agent_id IN (SELECT agent_id FROM sessions WHERE id IN {named}) AND session_id IN {named}"  # noqa: S608 - only ?
    return of, [*sessions, *sessions]


async def _refused(reader: Reader, call: str | None) -> Refused | None:
    if call is None:
        return None
    row = await reader.row(
        "SELECT body FROM events WHERE call_id = ? AND kind = ? ORDER BY seq LIMIT 1", (call, Kind.CALL_DENIED)
    )
    reasons = [] if row is None else orjson.loads(row["body"]).get("reasons") or []
    if not reasons:
        return None
    amount = reasons[0].get("facts", {}).get("amount_micros")
    return Refused(str(reasons[0].get("code")), amount if isinstance(amount, int) else None)


async def _running(reader: Reader, found: Target, sessions: Sequence[str]) -> int:
    """Holds of calls that have no outcome yet; of everything: of all."""
    where, given = "state = 'held'", []
    if found.agent is not None:
        where, given = "agent_id = ? AND state = 'held'", [found.agent.id]
    if found.session is not None:
        where += f" AND session_id IN ({', '.join('?' * len(sessions))})"
        given += list(sessions)
    row = await reader.row(f"SELECT count(*) AS calls FROM holds WHERE {where}", given)  # noqa: S608 - made of constants
    return 0 if row is None else int(row["calls"])


def _last(newest: Sequence[sqlite3.Row]) -> list[dict[str, Any]]:
    """One for each call, without what was said in it."""
    calls: set[str] = set()
    kept: list[dict[str, Any]] = []
    for row in newest:
        if row["call_id"] not in calls and len(kept) < LAST:
            calls.add(row["call_id"])
            event = orjson.loads(row["body"])
            event.pop("payloads", None)
            kept.append({**event, "at": iso(event.pop("at_us"))})
    return kept[::-1]
