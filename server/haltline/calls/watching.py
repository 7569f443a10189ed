"""Rules over an agent's ways on the path of a call: asked before it goes, in the deciding transaction (R27), and what follows.

A rule that fires commits `rule.fired` with what it read; one that halts stops the very call that it was asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import structlog

from haltline.alarm import alarm
from haltline.audit import Event, Kind
from haltline.lineage import family
from haltline.policy.drill import DRILL
from haltline.policy.model import Allow, Halt, Reason
from haltline.policy.watch import CallsPerTask, Finding, Moment, SingleCharge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.calls.call import CallRequest
    from haltline.parts import Parts
    from haltline.policy.model import Decision, Principal
    from haltline.policy.policy import Policy
    from haltline.policy.watch import WatchRule
    from haltline.store.writer import Tx

__all__ = ["Fired", "asked", "cancel", "fire", "halt_of", "marks", "moment", "watched"]

log = structlog.get_logger(__name__)
OPENAPI_DESTINATION = "io.haltline/destination"


class Fired(NamedTuple):
    """A rule that has something to say now, and whether it says it aloud or only to the log."""

    rule: WatchRule
    finding: Finding
    halts: bool
    tells: bool


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
    tx: Tx,
    parts: Parts,
    policy: Policy,
    who: Principal,
    request: CallRequest,
    decision: Decision,
    said: Mapping[str, str],
) -> Decision:
    """The decision after the rules for each call; what fired is recorded, and told unless a halt will tell it."""
    tool = request.target
    rules = () if tool is None or not said else policy.counting(who.tier, who.agent, tool.name)
    if not rules:
        return decision
    amount = decision.amount_micros if isinstance(decision, Allow) else decision.reasons[0].facts.get("amount_micros")
    if not isinstance(amount, int):
        return decision
    now = about_call(moment(tx, parts, policy, who), who, request, said, amount)
    halt: Halt | None = None
    for rule in rules:
        if not isinstance(decision, Allow) and not isinstance(rule, SingleCharge):
            continue  # a single charge looks at what was attempted, whatever else refuses it (R4)
        fired = asked(rule, now)
        if fired is None:
            continue
        fire(tx, parts, policy, who, fired, told=not (fired.halts and halt is None))
        if fired.halts and halt is None:
            halt = halt_of(fired)
            if rule.of.cancels:
                cancel(tx, parts, who, halt)
    return halt or decision


def moment(tx: Tx, parts: Parts, policy: Policy, who: Principal) -> Moment:
    """The state of things now, without a call."""
    return Moment(
        parts.signals.agent(tx, who.agent_id), tx.now_us, policy.currency, policy.time_zone, policy.day_bounds
    )


def about_call(now: Moment, who: Principal, request: CallRequest, said: Mapping[str, str], amount: int) -> Moment:
    upstream = "" if request.target is None else request.target.upstream
    return now._replace(
        session=who.session_id,
        tool=request.tool,
        upstream=upstream,
        destination=said.get("destination", ""),
        same=said["same"],
        amount=amount,
    )


def asked(rule: WatchRule, now: Moment) -> Fired | None:
    """What a rule finds, unless it keeps quiet: it learns, or it told of the same cause lately."""
    of = rule.of
    try:
        finding = rule.ask(now)
    except Exception as error:  # the boundary: a rule that breaks has failed, and a halting one halts (R28)
        log.error("rule_failed", rule=of.name, exc_info=error)
        finding = Finding("error", "a rule that can be evaluated", f"it failed with {type(error).__name__}", {})
    if finding is None or (finding.learning and not of.tells_while_learning):
        return None
    if finding.learning or of.audit:
        finding = finding._replace(cause=f"{'audit' if of.audit else 'learning'}:{finding.cause}")
    last_us = now.history.fired_us(of.name, finding.cause)
    if last_us is not None and now.now_us - last_us < int(of.quiet_s * 1_000_000):
        return None
    return Fired(rule, finding, halts=of.do == "halt" and not finding.learning and not of.audit, tells=not of.audit)


def fire(tx: Tx, parts: Parts, policy: Policy, who: Principal, fired: Fired, *, told: bool) -> int:
    """Commit `rule.fired` with the facts and the now that it read (R27), and its alert where `told`."""
    of, finding = fired.rule.of, fired.finding
    reason = reason_of(fired)
    body: dict[str, Any] = {
        "rule": of.name,
        "cause": finding.cause,
        "where": of.where,
        "threshold": finding.threshold,
        "observed": finding.observed,
        "now_us": tx.now_us,
        "facts": finding.numbers,
        "does": "halt" if fired.halts else "alert" if fired.tells else "audit",
    }
    event = Event(
        Kind.RULE_FIRED,
        "broker",
        agent=who.agent,
        agent_id=who.agent_id,
        session=who.session_id or None,
        policy=policy.version,
        body=body,
    )
    seq = parts.audit.append(tx, event)
    if told and fired.tells:
        alarm(
            tx,
            parts,
            kind=Kind.RULE_FIRED.value,
            reason=reason,
            by=f"rule {of.name}",
            event_seq=seq,
            who=who,
            severity=of.severity,
            rule=f"{of.name} ({finding.cause})" if finding.cause else of.name,
            threshold=finding.threshold,
            observed=finding.observed,
            quiet_s=of.quiet_s,
        )
    return seq


def reason_of(fired: Fired) -> Reason:
    of, finding = fired.rule.of, fired.finding
    facts: dict[str, int | str | None] = {
        "rule": of.name,
        "threshold": finding.threshold,
        "observed": finding.observed,
    }
    return Reason(f"rule.{of.name}", f"{finding.threshold}: {finding.observed}", facts)


def halt_of(fired: Fired) -> Halt:
    scope: Literal["session", "agent"] = "session" if isinstance(fired.rule, CallsPerTask) else "agent"
    return Halt((reason_of(fired),), scope)


def cancel(tx: Tx, parts: Parts, who: Principal, halt: Halt) -> None:
    """The rule says that its halt cancels what runs, too (R18)."""
    reason = halt.reasons[0]
    sessions = family(tx, who.session_id) if halt.scope == "session" else ()  # those below it stop with it (R20)
    agent_id = who.agent_id if halt.scope == "agent" else None

    def stop() -> None:
        parts.calls.stop(session_ids=sessions, agent_id=agent_id, reason=reason)

    tx.after_commit(stop)
