"""One recorded fact as signals read it, from an event as it is written and from the same event as it is stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from haltline.policy.drill import DRILL

__all__ = ["FOLDED", "Fact"]

FOLDED = frozenset(
    {
        "call.allowed",
        "call.denied",
        "call.succeeded",
        "call.failed",
        "call.voided",
        "call.in_doubt",
        "call.resolved",
        "agent.resumed",
        "session.resumed",
        "rule.fired",
    }
)
"""The kinds of events that say something about an agent's ways."""


_FAILED = frozenset({"call.failed", "call.in_doubt", "call.voided"})
"""Refusals by policy are no failures, so that a blocked agent is not also failing."""


class Fact(NamedTuple):
    """What one event says. `admitted_us`: of the call that ended (R1, R8). Money in micro-units."""

    seq: int
    at_us: int
    kind: str
    session: str = ""
    tool: str = ""
    upstream: str = ""
    destination: str = ""
    same: str = ""
    """Equal for equal calls; empty for what is no call of a tool."""
    amount: int = 0
    charged: int = 0
    admitted_us: int = 0
    failed: bool = False
    rule: str = ""
    cause: str = ""
    tasks: tuple[tuple[str, int, int], ...] = ()
    """Of an admitted call, its session's and those above it: (session, money used, calls made) before it."""
    at_once: int = 0
    """Calls of the agent that ran when it was admitted, it included."""
    drill: bool = False
    """A drill's, which says nothing of an agent's ways."""

    @staticmethod
    def of(seq: int, at_us: int, kind: str, named: Mapping[str, Any], body: Mapping[str, Any]) -> Fact:
        """`named`: session, tool, upstream; `body`: what the event adds, which for a stored event is the same mapping."""
        charged = body.get("charged_micros")
        amount = body.get("amount_micros", 0)
        return Fact(
            seq=seq,
            at_us=at_us,
            kind=kind,
            session=named.get("session") or "",
            tool=named.get("tool") or "",
            upstream=named.get("upstream") or "",
            destination=body.get("destination", ""),
            same=body.get("same", ""),
            amount=amount,
            charged=amount if charged is None else charged,
            admitted_us=body.get("admitted_us", at_us - body.get("duration_us", 0)),
            failed=kind in _FAILED and "withheld" not in body,
            rule=body.get("rule", ""),
            cause=body.get("cause", ""),
            tasks=_tasks(named, body) if kind == "call.allowed" else (),
            at_once=(body.get("facts") or {}).get("running", 0) + 1 if kind == "call.allowed" else 0,
            drill=named.get("upstream") == DRILL or body.get("drill") is True,
        )


def _tasks(named: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[tuple[str, int, int], ...]:
    facts = {named.get("session") or "": body.get("facts"), **body.get("above", {})}
    return tuple((session, sum(one["task"]), sum(one["calls"])) for session, one in facts.items() if session and one)
