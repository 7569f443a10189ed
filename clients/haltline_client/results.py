"""The shapes of the control tools' results: names for type checkers and readers, nothing at run time.

Timestamps (`at`, `since`, `*_at`) are ISO-8601 UTC strings; `Money.micros` is an integer count of millionths.
A broker newer than this client may add keys; they stay in the dictionaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from haltline_client.cap_results import Allowance, Balance
    from haltline_client.status_results import Upstream

__all__ = [
    "AddedAgent",
    "Agent",
    "AgentDetail",
    "AgentList",
    "ApprovedTool",
    "AuditPage",
    "Caps",
    "Event",
    "Explanation",
    "Halt",
    "HaltCause",
    "Halted",
    "Hours",
    "ImportedTools",
    "InDoubt",
    "InDoubtList",
    "Money",
    "NewToken",
    "OpenedSession",
    "Operator",
    "OperatorList",
    "PinnedTool",
    "Quantity",
    "Reason",
    "Reissued",
    "ReloadedPolicy",
    "Resolved",
    "Revoked",
    "RevokedOperator",
    "RuleSaid",
    "Session",
    "SessionDetail",
    "SessionList",
    "Tool",
    "ToolList",
    "ToolReview",
]


class Money(TypedDict):
    """An amount: millionths of the currency unit, and the same for people (`0.50 USD`)."""

    micros: int
    text: str


Quantity = Money | int | str | None


class Caps(TypedDict, total=False):
    """Caps asked for: money as decimal strings in the policy's currency, `rate` as `5/minute`."""

    per_call: str
    task: str
    hour: str
    day: str
    calls: int
    concurrent: int
    rate: str


Hours = TypedDict("Hours", {"days": str, "from": str, "to": str, "time_zone": str})
"""When an agent may work: `{"days": "mon-fri", "from": "08:00", "to": "18:00", "time_zone": "Europe/Berlin"}`."""


class OpenedSession(TypedDict):
    """A new session. `token` is shown this once and kept by the broker as a keyed hash only."""

    session: str
    agent: str
    tier: str
    task: str
    token: str
    expires_at: str
    caps: dict[str, Quantity]
    tools: list[str]


class Revoked(TypedDict):
    """What a revocation stopped; `already` when it was revoked before."""

    target: str
    kind: Literal["session", "agent"]
    sessions: list[str]
    calls_cancelled: int
    already: bool
    at: str


class Halted(TypedDict):
    """What a halt stopped; `already` when it was halted before."""

    target: str
    scope: str
    calls_cancelled: int
    already: bool
    at: str


class HaltCause(TypedDict):
    """Why something stands still: a reason code, its sentence, who or what halted it and when."""

    code: str
    text: str
    by: str
    since: str


class Halt(HaltCause):
    """One halt that stands."""

    target: str
    scope: str


class AddedAgent(TypedDict):
    """A new agent; `token` only when a credential was asked for, shown this once."""

    agent: str
    tier: str
    owner: str | None
    token: NotRequired[str]


class Agent(TypedDict):
    """One agent of a list."""

    agent: str
    tier: str
    owner: str | None
    state: str
    sessions_open: int
    spent_day: Money
    cap_day: Money | None
    held: NotRequired[Money]
    in_doubt: NotRequired[Money]


class AgentList(TypedDict):
    agents: list[Agent]


class Event(TypedDict, total=False):
    """An audit event. Its body's own keys stand beside these."""

    seq: int
    at: str
    kind: str
    actor: str | None
    agent: str | None
    session: str | None
    call: str | None
    tool: str | None
    upstream: str | None


class Session(TypedDict):
    """One run of an agent on one task. `cap` is the task's, `calls_cap` that on the number of calls.

    `spent`, `held` by calls that run and `in_doubt` count against the cap, what sessions below it did included.
    """

    session: str
    agent: str
    task: str
    state: str
    opened_at: str
    expires_at: str
    spent: Money
    held: Money
    in_doubt: NotRequired[Money]
    cap: Money | None
    calls: int
    calls_cap: NotRequired[int | None]
    running: int
    parent: NotRequired[str | None]
    """The session that opened it for a sub-agent. What a session spent includes what those below it did."""


