"""The policy in force: immutable, compiled once from the files of a folder, asked for every call.

Owns what the rest of the broker may ask of a policy. Decides without I/O: facts and `now` come in. Only `load_policy`
reads files; keeping an old policy when a new one is broken is `policy_source`'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import orjson

from haltline.policy.caps import CapLimit
from haltline.policy.decide import Explained, RuleSaid, decide, explain
from haltline.policy.drill import DRILL, DRILL_TIER
from haltline.policy.folder import read_folder
from haltline.policy.grant import Rulebook
from haltline.policy.hours import day_bounds
from haltline.policy.prices import Fixed, Price
from haltline.policy.routes import compile_routes
from haltline.policy.rules import Asked
from haltline.policy.schemas import InputSchemas
from haltline.policy.terms import Terms, TermsTable, ToolDeclared, ToolDefaults
from haltline.policy.tiers import Tier, compile_scope, compile_tier
from haltline.policy.watch_entry import compile_watch
from haltline.policy.watch_ways import Silence, TaskSilence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from haltline.policy.folder import Merged
    from haltline.policy.grant import Grant
    from haltline.policy.model import Decision, Facts, Principal, ToolCall
    from haltline.policy.watch import WatchRule

__all__ = [
    "CapLimit",
    "Explained",
    "Policy",
    "Price",
    "RuleSaid",
    "Tier",
    "ToolDeclared",
    "ToolDefaults",
    "load_policy",
]

_FREE = Price(Fixed(0), "rule R25", "prompts and resources")
"""The price of what needs no price entry."""

_DOUBT_CHARGES_AFTER_S = 86_400.0
_MOST_REMEMBERED = 4096
_NO_DEFAULTS: Mapping[str, ToolDefaults] = MappingProxyType({})


class Policy:
    """Every answer is a function of the files it was made from and of what is passed in; what it remembers is only speed."""

    def __init__(self, merged: Merged, defaults: Mapping[str, ToolDefaults] = _NO_DEFAULTS) -> None:
        """Raises ConfigError for a default price that is no amount."""
        content = merged.content
        self.version = _version(merged, defaults)
        self.currency = content.currency or "USD"
        self.time_zone = content.time_zone or "UTC"
        self.mode: Literal["enforce", "audit"] = content.mode or "enforce"
        self.doubt_charges_after_s = content.defaults.doubt_charges_after or _DOUBT_CHARGES_AFTER_S
        declared = [key for entry in content.tools.values() for key in entry.redact]
        self.redact_keys = tuple(dict.fromkeys((*content.redact, *declared)))
        audited = self.mode == "audit"
        self.alerts = compile_routes(merged)
        self._terms = TermsTable(merged, defaults)
        self._rulebook = Rulebook(
            tiers={**{name: compile_tier(merged, name) for name in content.tiers}, DRILL: DRILL_TIER},
            scopes={name: compile_scope(merged, name) for name in content.scopes},
            schemas=InputSchemas(),
            currency=self.currency,
            audit=audited,
        )
        self._grants: dict[tuple[object, ...], Grant] = {}
        self._granted: dict[int, tuple[Principal, Grant]] = {}
        """By the object, which stays the same for as long as a session is asked for."""
        self._of_tools: dict[tuple[Grant, str, bool], Grant] = {}
        self._watch = [
            (entry, compile_watch(name, merged.where("rules", name), entry, audit=audited, time_zone=self.time_zone))
            for name, entry in content.rules.items()
        ]
        self.shortest_silence_s = self._shortest(Silence)
        self.shortest_task_silence_s = self._shortest(TaskSilence)
        self._days: tuple[tuple[int, int], ...] = ()
        self._watched: dict[tuple[str, str], tuple[WatchRule, ...]] = {}
        self._counting: dict[tuple[str, str, str], tuple[WatchRule, ...]] = {}

    def _shortest(self, kind: type[Silence | TaskSilence]) -> float | None:
        return min((rule.for_s for _, rule in self._watch if isinstance(rule, kind)), default=None)

    @property
    def tier_names(self) -> tuple[str, ...]:
        return tuple(name for name in self._rulebook.tiers if name != DRILL)

    @property
    def scope_names(self) -> tuple[str, ...]:
        return tuple(self._rulebook.scopes)

    def decide(self, call: ToolCall, who: Principal, facts: Facts, now_us: int) -> Decision:
        """Whether this call may go, and what it holds. An exception must end in a Deny `policy.error` at the caller."""
        return decide(self._met(self._grant(who), call), self._asked(call, who, facts, now_us))

    def explain(self, call: ToolCall, who: Principal, facts: Facts, now_us: int) -> Explained:
        """The same decision with what every rule said. Nothing is held, nothing stops."""
        return explain(self._grant(who), self._asked(call, who, facts, now_us))

    def _asked(self, call: ToolCall, who: Principal, facts: Facts, now_us: int) -> Asked:
        terms = self._terms_of(call, who)
        amount = terms.amount(call.arguments)
        if isinstance(amount, int):
            return Asked(call, who, facts, now_us, terms, amount)
        return Asked(call, who, facts, now_us, terms, no_amount=amount)

    def _terms_of(self, call: ToolCall, who: Principal) -> Terms:
        terms = self.terms_for(who, call.tool, call.upstream)
        free = call.follows or (call.free and terms.price is None)
        return replace(terms, price=_FREE, said=_FREE.said) if free else terms

    def grants(self, who: Principal, tool: str, upstream: str) -> bool:
        """Whether `tools/list` shows this tool: exactly where a call of it would not be refused as `scope.tool`."""
        del upstream  # tools are granted by the name that agents see
        return tool in self.granted(who, (tool,))

    def granted(self, who: Principal, tools: Iterable[str]) -> frozenset[str]:
        """Those of many tools that `grants` says yes to."""
        grants = [self._grant(one) for one in (who, *who.above)]
        if not all(grant.known for grant in grants):
            return frozenset()
        for grant in grants:
            for rule in reversed(grant.tools):  # a session's own comes last and leaves the fewest to ask others about
                tools = tools if rule.audit else filter(rule.allows, tools)
        return frozenset(tools)

    def limits(self, who: Principal) -> tuple[CapLimit, ...]:
        """The caps in force: the strictest of tier, agent and session. Allowances are facts, not caps, and not in here."""
        return self._grant(who).limits

    def rate_windows_s(self, who: Principal) -> tuple[int, ...]:
        """The windows for which a decision reads `Facts.rate_counts`."""
        return self._grant(who).rate_windows_s

    def price(self, tool: str, upstream: str) -> Price | None:
        """For whoever has no price of their own. None: unpriced, so every call is refused (R6)."""
        return self._terms.of(tool, upstream).price

    def reaches(self, tool: str, upstream: str) -> str | None:
        """How it is read whom a call of this tool reaches, as it was written."""
        return self._terms.of(tool, upstream).reaches

    def terms_for(self, who: Principal, tool: str, upstream: str) -> Terms:
        """What holds for calls of this tool by this caller."""
        return self._terms.of(tool, upstream, who.agent, who.tier)

    def priced_alone(self, agent: str) -> bool:
        """Whether some tool has a price for this agent alone."""
        return agent in self._terms.agents

    def watch(self, tier: str, agent: str) -> tuple[WatchRule, ...]:
        """The rules over the ways of this agent, those for each call first."""
        known = self._watched.get((tier, agent))
        if known is None:
            if len(self._watched) >= _MOST_REMEMBERED:
                self._watched.clear()
            mine = (
                rule
                for entry, rule in self._watch
                if (entry.tiers is None or tier in entry.tiers) and (entry.agents is None or agent in entry.agents)
            )
            known = self._watched[tier, agent] = tuple(sorted(mine, key=lambda rule: not rule.counting))
        return known

    def counting(self, tier: str, agent: str, tool: str) -> tuple[WatchRule, ...]:
        """Those of them that are asked about each call of this tool."""
        known = self._counting.get((tier, agent, tool))
        if known is None:
            if len(self._counting) >= _MOST_REMEMBERED:
                self._counting.clear()
            mine = (rule for rule in self.watch(tier, agent) if rule.counting and rule.of.applies(tool))
            known = self._counting[tier, agent, tool] = tuple(mine)
        return known

    def day_bounds(self, now_us: int) -> tuple[int, int]:
        """The calendar day in the policy's zone (R2): `start <= now_us < end`, in microseconds."""
        for known in self._days:
            if known[0] <= now_us < known[1]:
                return known
        found = day_bounds(now_us, self.time_zone)
        self._days = (found, *self._days[:1])  # rules ask for today and the day before
        return found

    def tier(self, name: str) -> Tier | None:
        return self._rulebook.tiers.get(name)

    def _grant(self, who: Principal) -> Grant:
        found = self._granted.get(id(who))
        if found is None or found[0] is not who:
            if len(self._granted) >= _MOST_REMEMBERED:
                self._granted.clear()
            found = self._granted[id(who)] = (who, self._grant_like(who))
        return found[1]

    def _grant_like(self, who: Principal) -> Grant:
        key = (
            who.tier,
            who.scopes,
            who.tools,
            who.hours,
            who.agent_caps,
            who.session_caps,
            who.agent if who.hours else "",
            bool(who.above),
        )
        known = self._grants.get(key)
        if known is None:
            if len(self._grants) >= _MOST_REMEMBERED:
                self._grants.clear()
            known = self._grants[key] = self._rulebook.grant(who)
        return known

    def _met(self, grant: Grant, call: ToolCall) -> Grant:
        """The rules that such a call meets."""
        key = (grant, call.tool, call.follows)
        known = self._of_tools.get(key)
        if known is None:
            if len(self._of_tools) >= _MOST_REMEMBERED:
                self._of_tools.clear()
            known = self._of_tools[key] = (grant.following() if call.follows else grant).of(call.tool)
        return known


