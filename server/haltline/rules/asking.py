"""Asking one rule about one moment: what it may read, what it finds, and what it keeps quiet about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from haltline.policy.model import CapKind
from haltline.policy.watch import CapUse, Finding, Moment, TaskUse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from haltline.parts import Parts
    from haltline.policy.model import Facts, Principal
    from haltline.policy.policy import Policy
    from haltline.policy.watch import WatchRule
    from haltline.store.writer import Tx

__all__ = ["Fired", "asked", "caps_of", "moment", "task_of"]

log = structlog.get_logger(__name__)
_OF_AGENTS = frozenset({CapKind.HOUR, CapKind.DAY})


class Fired(NamedTuple):
    """A rule that has something to say now, and whether it says it aloud or only to the log."""

    rule: WatchRule
    finding: Finding
    halts: bool
    tells: bool


def moment(tx: Tx, parts: Parts, policy: Policy, who: Principal) -> Moment:
    """The state of things now, without a call."""
    return Moment(
        parts.signals.agent(tx, who.agent_id), tx.now_us, policy.currency, policy.time_zone, policy.day_bounds
    )


def task_of(policy: Policy, who: Principal, facts: Facts) -> TaskUse:
    """How many calls a session and those below it made, and how many its grant gives it."""
    limit = next((cap.limit for cap in policy.limits(who) if cap.kind is CapKind.CALLS), None)
    added = facts.allowances.get(CapKind.CALLS, 0)
    return TaskUse(who.session_id, facts.calls_settled + facts.calls_open, None if limit is None else limit + added)


def caps_of(policy: Policy, owner: Principal, facts: Facts, who: Principal) -> Iterator[CapUse]:
    """The caps that fill up: of the session, and once of the agent."""
    for cap in policy.limits(owner):
        limit = cap.limit + facts.allowances.get(cap.kind, 0)
        if cap.kind is CapKind.CALLS:
            yield CapUse("calls", owner.session_id, limit, facts.calls_settled + facts.calls_open)
        elif cap.kind is CapKind.TASK:
            yield CapUse("task", owner.session_id, limit, facts.task.settled_micros + facts.task.held_micros)
        elif owner is who and cap.kind in _OF_AGENTS:
            usage = facts.hour if cap.kind is CapKind.HOUR else facts.day
            yield CapUse(cap.kind.value, "", limit, usage.settled_micros + usage.held_micros)


def asked(rule: WatchRule, now: Moment) -> list[Fired]:
    """What a rule finds, without that which it keeps quiet about."""
    finding = _found(rule, now)
    if finding is None:
        return []
    several: tuple[Any, ...] = getattr(now, rule.each) if rule.each else ()
    if len(several) > 1:  # each is an episode of its own
        only: Callable[..., Moment] = now._replace
        findings = [_found(rule, only(**{rule.each: (one,)})) for one in several]
    else:
        findings = [finding]
    told = (_aloud(rule, now, one) for one in findings if one is not None)
    return [fired for fired in told if fired is not None]


def _found(rule: WatchRule, now: Moment) -> Finding | None:
    try:
        return rule.ask(now)
    except Exception as error:  # the boundary: a rule that breaks has failed, and a halting one halts (R28)
        log.error("rule_failed", rule=rule.of.name, exc_info=error)
        return Finding("error", "a rule that can be evaluated", f"it failed with {type(error).__name__}", {})


def _aloud(rule: WatchRule, now: Moment, finding: Finding) -> Fired | None:
    """None where it keeps quiet: it learns, or it told of the same cause lately."""
    of = rule.of
    if finding.learning and not of.tells_while_learning:
        return None
    if finding.learning or of.audit:
        finding = finding._replace(cause=f"{'audit' if of.audit else 'learning'}:{finding.cause}")
    last_us = now.history.fired_us(of.name, finding.cause)
    if last_us is not None and now.now_us - last_us < int(of.quiet_s * 1_000_000):
        return None
    return Fired(rule, finding, halts=of.do == "halt" and not finding.learning and not of.audit, tells=not of.audit)
