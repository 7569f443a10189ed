"""The decision: stages of rules folded to one answer. Pure; what is decided and what is explained are one evaluation.

The first stage with a refusal decides. Within it a halt comes before a denial, then the order of the rules. Anything
that is not a clean Allow is a Deny (P6); an exception is the caller's matter and ends there in a Deny as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from haltline.policy.budget import PerCall, PriceMaximum, SingleCharge, Spending
from haltline.policy.model import Allow, Deny, Halt
from haltline.policy.rules import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline.policy.grant import Grant
    from haltline.policy.model import Decision, Principal, Reason
    from haltline.policy.rules import Asked, Refusal, Rule

    Hear = Callable[[Rule, Refusal | None], None]

__all__ = ["Explained", "RuleSaid", "decide", "explain", "for_child"]

_OF_A_SESSION = frozenset({"session", "budget", "calls", "rule", "scope"})
"""What a reason is about where each session has its own."""

_OF_AMOUNTS = (SingleCharge, PerCall, PriceMaximum, Spending)


@dataclass(frozen=True, slots=True)
class RuleSaid:
    """What one rule said: `allow`, `deny`, `halt`, `would_deny`, or `silent` where there was nothing to measure."""

    rule: str
    where: str
    spoke: str
    text: str


@dataclass(frozen=True, slots=True)
class Explained:
    """The decision, and every rule that spoke, also those after the one that decided."""

    decision: Decision
    rules: tuple[RuleSaid, ...]


def decide(grant: Grant, asked: Asked) -> Decision:
    return _evaluate(grant, asked, None)


def explain(grant: Grant, asked: Asked) -> Explained:
    said: list[RuleSaid] = []

    def hear(rule: Rule, refusal: Refusal | None) -> None:
        heard = _said(rule, refusal, asked)
        if heard is not None:
            said.append(heard)

    decision = _evaluate(grant, asked, hear)
    return Explained(decision, tuple(said))


def for_child(owner: Principal, refused: Deny | Halt) -> Deny | Halt:
    """What a child session is told where a session above it was refused (R20)."""
    reasons = tuple(
        replace(
            reason,
            text=f"of session {owner.session_id}, which this one belongs to: {reason.text}",
            facts={**reason.facts, "session": owner.session_id},
        )
        if reason.code.partition(".")[0] in _OF_A_SESSION
        else reason
        for reason in refused.reasons
    )
    return replace(refused, reasons=reasons)


def _evaluate(grant: Grant, asked: Asked, hear: Hear | None) -> Decision:
    refusals: list[Refusal] = []
    would_deny: list[Reason] = []
    for stage in grant.stages:
        enforced: list[Refusal] = []
        for rule in stage:
            refusal = _ask_watching(rule, asked) if rule.audit else rule.ask(asked)
            if hear is not None:
                hear(rule, refusal)
            if refusal is None:
                continue
            if rule.audit:
                would_deny.append(refusal.reason)
            else:
                enforced.append(refusal)
        if enforced and not refusals:
            refusals = enforced
            if hear is None:
                break
    return _refused(refusals, grant.on_deny) if refusals else _allowed(asked, tuple(would_deny))


def _ask_watching(rule: Rule, asked: Asked) -> Refusal | None:
    """A rule that only watches never stops a call, also not by failing (R29); its failure is recorded as its answer."""
    try:
        return rule.ask(asked)
    except Exception as error:  # noqa: BLE001 - named boundary: R29
        return refuse("policy.error", f"rule {rule.name} at {rule.where} failed: {type(error).__name__}")


def _refused(refusals: list[Refusal], on_deny: str) -> Deny | Halt:
    refusals = sorted(refusals, key=lambda refusal: refusal.halts is None)
    first, reasons = refusals[0], tuple(refusal.reason for refusal in refusals)
    if first.halts is not None:
        return Halt(reasons, first.halts)
    if on_deny and not (reasons[0].retryable or reasons[0].code.endswith(".halted")):
        reasons = (replace(reasons[0], text=f"{reasons[0].text.rstrip('.')}. {on_deny}"), *reasons[1:])
    return Deny(reasons)


def _allowed(asked: Asked, would_deny: tuple[Reason, ...]) -> Allow:
    terms = asked.terms
    assert terms.price is not None, "an unpriced call is refused by a rule"
    return Allow(
        amount_micros=asked.amount_micros,
        price=terms.said,
        rate=terms.price.rate,
        charge_on_error=terms.charge_on_error,
        read_only=terms.read_only,
        deadline_s=terms.deadline_s,
        would_deny=would_deny,
    )


def _said(rule: Rule, refusal: Refusal | None, asked: Asked) -> RuleSaid | None:
    price = asked.terms.price
    where = rule.where or ("" if price is None else price.where)
    if (price is None or asked.no_amount is not None) and isinstance(rule, _OF_AMOUNTS):
        what = "price" if price is None else "amount"
        return RuleSaid(rule.name, where, "silent", f"there is no {what} to measure")
    if refusal is None:
        text = rule.fine(asked)
        return RuleSaid(rule.name, where, "allow", text) if text else None
    spoke = "would_deny" if rule.audit else "deny" if refusal.halts is None else "halt"
    return RuleSaid(rule.name, where, spoke, refusal.reason.text)
