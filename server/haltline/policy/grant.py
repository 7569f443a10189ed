"""All rules that one kind of principal meets, in the order they are asked, compiled once and kept by the policy.

The order is the order of refusals: who is stopped, whether the policy knows them, which tools, when, with which
arguments, at what price, within which caps. Within a stage every rule is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from haltline.policy.budget import Calls, Concurrent, PerCall, Priced, PriceMaximum, Rate, SingleCharge, Spending
from haltline.policy.caps import effective
from haltline.policy.model import CapKind
from haltline.policy.patterns import any_of
from haltline.policy.rules import Arguments, Halted, InputSchema, Open, Reaches, Tools, Unknown
from haltline.policy.tiers import OPEN_SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haltline.policy.caps import CapLimit
    from haltline.policy.model import Caps, Principal
    from haltline.policy.rules import Rule
    from haltline.policy.schemas import InputSchemas
    from haltline.policy.tiers import Scope, Tier

__all__ = ["Grant", "Rulebook"]

Stages = tuple[tuple["Rule", ...], ...]
_HALTS = (Halted("everything"), Halted("agent"), Halted("session"))


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """What holds for one principal: the stages, the tool rules among them, the caps in force. Each is its own key."""

    stages: Stages
    tools: tuple[Tools, ...]
    known: bool
    limits: tuple[CapLimit, ...]
    rate_windows_s: tuple[int, ...]
    on_deny: str

    def following(self) -> Grant:
        """What is asked of a request about an earlier call: who, which tools, when, how often; not what, nor what it costs."""
        stages = (tuple(rule for rule in stage if isinstance(rule, _OF_EVERY_REQUEST)) for stage in self.stages)
        return replace(self, stages=tuple(stage for stage in stages if stage))

    def of(self, tool: str) -> Grant:
        """What of this can refuse a call of one tool: without what its name alone answers. For decisions, not to explain."""
        stages = (tuple(rule for rule in stage if not _silent(rule, tool)) for stage in self.stages)
        return replace(self, stages=tuple(stage for stage in stages if stage))


def _silent(rule: Rule, tool: str) -> bool:
    """Whether the tool's name says already that this rule lets every call of it pass."""
    if isinstance(rule, Tools):
        return rule.allows(tool)
    return isinstance(rule, Arguments) and not rule.rule.applies(tool)


_OF_EVERY_REQUEST = (Halted, Unknown, Tools, Open, Rate, Concurrent)


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The compiled tiers and scopes of a policy."""

    tiers: Mapping[str, Tier]
    scopes: Mapping[str, Scope]
    schemas: InputSchemas
    currency: str
    audit: bool

    def grant(self, who: Principal) -> Grant:
        tier = self.tiers.get(who.tier)
        if tier is None:
            unknown = Unknown("tier", who.tier)
            return Grant((_HALTS, (unknown,)), (), known=False, limits=(), rate_windows_s=(), on_deny="")
        names = tuple(dict.fromkeys((*tier.scopes, *who.scopes)))
        scopes = [self.scopes[name] for name in names if name in self.scopes]
        unknown_scopes = tuple(Unknown("scope", name) for name in names if name not in self.scopes)
        limits = effective(_caps(tier, who))
        tools = _tools(tier, scopes, who)
        stages: Stages = (
            _HALTS,
            unknown_scopes,
            tools,
            _hours(tier, scopes, who),
            (Reaches(),),
            (InputSchema(self.schemas, self.audit),),
            tuple(Arguments(scope.name, rule, rule.audit) for scope in scopes for rule in scope.rules),
            *_money(tier, limits, self.currency),
        )
        return Grant(
            stages=tuple(stage for stage in stages if stage),
            tools=tools,
            known=not unknown_scopes,
            limits=limits,
            rate_windows_s=tuple(cap.window_s for cap in limits if cap.window_s is not None),
            on_deny=tier.on_deny,
        )


def _caps(tier: Tier, who: Principal) -> tuple[tuple[Caps, Mapping[str, str] | str], ...]:
    """The caps of each level. Of a child, a task's cap and number of calls are its root's: it has only its own slice."""

    def shared(caps: Caps) -> Caps:
        return replace(caps, task_micros=None, calls=None) if who.above else caps

    of_agent = (shared(who.agent_caps), "agent")
    return (shared(tier.caps), tier.cap_places), of_agent, (who.session_caps, "session")


def _tools(tier: Tier, scopes: list[Scope], who: Principal) -> tuple[Tools, ...]:
    rules = [Tools(f"tier {tier.name}", tier.where, tier.audit, _of_tier(tier))]
    rules += [
        Tools(f"scope {scope.name}", scope.where, scope.audit, any_of(scope.tools))
        for scope in scopes
        if scope.tools is not None
    ]
    if who.tools is not None:
        # What a person narrowed a session to is no rule of the policy, so no mode loosens it.
        rules.append(Tools("this session", "session", audit=False, allows=any_of(who.tools)))
    return tuple(rules)


def _of_tier(tier: Tier) -> Callable[[str], bool]:
    """Sessions for sub-agents are granted by their own key alone, and by no pattern."""
    named = any_of(tier.tools)
    return lambda tool: tier.children is not None if tool == OPEN_SESSION else named(tool)


def _hours(tier: Tier, scopes: list[Scope], who: Principal) -> tuple[Open, ...]:
    rules = [] if tier.hours is None else [Open(f"tier {tier.name}", tier.where, tier.audit, tier.hours)]
    rules += [
        Open(f"scope {scope.name}", scope.where, scope.audit, scope.hours)
        for scope in scopes
        if scope.hours is not None
    ]
    if who.hours is not None:
        rules.append(Open(f"agent {who.agent}", "agent", audit=False, hours=who.hours))
    return tuple(rules)


def _money(tier: Tier, limits: tuple[CapLimit, ...], currency: str) -> Stages:
    trigger = tier.single_charge_micros
    single = () if trigger is None else (SingleCharge(trigger, tier.single_charge_where, currency),)
    per_call: list[Rule] = [PerCall(cap, currency) for cap in limits if cap.kind is CapKind.PER_CALL]
    per_call.append(PriceMaximum(currency))
    halting: list[Rule] = [
        Spending(cap, currency) for cap in limits if cap.kind in {CapKind.TASK, CapKind.HOUR, CapKind.DAY}
    ]
    halting += [Calls(cap) for cap in limits if cap.kind is CapKind.CALLS]
    retryable: list[Rule] = [Rate(cap) for cap in limits if cap.kind is CapKind.RATE]
    retryable += [Concurrent(cap) for cap in limits if cap.kind is CapKind.CONCURRENT]
    return (Priced(),), single, tuple(per_call), tuple(halting), tuple(retryable)