def load_policy(
    folder: Path, defaults: Mapping[str, ToolDefaults] = _NO_DEFAULTS, channels: Collection[str] | None = None
) -> Policy:
    """The policy of a folder. Raises ConfigError with every problem: file, line, key and what to do.

    `channels`: the alert channels that routes may name; not looked at where None.
    """
    return Policy(read_folder(folder, channels), defaults)


def _version(merged: Merged, defaults: Mapping[str, ToolDefaults]) -> str:
    """`p_` and a digest of the files, the same for files that say the same, whatever their names, order and comments.

    Where something else says what tools cost by default, `+` and a digest of that: decisions depend on both.
    """
    files: dict[str, object] = {"policy": merged.content.model_dump(mode="json", by_alias=True)}
    if merged.content.alerts.routes:
        files["routes"] = list(merged.content.alerts.routes)  # their order says something
    version = f"p_{_digest(files)[:12]}"
    said = {name: _said_of(default) for name, default in defaults.items()}
    return f"{version}+{_digest(said)[:6]}" if said else version


def _digest(said: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _said_of(default: ToolDefaults) -> dict[str, object]:
    """Without the lines at which code says it, which move."""
    said = asdict(default)
    declared = {name: {**one, "where": ""} for name, one in said.pop("declared").items()}
    return {**said, "declared": declared} if declared else said
