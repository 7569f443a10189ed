"""What people added to caps for a time, each with its end and what is left of it: shown wherever a cap is looked at.

An allowance is used last: while the cap itself has room, all of it is left.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from haltline.clock import iso
from haltline.control.views import Shown
from haltline.errors import NotFound
from haltline.standings import balances

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haltline.halts import Allowance
    from haltline.parts import Parts
    from haltline.policy.model import CapKind
    from haltline.store.writer import Tx
    from haltline_client import cap_results as c

__all__ = ["ALLOWANCES_MAX", "shown_allowances"]

ALLOWANCES_MAX = 200
"""So many are shown at once."""


def shown_allowances(tx: Tx, parts: Parts, granted: Iterable[Allowance]) -> list[c.Allowance]:
    """Each with its own end; of one subject and cap those that end first in front."""
    ordered = sorted(granted, key=lambda one: (one.scope, one.subject_id, one.cap.value, one.until_us))
    groups = groupby(ordered, key=lambda one: (one.scope, one.subject_id, one.cap))
    return [
        shown for (scope, subject_id, cap), ones in groups for shown in _of(tx, parts, scope, subject_id, cap, ones)
    ]


def _of(
    tx: Tx, parts: Parts, scope: str, subject_id: str, cap: CapKind, granted: Iterable[Allowance]
) -> list[c.Allowance]:
    """What was added to one cap. What ends first is used first, so what is left is left of those that end last."""
    identity, policy = parts.identity, parts.policies.current
    try:
        session = identity.session(tx, subject_id) if scope == "session" else None
        agent = identity.agent_by_id(tx, subject_id if session is None else session.agent_id)
    except NotFound:
        return []
    who = identity.sessionless(agent) if session is None else identity.principal(tx, agent, session)
    standing = next((one for one in balances(tx, parts, who) if one.kind is cap), None)
    ones, shown, found = list(granted), Shown(policy), []
    rest = sum(one.amount for one in ones) if standing is None else max(0, standing.left)
    for one in reversed(ones):
        left = min(one.amount, rest)
        rest -= left
        entry: c.Allowance = {
            "target": agent.handle if session is None else session.id,
            "cap": cap.value,
            "amount": shown.quantity(cap, one.amount),
            "left": shown.quantity(cap, left),
            "until": iso(one.until_us),
            "by": one.by,
        }
        found.append(entry)
    return found[::-1]
