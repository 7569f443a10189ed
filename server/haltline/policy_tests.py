"""Tests of a policy, written beside it in YAML: given this history and this call, expect this answer and these rules.

Asks the same decision and rules as the broker, over the same signals; knows no store, no clock and no upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from haltline.calls.watching import asked, halt_of
from haltline.errors import ConfigError
from haltline.policy.complaints import problems_of
from haltline.policy.durations import parse_duration
from haltline.policy.model import Allow, Deny, Facts, Principal, ToolCall, Usage
from haltline.policy.price_entry import Amount
from haltline.policy.watch import Moment, SingleCharge
from haltline.policy.yaml_text import parse_yaml
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


class CallEntry(Closed):
    """The call that is asked about."""

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    session: str = "now"
    silent: Duration | None = Field(default=None, description="It runs, and has said nothing for so long.")


class HistoryEntry(CallEntry):
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
            self._calls.append((at_us, one.session, amount, one.ends == "held"))
            same, destination = self._marks(one)
            self._tell(at_us, "call.allowed", one, amount_micros=amount, same=same, destination=destination)
            if one.ends != "held":
                kind = "call.failed" if one.ends == "failed" else "call.succeeded"
                self._tell(at_us, kind, one, amount_micros=amount, charged_micros=amount, duration_us=0)

    def _tell(self, at_us: int, kind: str, call: CallEntry, **body: Any) -> None:
        named = {"session": call.session, "tool": call.tool, "upstream": _upstream(call)}
        self._state.fold(Fact.of(self._state.seq + 1, at_us, kind, named, body), self._policy.time_zone)

    def _asked(self) -> tuple[Decision, list[str]]:
        policy, call, who = self._policy, self._test.call, self._who(self._test.call.session)
        asks = ToolCall(call.tool, _upstream(call), call.arguments)
        decision = policy.decide(asks, who, self._facts(who), self._now_us)
        amount = self._amount(call)
        same, destination = self._marks(call)
        now = Moment(
            self._state,
            self._now_us,
            policy.currency,
            policy.time_zone,
            policy.day_bounds,
            call.session,
            call.tool,
            _upstream(call),
            destination,
            same,
            amount,
            silent=() if call.silent is None else (("call", call.tool, int(call.silent * _SECOND_US)),),
        )
        fired: list[str] = []
        for rule in policy.watch(who.tier, who.agent):
            if rule.counting and not rule.of.applies(call.tool):
                continue
            if not isinstance(decision, Allow) and not isinstance(rule, SingleCharge):
                continue
            found = asked(rule, now)
            if found is not None:
                fired.append(rule.of.name)
                decision = halt_of(found) if found.halts else decision
        return decision, fired

    def _who(self, session: str) -> Principal:
        return Principal(self._test.agent, self._test.agent, self._test.tier, session, "a test")

    def _amount(self, call: CallEntry) -> int:
        found = self._policy.terms_for(self._who(call.session), call.tool, _upstream(call)).amount(call.arguments)
        return found if isinstance(found, int) else 0

    def _marks(self, call: CallEntry) -> tuple[str, str]:
        reads = self._policy.terms_for(self._who(call.session), call.tool, _upstream(call)).destination
        return f"{call.tool} {json_text(call.arguments)}", "" if reads is None else reads(call.arguments)

    def _facts(self, who: Principal) -> Facts:
        now_us, (start_us, end_us) = self._now_us, self._policy.day_bounds(self._now_us)
        mine = [one for one in self._calls if one[1] == who.session_id]
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


def _usage(calls: list[tuple[int, str, int, bool]]) -> Usage:
    return Usage(sum(one[2] for one in calls if not one[3]), sum(one[2] for one in calls if one[3]))


def _upstream(call: CallEntry) -> str:
    return call.tool.partition("__")[0]


def _answer(decision: Decision) -> str:
    if isinstance(decision, Allow):
        return "allow"
    return f"{'deny' if isinstance(decision, Deny) else 'halt'} {decision.reasons[0].code}"
