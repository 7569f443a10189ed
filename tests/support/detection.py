"""Traces told to the signals and rules of a policy, without store or clock: which rule fires, when, and what was spent then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from haltline.policy.model import CapKind, Principal
from haltline.policy.policy import Policy
from haltline.policy.watch import CapUse, Moment, TaskUse
from haltline.rules.asking import Fired, asked
from haltline.signals.facts import Fact
from haltline.signals.state import AgentSignals
from support.traces import Call

__all__ = ["Outcome", "play"]


@dataclass
class Outcome:
    alarms: list[tuple[str, Call]] = field(default_factory=list)
    halts: list[tuple[str, Call]] = field(default_factory=list)
    first: tuple[str, int, int] | None = None
    """What noticed the failure first: (rule, after how many of its calls, and how much money)."""
    stopped: tuple[str, int, int] | None = None


def _day_cap(policy: Policy, tier: str, state: AgentSignals, call: Call) -> tuple[CapUse, ...]:
    """The cap of the day alone: how a trace parts its calls into sessions says nothing of what tasks are given."""
    limits = policy.limits(Principal("agent", "agent", tier, call.session, "a trace"))
    used = state.day_spent(*policy.day_bounds(call.at_us))
    return tuple(CapUse("day", "", cap.limit, used) for cap in limits if cap.kind is CapKind.DAY)


def play(
    policy: Policy, tier: str, calls: Iterable[Call], *, until_halt: bool = True, beside_at_once: bool = False
) -> Outcome:
    """A halt in normal life is resumed at once, as a person would; one in a failure ends it.

    `beside_at_once`: as it would be if an hour of use made the hour beside it usual at once, and not a day later.
    """
    state, outcome, seq = AgentSignals(), Outcome(), 0
    rules = policy.watch(tier, "agent")
    bad, spent = 0, 0
    made: dict[str, int] = {}

    def tell(at_us: int, kind: str, call: Call, **body: object) -> None:
        nonlocal seq
        seq += 1
        upstream = call.tool.partition("__")[0]
        named = {"session": call.session, "tool": call.tool, "upstream": upstream}
        state.fold(Fact.of(seq, at_us, kind, named, body), "UTC")
        if beside_at_once and kind == "call.allowed":
            state.week = [min(first, 1) for first in state.week]

    def note(fired: Fired, call: Call) -> None:
        name = fired.rule.of.name
        tell(call.at_us, "rule.fired", call, rule=name, cause=fired.finding.cause)
        outcome.alarms.append((name, call))
        if call.bad and outcome.first is None:
            outcome.first = (name, bad, spent)
        if fired.halts:
            outcome.halts.append((name, call))
            if call.bad and outcome.stopped is None:
                outcome.stopped = (name, bad, spent)
            tell(call.at_us, "agent.resumed", call)

    for call in calls:
        bad += call.bad
        now = Moment(
            state, call.at_us, policy.currency, "UTC", policy.day_bounds, call.tool,
            call.tool.partition("__")[0], call.destination, call.same, call.amount,
            caps=_day_cap(policy, tier, state, call),
            tasks=(TaskUse(call.session, made.get(call.session, 0), None),),
            silent=(("call", call.tool, call.silent_us),) if call.silent_us else (),
        )  # fmt: skip
        found = [fired for rule in rules if rule.counting for fired in asked(rule, now)]
        for fired in found:
            note(fired, call)
        if any(fired.halts for fired in found):
            if call.bad and until_halt:
                return outcome
            continue
        spent += call.amount if call.bad else 0
        made[call.session] = made.get(call.session, 0) + 1
        tell(call.at_us, "call.allowed", call, amount_micros=call.amount, same=call.same, destination=call.destination)
        end = "call.failed" if call.failed else "call.succeeded"
        tell(call.at_us, end, call, amount_micros=call.amount, charged_micros=call.amount, duration_us=0)
        for rule in rules:
            for late in asked(rule, now) if not rule.counting else ():
                note(late, call)
    return outcome
