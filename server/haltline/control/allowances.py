"""What people added to caps for a time, with what is left of it: shown wherever a cap is looked at.

An allowance is used last: while the cap itself has room, all of it is left.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from haltline.clock import iso
from haltline.control.views import Shown
from haltline.errors import NotFound
from haltline.facts import gather
from haltline.standings import standings

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
    """One for each subject and cap."""
    ordered = sorted(granted, key=lambda one: (one.scope, one.subject_id, one.cap.value, one.until_us))
    groups = groupby(ordered, key=lambda one: (one.scope, one.subject_id, one.cap))
    found = [_shown(tx, parts, scope, subject_id, cap, list(ones)) for (scope, subject_id, cap), ones in groups]
    return [one for one in found if one is not None]


def _shown(
    tx: Tx, parts: Parts, scope: str, subject_id: str, cap: CapKind, ones: list[Allowance]
) -> c.Allowance | None:
    identity, policy = parts.identity, parts.policies.current
    try:
        session = identity.session(tx, subject_id) if scope == "session" else None
        agent = identity.agent_by_id(tx, subject_id if session is None else session.agent_id)
    except NotFound:
        return None
    who = identity.sessionless(agent) if session is None else identity.principal(tx, agent, session)
    amount = sum(one.amount for one in ones)
    standing = () if policy is None else standings(who, policy, gather(tx, parts, who, policy))
    remaining = next((one.left for one in standing if one.kind is cap), amount)
    shown = Shown(policy)
    return {
        "target": agent.handle if session is None else session.id,
        "cap": cap.value,
        "amount": shown.quantity(cap, amount),
        "left": shown.quantity(cap, max(0, min(amount, remaining))),
        "until": iso(ones[0].until_us),
        "by": ones[-1].by,
    }