class SessionDetail(Session):
    children: NotRequired[list[Session]]
    tools: list[str]
    caps: dict[str, Quantity]
    halt: NotRequired[HaltCause | None]
    balances: list[Balance]
    allowances: NotRequired[list[Allowance]]
    last_actions: list[Event]


class SessionList(TypedDict):
    sessions: list[Session]


class AgentDetail(TypedDict):
    agent: str
    tier: str
    owner: str | None
    state: str
    scopes: list[str]
    hours: Hours | None
    caps: dict[str, Quantity]
    halt: NotRequired[HaltCause | None]
    sessions: list[Session]
    balances: list[Balance]
    allowances: NotRequired[list[Allowance]]
    last_actions: list[Event]
    usual: NotRequired[list[str]]
    """What was normal for it, in words."""
    unusual: NotRequired[list[str]]


class Reissued(TypedDict):
    agent: str
    token: NotRequired[str]


class AuditPage(TypedDict):
    """Events by rising `seq`; `next_after_seq` is there while more follow."""

    events: list[Event]
    next_after_seq: NotRequired[int | None]


class InDoubt(TypedDict):
    """A call whose outcome is unknown. At `charges_at` what `then` says is done by itself: its full hold is charged, or, of a
    tool that only reads, given back.
    """

    call: str
    agent: str
    session: str
    tool: str
    amount: Money
    since: str
    age_s: float
    charges_at: str | None
    then: Literal["settle", "void"]
    why: str


class InDoubtList(TypedDict):
    calls: list[InDoubt]


class Resolved(TypedDict):
    """`overage`: what it cost above its hold, for which the sessions and agents of `halted` stand still now."""

    call: str
    outcome: Literal["settle", "void"]
    amount: Money
    overage: NotRequired[Money]
    halted: NotRequired[list[str]]


class Tool(TypedDict):
    """A tool as agents see it; `price` is null when it has no price entry and is refused (R6)."""

    tool: str
    upstream: str
    upstream_tool: str
    price: str | None
    matched_by: str | None
    shared_credential: bool
    description: str | None
    state: NotRequired[str]
    """`pinned`, or `quarantined`: not served until a person approves its definition."""
    flags: NotRequired[list[str]]
    digest: NotRequired[str]
    problem: NotRequired[str | None]
    """What of its policy entry its schema does not have; every call is refused for it."""


class ToolList(TypedDict):
    tools: list[Tool]
    upstreams: list[Upstream]


class PinnedTool(TypedDict):
    """A tool's definition as it is shown now (`digest`) against the one that was approved; `flags`: what is odd about it."""

    tool: str
    upstream: str
    upstream_tool: str
    state: Literal["pinned", "quarantined"]
    digest: str
    approved_digest: str | None
    approved_by: str | None
    approved_at: str | None
    seen_at: str
    flags: list[str]
    diff: list[str]


class ToolReview(TypedDict):
    tools: list[PinnedTool]


class ApprovedTool(TypedDict):
    """`already` when exactly this definition was approved before."""

    tool: str
    upstream: str
    digest: str
    already: bool


class ImportedTools(TypedDict):
    """Price entries written to the file `written`, all at price 0 and for review."""

    written: str
    tools: list[str]


class Reason(TypedDict):
    code: str
    text: str
    facts: dict[str, object]
    retryable: bool


class RuleSaid(TypedDict):
    """What one rule said; `where` is its file and line."""

    rule: str
    where: str
    spoke: str
    text: str


class Explanation(TypedDict):
    decision: Literal["allow", "deny", "halt"]
    amount: NotRequired[Money | None]
    reasons: list[Reason]
    rules: list[RuleSaid]
    balances: NotRequired[list[Balance]]
    allowances: NotRequired[list[Allowance]]


class ReloadedPolicy(TypedDict):
    version: str | int
    changed: bool


class NewToken(TypedDict):
    """An operator's credential, shown this once."""

    operator: str
    token: str


Operator = TypedDict("Operator", {"name": str, "class": str, "created_at": str, "state": str})


class OperatorList(TypedDict):
    operators: list[Operator]


class RevokedOperator(TypedDict):
    operator: str
