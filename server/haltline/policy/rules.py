"""The rules that a call meets before money is looked at: halts, tools, hours, arguments.

A rule is a frozen value that is asked one thing: does this call break you? Its answer is a `Refusal` or None. Rules in
audit mode are asked like any other; what becomes of their answer is `decide`'s (R29).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from haltline.policy.destination import missing_from
from haltline.policy.hours import DAYS, hours_to_json, is_open, local_time
from haltline.policy.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haltline.policy.model import Facts, HaltFact, Hours, Principal, ToolCall
    from haltline.policy.schemas import InputSchemas
    from haltline.policy.terms import Terms
    from haltline.policy.tiers import ArgumentRule

__all__ = [
    "Arguments",
    "Asked",
    "Halted",
    "InputSchema",
    "Open",
    "Reaches",
    "Refusal",
    "Rule",
    "Tools",
    "Unknown",
    "refuse",
    "stamp",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Asked(NamedTuple):
    """Everything that rules may read of one call."""

    call: ToolCall
    who: Principal
    facts: Facts
    now_us: int
    terms: Terms
    amount_micros: int = 0
    """What the call would hold."""
    no_amount: Reason | None = None
    """Why that cannot be said; the call is refused for it."""


class Refusal(NamedTuple):
    """Why not, and what stops: nothing, the session, or the agent."""

    reason: Reason
    halts: Literal["session", "agent"] | None = None


class Rule(Protocol):
    """`name` and `where` say which rule it is, `audit` whether it only watches."""

    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def audit(self) -> bool: ...
    def ask(self, asked: Asked) -> Refusal | None: ...
    def fine(self, asked: Asked) -> str:
        """What it says of a call that it lets pass; empty where it has nothing to say."""


def refuse(
    code: str, text: str, facts: Mapping[str, int | str | None] | None = None, *, retryable: bool = False
) -> Refusal:
    return Refusal(Reason(code, text, facts or {}, retryable))


@dataclass(frozen=True, slots=True)
class Halted:
    """A halt that is set stops every call; each of the three kinds by itself (R16). Never in audit mode."""

    scope: Literal["everything", "agent", "session"]
    name: str = "halt"
    where: str = "operator"
    audit: bool = False

    def ask(self, asked: Asked) -> Refusal | None:
        halts = asked.facts.halts
        halt = next((halt for halt in halts if halt.scope == self.scope), None) if halts else None
        if halt is None:
            return None
        facts = {"cause": halt.code, "by": halt.by, "since": stamp(halt.since_us)}
        return refuse(f"{self.scope}.halted", _halt_text(halt, asked.who), facts)

    def fine(self, asked: Asked) -> str:
        del asked
        return f"no halt of {_subject(self.scope)} is set"


def _halt_text(halt: HaltFact, who: Principal) -> str:
    subject = f"agent {who.agent}" if halt.scope == "agent" else _subject(halt.scope)
    return f"{subject} was halted by {halt.by} [{halt.code}]: {halt.text}"


def _subject(scope: str) -> str:
    return {"session": "this session", "agent": "this agent"}.get(scope, "everything")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A tier or scope that the policy does not know grants nothing (P6). Never in audit mode."""

    kind: Literal["tier", "scope"]
    missing: str
    name: str = "policy"
    where: str = "agent"
    audit: bool = False

    def ask(self, asked: Asked) -> Refusal | None:
        text = f"the policy has no {self.kind} {self.missing}, which agent {asked.who.agent} was given"
        return refuse("policy.error", f"{text}; an operator has to mend the policy", {self.kind: self.missing})

    def fine(self, asked: Asked) -> str:
        raise AssertionError(f"{asked.who.agent}: an unknown {self.kind} is never fine")


