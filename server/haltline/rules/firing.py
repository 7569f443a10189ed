"""What follows when a rule fires, and when a cap or a rule halts: the event, its alert, the halt, what it cancels.

Inside the transaction that asked, so that no call is sent after it. Decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.alarm import alarm
from haltline.audit import Event, Kind
from haltline.lineage import family
from haltline.policy.model import Halt, Reason

if TYPE_CHECKING:
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.rules.asking import Fired
    from haltline.store.writer import Tx

__all__ = ["cancel", "fire", "halt_of", "halted", "owner_of"]


def owner_of(fired: Fired, who: Principal) -> Principal:
    """Whom it is about: the caller, or a session above it, which is halted with all below it (R20)."""
    return next((one for one in who.above if one.session_id == fired.finding.session), who)


def fire(
    tx: Tx, parts: Parts, policy: Policy, who: Principal, fired: Fired, *, told: bool, call: str | None = None
) -> int:
    """Commit `rule.fired` with the facts and the now that it read (R27), and its alert where `told`."""
    tx.will_ask()
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
        call=call,
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


def halt_of(fired: Fired) -> Halt:
    return Halt((reason_of(fired),), "session" if fired.finding.session else "agent")


def reason_of(fired: Fired) -> Reason:
    of, finding = fired.rule.of, fired.finding
    facts: dict[str, int | str | None] = {
        "rule": of.name,
        "threshold": finding.threshold,
        "observed": finding.observed,
    }
    return Reason(f"rule.{of.name}", f"{finding.threshold}: {finding.observed}", facts)


def halted(
    tx: Tx,
    parts: Parts,
    who: Principal,
    decision: Halt,
    policy: str | None,
    *,
    call: str | None = None,
    tool: str | None = None,
) -> None:
    """The halt by a cap or a rule, and its alert; where it is halted already the first cause stays."""
    reason = decision.reasons[0]
    cap = reason.facts.get("cap")
    subject = who.session_id if decision.scope == "session" else who.agent_id
    rule = reason.facts.get("rule")
    by = f"cap {cap}" if cap else f"rule {rule}" if rule else "policy"
    named = None if cap is None else str(cap)
    if not parts.halts.set(tx, decision.scope, subject, code=reason.code, text=reason.text, by=by, cap=named):
        return
    if rule is not None:
        _hold_back(tx, parts, who, decision)
    kind = Kind.SESSION_HALTED if decision.scope == "session" else Kind.AGENT_HALTED
    body: dict[str, Any] = {"by": by, "reasons": [one.stored() for one in decision.reasons]}
    if call is not None:
        body["call"] = call
    seq = parts.audit.append(
        tx,
        Event(
            kind,
            by,
            agent=who.agent,
            agent_id=who.agent_id,
            session=who.session_id or None,
            call=call,
            tool=tool,
            policy=policy,
            body=body,
        ),
    )
    threshold, observed = (reason.facts.get(name) for name in ("threshold", "observed"))
    alarm(
        tx,
        parts,
        kind=kind.value,
        reason=reason,
        by=by,
        event_seq=seq,
        who=who,
        rule=None if rule is None else str(rule),
        threshold=None if threshold is None else str(threshold),
        observed=None if observed is None else str(observed),
    )


def _hold_back(tx: Tx, parts: Parts, who: Principal, halt: Halt) -> None:
    """After a rule fired nothing more is dispatched: calls that were admitted before and wait to be sent are not (R27)."""
    sessions = family(tx, who.session_id) if halt.scope == "session" else ()
    agent_id = who.agent_id if halt.scope == "agent" else None

    def hold_back() -> None:
        parts.calls.hold_back(reason=halt.reasons[0], session_ids=sessions, agent_id=agent_id)

    tx.after_commit(hold_back)


def cancel(tx: Tx, parts: Parts, who: Principal, halt: Halt) -> None:
    """The rule says that its halt cancels what runs, too (R18)."""
    reason = halt.reasons[0]
    sessions = family(tx, who.session_id) if halt.scope == "session" else ()  # those below it stop with it (R20)
    agent_id = who.agent_id if halt.scope == "agent" else None

    def stop() -> None:
        parts.calls.stop(session_ids=sessions, agent_id=agent_id, reason=reason)

    tx.after_commit(stop)
