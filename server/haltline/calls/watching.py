"""Rules over an agent's ways on the path of a call: asked before it goes, in the deciding transaction (R27).

One that halts stops the very call that it was asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.policy.decide import for_child
from haltline.policy.drill import DRILL
from haltline.policy.model import Allow
from haltline.policy.watch import Moment
from haltline.policy.watch_money import Forecast, SingleCharge
from haltline.rules.asking import asked, caps_of, task_of
from haltline.rules.firing import cancel, fire, halt_of, owner_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.calls.call import CallRequest
    from haltline.calls.judging import Judged
    from haltline.parts import Parts
    from haltline.policy.model import Halt, Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["marks", "watched"]

OPENAPI_DESTINATION = "io.haltline/destination"


def marks(parts: Parts, policy: Policy | None, who: Principal, request: CallRequest) -> dict[str, str]:
    """What a call's event says for signals: a mark of equal calls, and whom it reaches. Nothing where it is a drill's."""
    tool = request.target
    if tool is None or tool.upstream == DRILL or policy is None or request.method != "tools/call":
        return {}
    found = {"same": parts.signals.same(tool.name, request.arguments)}
    reads = policy.terms_for(who, tool.name, tool.upstream).destination
    if reads is not None:
        destination = reads(request.arguments)
    elif parts.catalog.upstream(tool.upstream).spec.openapi is not None:
        destination = str((tool.definition.get("_meta") or {}).get(OPENAPI_DESTINATION, ""))
    else:
        return found
    return {**found, "destination": parts.audit.redactor.shapes(destination)} if destination else found


def watched(
    tx: Tx, parts: Parts, policy: Policy, who: Principal, request: CallRequest, judged: Judged, said: Mapping[str, str]
) -> Judged:
    """The judgement after the rules for each call; what fired is recorded, and told unless a halt will tell it."""
    tool, decision = request.target, judged.decision
    rules = () if tool is None or not said else policy.counting(who.tier, who.agent, tool.name)
    if tool is None or not rules:
        return judged
    allowed = isinstance(decision, Allow)
    amount = decision.amount_micros if isinstance(decision, Allow) else decision.reasons[0].facts.get("amount_micros")
    if not isinstance(amount, int):
        return judged
    mine = [(who, judged.facts), *((one, judged.above[one.session_id]) for one in who.above)] if allowed else []
    foresees = any(isinstance(rule, Forecast) for rule in rules)
    now = Moment(
        parts.signals.agent(tx, who.agent_id),
        tx.now_us,
        policy.currency,
        policy.time_zone,
        policy.day_bounds,
        tool=request.tool,
        upstream=tool.upstream,
        destination=said.get("destination", ""),
        same=said["same"],
        amount=amount,
        running=judged.facts.agent_open_calls,
        tasks=tuple([task_of(policy, one, facts) for one, facts in mine]),
        caps=tuple([cap for one, facts in mine for cap in caps_of(policy, one, facts, who)]) if foresees else (),
    )
    found = judged
    for rule in rules:
        if not (allowed or isinstance(rule, SingleCharge)):
            continue  # a single charge looks at what was attempted, whatever else refuses it (R4)
        for fired in asked(rule, now):
            owner = owner_of(fired, who)
            first = fired.halts and found is judged
            fire(tx, parts, policy, owner, fired, told=not first)
            if first:
                found = _halted(judged, who, owner, halt_of(fired))
                if rule.of.cancels:
                    cancel(tx, parts, owner, halt_of(fired))
    return found


def _halted(judged: Judged, who: Principal, owner: Principal, halt: Halt) -> Judged:
    if owner is who:
        return judged._replace(decision=halt)
    return judged._replace(decision=for_child(owner, halt), owner=owner)