@dataclass(frozen=True, slots=True)
class Tools:
    """The tool is among those of a tier, a scope or a session."""

    of: str
    """`tier staging`, `scope support-desk`, `this session`"""
    where: str
    audit: bool
    allows: Callable[[str], bool]
    name: str = "tools"

    def ask(self, asked: Asked) -> Refusal | None:
        if self.allows(asked.call.tool):
            return None
        return refuse("scope.tool", f"{asked.call.tool} is not among the tools of {self.of}", {"scope": self.of})

    def fine(self, asked: Asked) -> str:
        return f"{asked.call.tool} is among the tools of {self.of}"


@dataclass(frozen=True, slots=True)
class Open:
    """The call comes within the hours of a tier, a scope or an agent."""

    of: str
    where: str
    audit: bool
    hours: Hours
    name: str = "hours"

    def ask(self, asked: Asked) -> Refusal | None:
        if is_open(self.hours, asked.now_us):
            return None
        here = local_time(asked.now_us, self.hours.time_zone)
        text = f"it is {DAYS[here.weekday()]} {here:%H:%M}, outside the hours of {self.of} ({self._said()})"
        return refuse("scope.hours", text, {"scope": self.of, "hours": self._said()})

    def fine(self, asked: Asked) -> str:
        del asked
        return f"within the hours of {self.of} ({self._said()})"

    def _said(self) -> str:
        hours = hours_to_json(self.hours)
        return f"{hours['days']} {hours['from']}-{hours['to']} {hours['time_zone']}"


@dataclass(frozen=True, slots=True)
class InputSchema:
    """The arguments fit the tool's own inputSchema; a schema that cannot be used lets nothing through."""

    schemas: InputSchemas
    audit: bool
    name: str = "inputSchema"
    where: str = "upstream"

    def ask(self, asked: Asked) -> Refusal | None:
        schema = asked.call.input_schema
        problem = None if schema is None else self.schemas.problem(schema, asked.call.arguments)
        return None if problem is None else refuse("args.schema", problem)

    def fine(self, asked: Asked) -> str:
        if asked.call.input_schema is None:
            return "the tool has no inputSchema to check"
        return "the arguments fit the tool's inputSchema"


@dataclass(frozen=True, slots=True)
class Arguments:
    """One argument rule of a scope, for the tools it names."""

    scope: str
    rule: ArgumentRule
    audit: bool
    name: str = "arguments"

    @property
    def where(self) -> str:
        return self.rule.where

    def ask(self, asked: Asked) -> Refusal | None:
        if not self.rule.applies(asked.call.tool):
            return None
        problem = self.rule.problem(asked.call.arguments)
        if problem is None:
            return None
        return refuse("args.rule", f"{problem} (scope {self.scope})", {"scope": self.scope, "rule": self.rule.where})

    def fine(self, asked: Asked) -> str:
        return f"holds: {self.rule.demand}" if self.rule.applies(asked.call.tool) else ""


@dataclass(frozen=True, slots=True)
class Reaches:
    """Where it is said how to read whom a call reaches, the tool has that argument: else every call would hide it (P6)."""

    name: str = "destination"
    where: str = "tools"
    audit: bool = False

    def ask(self, asked: Asked) -> Refusal | None:
        reaches, schema = asked.terms.reaches, asked.call.input_schema
        missing = None if reaches is None or schema is None else missing_from(schema, reaches)
        if missing is None:
            return None
        text = f"whom {asked.call.tool} reaches is to be read from {reaches}, but its inputSchema has no {missing}"
        return refuse("policy.error", f"{text}; an operator has to mend its entry under tools", {"argument": missing})

    def fine(self, asked: Asked) -> str:
        reads = asked.terms.destination
        return "" if reads is None else f"reaches {reads(asked.call.arguments)}"


def stamp(at_us: int) -> str:
    """A time as facts carry it: ISO-8601, UTC, to the second."""
    return (_EPOCH + timedelta(seconds=at_us // 1_000_000)).strftime("%Y-%m-%dT%H:%M:%SZ")
