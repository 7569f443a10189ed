"""Tests of a policy, written beside it in YAML: given this history and this call, expect this answer and these rules.

Asks the same decision and rules as the broker, over the same signals; knows no store, no clock and no upstream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from haltline.errors import ConfigError
from haltline.facts import as_recorded
from haltline.policy.caps import parse_caps
from haltline.policy.complaints import problems_of
from haltline.policy.decide import for_child
from haltline.policy.durations import parse_duration
from haltline.policy.model import NO_CAPS, Allow, Caps, Deny, Facts, Principal, ToolCall, Usage
from haltline.policy.price_entry import Amount
from haltline.policy.watch import Moment
from haltline.policy.watch_money import SingleCharge
from haltline.policy.yaml_text import parse_yaml
from haltline.rules.asking import asked, caps_of, task_of
from haltline.rules.firing import halt_of
from haltline.signals.facts import Fact
from haltline.signals.state import AgentSignals
from haltline.stored_json import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from haltline.policy.model import Decision
    from haltline.policy.policy import Policy

__all__ = ["Verdict", "run_tests"]

_MOST_CALLS = 100_000
_HOUR_US, _SECOND_US = 3_600_000_000, 1_000_000
_MONDAY_NOON = datetime.fromisoformat("2026-01-05T12:00:00+00:00")
Duration = Annotated[float, BeforeValidator(parse_duration)]


def _moment(text: object) -> object:
    return datetime.fromisoformat(text) if isinstance(text, str) else text


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AnyCall(Closed):
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    session: str = "now"


class CallEntry(AnyCall):
    """The call that is asked about."""

    silent: Duration | None = Field(default=None, description="It runs, and has said nothing for so long.")
    bills: Amount | None = Field(
        default=None, description="It goes, and ends costing this: rules are asked again then."
    )


class SessionEntry(Closed):
    """What the test's sessions are, where that matters."""

    parent: str | None = Field(default=None, description="The session that opened it for a sub-agent.")
    caps: Annotated[Caps | None, BeforeValidator(lambda caps: parse_caps(caps) if isinstance(caps, dict) else caps)] = (
        Field(default=None, description="What its grant narrows: {task: '0.50', calls: 20}.")
    )
    silent: Duration | None = Field(default=None, description="Nothing was heard of it for so long.")


class HistoryEntry(AnyCall):
    """Calls made before: the first `ago`, then one `every` so long."""

    ago: Duration
    every: Duration = 1.0
    times: int = Field(default=1, ge=1, le=_MOST_CALLS)
    ends: Literal["ok", "failed", "held"] = "ok"
    charged: Amount | None = Field(default=None, description="What each cost; its price where left out.")


class TestEntry(Closed):
    agent: str = "agent"
    tier: str
    at: Annotated[AwareDatetime, BeforeValidator(_moment)] = Field(
        default=_MONDAY_NOON, description="When the call is made."
    )
    sessions: dict[str, SessionEntry] = Field(default_factory=dict)
    history: list[HistoryEntry] = Field(default_factory=list)
    call: CallEntry
    expect: str = Field(
        pattern=r"^(allow|(deny|halt) [a-z_]+\.[a-z0-9_-]+)$", description="allow, deny CODE or halt CODE."
    )
    fires: list[str] | None = Field(default=None, description="Exactly the rules that fire, by the call and after it.")


