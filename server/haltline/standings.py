"""How each cap of somebody stands now: one list for refusals, alerts, the control tools and the proof of the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from haltline.facts import gather
from haltline.policy.balance import OF_SESSION, balance

if TYPE_CHECKING:
    from haltline.parts import Parts
    from haltline.policy.balance import Balance
    from haltline.policy.model import Facts, Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["balances", "standing"]


def balances(tx: Tx, parts: Parts, who: Principal) -> tuple[Balance, ...]:
    """Every cap that a call of this principal is measured against, in this transaction: its own in the order of the policy,
    then those of the sessions above it, the nearest first (R20). Empty where no policy is in force.

    Without a session (`Identity.sessionless`) it is the agent's list: what each session has for itself is not in it. Of a
    session above only what differs is told: its task and its calls, and where it is narrower.
    """
    policy = parts.policies.current
    if policy is None:
        return ()
    found = list(standing(who, policy, gather(tx, parts, who, policy)))
    told = {(one.kind, one.window_s, one.limit) for one in found}
    for above in who.above:
        found += (
            replace(one, session=above.session_id)
            for one in standing(above, policy, gather(tx, parts, above, policy))
            if one.kind in OF_SESSION or (one.kind, one.window_s, one.limit) not in told
        )
    return tuple(found)


def standing(who: Principal, policy: Policy, facts: Facts) -> tuple[Balance, ...]:
    """The same from facts that were gathered already, without the sessions above."""
    return tuple(
        replace(one, session=who.session_id) if one.kind in OF_SESSION else one
        for one in (balance(cap, facts) for cap in policy.limits(who))
        if who.session_id or one.kind not in OF_SESSION
    )
