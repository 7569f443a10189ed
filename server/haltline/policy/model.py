"""The words of a decision: what is asked, by whom, what is known, and the answer.

Frozen values only. Amounts are integer micro-units of the broker's one currency (1 USD = 1_000_000), times are integer
microseconds since the Unix epoch, UTC (`_us`). Nothing here reads a clock, a file or a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from haltline.policy.prices import Rate as PriceRate

__all__ = [
    "NO_CAPS",
    "Allow",
    "CapKind",
    "Caps",
    "Decision",
    "Deny",
    "Facts",
    "Halt",
    "HaltFact",
    "Hours",
    "Principal",
    "Rate",
    "Reason",
    "ToolCall",
    "Usage",
]


class CapKind(StrEnum):
    """The caps a call is measured against. Only task, hour, day and calls halt (R3)."""

    PER_CALL = "per_call"
    TASK = "task"
    HOUR = "hour"
    DAY = "day"
    CALLS = "calls"
    RATE = "rate"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` admissions in any `window_s` seconds (rolling), written `5/minute`."""

    count: int
    window_s: int

    def __str__(self) -> str:
        unit = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}.get(self.window_s, f"{self.window_s}s")
        return f"{self.count}/{unit}"


@dataclass(frozen=True, slots=True)
class Caps:
    """Upper bounds; None means this level sets none. Money in micro-units, `calls` per session."""

    per_call_micros: int | None = None
    task_micros: int | None = None
    hour_micros: int | None = None
    day_micros: int | None = None
    calls: int | None = None
    concurrent: int | None = None
    rate: Rate | None = None


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class Hours:
    """Weekly opening hours in a named zone: days 0 (Monday) to 6, minutes of the day, end exclusive.

    `start_minute > end_minute` wraps past midnight; the day named is the one on which the span starts.
    """

    days: frozenset[int]
    start_minute: int
    end_minute: int
    time_zone: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: the agent and session that a live credential resolves to, with what narrows them."""

    agent_id: str
    agent: str
    """The agent's handle, as people write it."""
    tier: str
    session_id: str
    task: str
    tools: tuple[str, ...] | None = None
    """Tool patterns the session is narrowed to; None: whatever the tier and the agent's scopes grant."""
    scopes: tuple[str, ...] = ()
    """Names of scopes given to this agent, on top of its tier's (all must allow)."""
    hours: Hours | None = None
    agent_caps: Caps = NO_CAPS
    session_caps: Caps = NO_CAPS
    above: tuple[Principal, ...] = ()
    """Its parent session, that one's parent, and so on to the root (R20): each must be allowed what this one does."""

    @property
    def sessions_above(self) -> tuple[str, ...]:
        return tuple(one.session_id for one in self.above)


class ToolCall(NamedTuple):
    """One call as it will be dispatched: the decision reads exactly what is sent on."""

    tool: str
    """Name as the agent sees it, `upstream__tool`."""
    upstream: str
    arguments: Mapping[str, Any]
    input_schema: Mapping[str, Any] | None = None
    free: bool = False
    """Prompts, resources and completions are free unless priced; a tool without a price is refused (R25, R6)."""
    follows: bool = False
    """It asks about what a call before it made and paid for: neither arguments nor money are asked again."""


class Usage(NamedTuple):
    """What counts in one window: settled money and money on hold, and how much of what is on hold is in doubt."""

    settled_micros: int = 0
    held_micros: int = 0
    in_doubt_micros: int = 0

    @property
    def running_micros(self) -> int:
        """On hold for calls that have not ended."""
        return self.held_micros - self.in_doubt_micros


@dataclass(frozen=True, slots=True)
class HaltFact:
    """A halt that is set: of a session, an agent or everything, why, by whom, since when."""

    scope: Literal["session", "agent", "everything"]
    code: str
    text: str
    by: str
    since_us: int


class Facts(NamedTuple):
    """What is known about the principal inside the deciding transaction (P3, P12)."""

    halts: tuple[HaltFact, ...] = ()
    task: Usage = Usage()
    hour: Usage = Usage()
    day: Usage = Usage()
    hour_resets_at_us: int | None = None
    day_resets_at_us: int | None = None
    calls_settled: int = 0
    calls_open: int = 0
    """Calls of this session: those that ended, and those held or in doubt."""
    calls_in_doubt: int = 0
    rate_counts: Mapping[int, int] = MappingProxyType({})
    """Admissions of this agent in the last N seconds, by N, for every window that a rate cap names."""
    rate_resets_us: Mapping[int, int] = MappingProxyType({})
    """When the oldest of them leaves its window, by N; no key where there is none."""
    agent_open_calls: int = 0
    """Calls of this agent that are running now (in doubt ones are not running)."""
    allowances: Mapping[CapKind, int] = MappingProxyType({})
    """Micro-units (or calls) that a person added to a cap in a resume, still in force."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not, for the model to read: a stable code, one sentence, and the numbers it was read from."""

    code: str
    text: str
    facts: Mapping[str, int | str | None] = field(default_factory=lambda: MappingProxyType({}))
    retryable: bool = False

    def stored(self) -> dict[str, Any]:
        """As events keep it."""
        return {"code": self.code, "text": self.text, "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True)
class Allow:
    """Go, holding `amount_micros`; `would_deny` are the reasons of rules in audit mode (R29)."""

    amount_micros: int
    price: str
    """Which price entry set the amount, e.g. `tools.yaml: payments__charge fixed 0.05`."""
    charge_on_error: bool = True
    read_only: bool = False
    """Declared by the operator, never believed from the upstream."""
    deadline_s: float = 60.0
    would_deny: tuple[Reason, ...] = ()
    rate: PriceRate | None = field(default=None, compare=False)
    """How `price` reads from an answer what the call cost; None: it is the amount held."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Refused; nothing is held and nothing stops."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Halt:
    """Refused, and `scope` stops until a person resumes it."""

    reasons: tuple[Reason, ...]
    scope: Literal["session", "agent"]


Decision = Allow | Deny | Halt