class TestFile(Closed):
    version: Literal["1"] = "1"
    tests: dict[str, TestEntry]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test: `wrong` is empty where it passed."""

    name: str
    where: str
    wrong: str


def run_tests(policy: Policy, folder: Path) -> list[Verdict]:
    """Every test of every `*.yaml` of the folder, in order. Raises ConfigError with file, line and key."""
    return [verdict for file in sorted(folder.glob("*.yaml")) for verdict in _of_file(policy, file)]


def _of_file(policy: Policy, file: Path) -> list[Verdict]:
    document = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    try:
        said = TestFile.model_validate(document.content or {})
    except ValidationError as error:
        raise ConfigError(problems_of(error, document, TestFile)) from error
    return [
        Verdict(name, f"{file.name}:{document.line(('tests', name))}", _Rehearsal(policy, one).wrong())
        for name, one in said.tests.items()
    ]


class _Rehearsal:
    def __init__(self, policy: Policy, test: TestEntry) -> None:
        self._policy, self._test = policy, test
        self._now_us = int(test.at.timestamp() * 1_000_000)
        self._state = AgentSignals()
        self._calls: list[tuple[int, str, int, bool]] = []
        """(admitted, session, money, whether it runs)"""

    def wrong(self) -> str:
        self._remember()
        decision, fired = self._asked()
        answer = _answer(decision)
        if answer != self._test.expect:
            return f"expected {self._test.expect}, got {answer}"
        wanted = self._test.fires
        if wanted is not None and sorted(fired) != sorted(wanted):
            return f"expected {', '.join(wanted) or 'no rule'} to fire, got {', '.join(fired) or 'none'}"
        return ""

    def _remember(self) -> None:
        made = [
            (self._now_us - int(one.ago * _SECOND_US) + int(number * one.every * _SECOND_US), one)
            for one in self._test.history
            for number in range(one.times)
        ]
        for at_us, one in sorted((pair for pair in made if pair[0] <= self._now_us), key=lambda pair: pair[0]):
            amount = self._amount(one) if one.charged is None else one.charged
            self._admit(at_us, one, amount, held=one.ends == "held")
            if one.ends != "held":
                kind = "call.failed" if one.ends == "failed" else "call.succeeded"
                self._tell(at_us, kind, one, amount_micros=amount, charged_micros=amount, duration_us=0)

    def _admit(self, at_us: int, call: AnyCall, amount: int, *, held: bool) -> None:
        who, (same, destination) = self._who(call.session), self._marks(call)
        above = {one.session_id: as_recorded(self._facts(one, at_us)) for one in who.above}
        said = {"facts": as_recorded(self._facts(who, at_us)), "above": above}
        self._calls.append((at_us, call.session, amount, held))
        self._tell(at_us, "call.allowed", call, amount_micros=amount, same=same, destination=destination, **said)

    def _tell(self, at_us: int, kind: str, call: AnyCall, **body: Any) -> None:
        named = {"session": call.session, "tool": call.tool, "upstream": _upstream(call)}
        self._state.fold(Fact.of(self._state.seq + 1, at_us, kind, named, body), self._policy.time_zone)

    def _asked(self) -> tuple[Decision, list[str]]:
        policy, call, who = self._policy, self._test.call, self._who(self._test.call.session)
        decision, now = self._decided(who), self._moment(who)
        fired: list[str] = []
        for rule in policy.watch(who.tier, who.agent):
            if rule.counting and not rule.of.applies(call.tool):
                continue
            if not isinstance(decision, Allow) and not isinstance(rule, SingleCharge):
                continue
            for found in asked(rule, now):
                fired.append(rule.of.name)
                decision = halt_of(found) if found.halts else decision
        if call.bills is not None and isinstance(decision, Allow):
            decision = self._ended(who, decision, call.bills, fired)
        return decision, fired

    def _decided(self, who: Principal) -> Decision:
        call = self._test.call
        asks = ToolCall(call.tool, _upstream(call), call.arguments)
        for owner in reversed(who.above):
            refused = self._policy.decide(asks, owner, self._facts(owner, self._now_us), self._now_us)
            if not isinstance(refused, Allow):
                return for_child(owner, refused)
        return self._policy.decide(asks, who, self._facts(who, self._now_us), self._now_us)

    def _moment(self, who: Principal) -> Moment:
        policy, call, now_us = self._policy, self._test.call, self._now_us
        same, destination = self._marks(call)
        mine = [(one, self._facts(one, now_us)) for one in (who, *who.above)]
        return Moment(
            self._state,
            now_us,
            policy.currency,
            policy.time_zone,
            policy.day_bounds,
            call.tool,
            _upstream(call),
            destination,
            same,
            self._amount(call),
            running=mine[0][1].agent_open_calls,
            tasks=tuple(task_of(policy, one, facts) for one, facts in mine),
            caps=tuple(cap for one, facts in mine for cap in caps_of(policy, one, facts, who)),
            silent=() if call.silent is None else (("call", call.tool, int(call.silent * _SECOND_US)),),
            silent_tasks=tuple(
                (name, int(one.silent * _SECOND_US)) for name, one in self._test.sessions.items() if one.silent
            ),
        )

    def _ended(self, who: Principal, decision: Decision, charged: int, fired: list[str]) -> Decision:
        """The call goes and ends; the rules that its end may concern are asked again."""
        call, amount = self._test.call, self._amount(self._test.call)
        self._admit(self._now_us, call, charged, held=False)
        self._tell(self._now_us, "call.succeeded", call, amount_micros=charged, charged_micros=charged, duration_us=0)
        now = self._moment(who)._replace(amount=charged, admitted_us=self._now_us)
        for rule in self._policy.watch(who.tier, who.agent):
            if rule.at_end != "cost" or charged <= amount or not rule.of.applies(call.tool) or rule.of.name in fired:
                continue
            for found in asked(rule, now):
                fired.append(rule.of.name)
                decision = halt_of(found) if found.halts else decision
        return decision

    def _who(self, session: str) -> Principal:
        said = self._test.sessions.get(session) or SessionEntry()
        above: tuple[Principal, ...] = ()
        if said.parent is not None and said.parent != session:
            parent = self._who(said.parent)
            above = (replace(parent, above=()), *parent.above)
        test = self._test
        return Principal(
            test.agent, test.agent, test.tier, session, "a test", session_caps=said.caps or NO_CAPS, above=above
        )

    def _amount(self, call: AnyCall) -> int:
        found = self._policy.terms_for(self._who(call.session), call.tool, _upstream(call)).amount(call.arguments)
        return found if isinstance(found, int) else 0

    def _marks(self, call: AnyCall) -> tuple[str, str]:
        reads = self._policy.terms_for(self._who(call.session), call.tool, _upstream(call)).destination
        return f"{call.tool} {json_text(call.arguments)}", "" if reads is None else reads(call.arguments)

    def _facts(self, who: Principal, now_us: int) -> Facts:
        start_us, end_us = self._policy.day_bounds(now_us)
        mine = [one for one in self._calls if self._below(one[1], who.session_id)]
        rates: Mapping[int, int] = {
            window_s: sum(one[0] > now_us - window_s * _SECOND_US for one in self._calls)
            for window_s in self._policy.rate_windows_s(who)
        }
        return Facts(
            task=_usage(mine),
            hour=_usage([one for one in self._calls if one[0] > now_us - _HOUR_US]),
            day=_usage([one for one in self._calls if start_us <= one[0] < end_us]),
            calls_settled=sum(not one[3] for one in mine),
            calls_open=sum(one[3] for one in mine),
            rate_counts=rates,
            agent_open_calls=sum(one[3] for one in self._calls),
        )

    def _below(self, session: str, root: str) -> bool:
        return root in (session, *self._who(session).sessions_above)


def _usage(calls: list[tuple[int, str, int, bool]]) -> Usage:
    return Usage(sum(one[2] for one in calls if not one[3]), sum(one[2] for one in calls if one[3]))


def _upstream(call: AnyCall) -> str:
    return call.tool.partition("__")[0]


def _answer(decision: Decision) -> str:
    if isinstance(decision, Allow):
        return "allow"
    return f"{'deny' if isinstance(decision, Deny) else 'halt'} {decision.reasons[0].code}"
