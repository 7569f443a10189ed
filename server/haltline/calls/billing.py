"""What an answered call is charged, and what follows when its upstream billed more than was held (P2, R7).

Runs inside the transaction that settles: the true amount, the halt and its alert commit together, so the next call of that
session finds the halt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from haltline.alarm import alarm
from haltline.audit import Event, Kind
from haltline.facts import gather
from haltline.policy.model import CapKind, Reason
from haltline.policy.money import format_amount
from haltline.policy.prices import Bill
from haltline.standings import standings

if TYPE_CHECKING:
    from haltline.calls.call import Admitted
    from haltline.calls.dispatch import Outcome
    from haltline.parts import Parts
    from haltline.policy.model import Facts, Principal
    from haltline.store.writer import Tx

__all__ = ["OVERAGE", "billed", "halt_for_overage"]

OVERAGE = "charge.overage"
_OF_AGENTS = {CapKind.HOUR: "hour", CapKind.DAY: "day"}


def billed(admitted: Admitted, outcome: Outcome, ran_us: int) -> Bill:
    """What an answered call costs, under the price that admitted it (R26)."""
    allow = admitted.allow
    if not outcome.succeeded and not allow.charge_on_error:
        return Bill(0)
    if allow.rate is None:
        return Bill(allow.amount_micros)
    result = (outcome.answer or {}).get("result")
    return allow.rate.bill(result if isinstance(result, dict) else {"isError": True}, allow.amount_micros, ran_us)


def halt_for_overage(tx: Tx, parts: Parts, call: str, admitted: Admitted, charged: int) -> None:
    """Stop the session whose call cost more than its declared maximum, and the agent where that broke a cap of its own."""
    who, policy, held = admitted.who, parts.policies.current, admitted.allow.amount_micros
    currency = "" if policy is None else policy.currency
    text = (
        f"{admitted.tool.name} billed {format_amount(charged, currency)}, its price allows {format_amount(held)}:"
        f" {format_amount(charged - held)} over"
    )
    numbers: dict[str, int | str | None] = {
        "amount_micros": held,
        "charged_micros": charged,
        "overage_micros": charged - held,
    }
    _halt(tx, parts, call, admitted, "session", Reason(OVERAGE, text, numbers))
    if policy is None:
        return
    for above in who.above:  # a breached cap halts its owner (R20)
        for one in standings(above, policy, gather(tx, parts, above, policy)):
            if one.kind is CapKind.TASK and one.spent > one.limit:
                over = f"{text}; task cap {format_amount(one.limit)}, spent {format_amount(one.spent)}"
                more: dict[str, int | str | None] = {
                    "cap": "task",
                    "limit_micros": one.limit,
                    "settled_micros": one.spent,
                }
                _halt(tx, parts, call, admitted, "session", Reason(OVERAGE, over, {**numbers, **more}), above)
    facts = gather(tx, parts, who, policy)
    for limit in policy.limits(who):
        cap = _OF_AGENTS.get(limit.kind)
        if cap is None:
            continue
        most, spent = limit.limit + facts.allowances.get(limit.kind, 0), _spent(facts, limit.kind)
        if spent > most:
            over = f"{text}; {cap} cap {format_amount(most)}, spent {format_amount(spent)}"
            more = {"cap": cap, "limit_micros": most, "settled_micros": spent}
            _halt(tx, parts, call, admitted, "agent", Reason(OVERAGE, over, {**numbers, **more}))


def _spent(facts: Facts, kind: CapKind) -> int:
    usage = facts.hour if kind is CapKind.HOUR else facts.day
    return usage.settled_micros


def _halt(
    tx: Tx,
    parts: Parts,
    call: str,
    admitted: Admitted,
    scope: Literal["session", "agent"],
    reason: Reason,
    owner: Principal | None = None,
) -> None:
    who = owner or admitted.who
    subject = who.session_id if scope == "session" else who.agent_id
    cap = reason.facts.get("cap")
    by = "price" if cap is None else f"cap {cap}"
    if not parts.halts.set(
        tx, scope, subject, code=reason.code, text=reason.text, by=by, cap=None if cap is None else str(cap)
    ):
        return
    kind = Kind.SESSION_HALTED if scope == "session" else Kind.AGENT_HALTED
    said: dict[str, Any] = {"code": reason.code, "text": reason.text, "facts": dict(reason.facts)}
    event = Event(
        kind,
        by,
        agent=who.agent,
        agent_id=who.agent_id,
        session=who.session_id,
        call=call,
        tool=admitted.tool.name,
        upstream=admitted.tool.upstream,
        policy=admitted.policy_version,
        body={"by": by, "reasons": [said], "call": call},
    )
    alarm(tx, parts, kind=kind.value, reason=reason, by=by, event_seq=parts.audit.append(tx, event), who=who)
