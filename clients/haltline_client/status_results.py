"""The shape of the `status` result: everything an operator looks at first. See `results` for what the values are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from haltline_client.alert_results import ChannelBacklog
    from haltline_client.cap_results import Allowance, Balance
    from haltline_client.results import Halt, Money

__all__ = ["Status", "StatusAgent", "StatusAlerts", "StatusInDoubt", "StatusPolicy", "StatusStore", "Upstream"]


class StatusPolicy(TypedDict):
    """The policy in force; `problems` are those of a newer one on disk that could not be used."""

    version: str | int
    mode: str
    problems: list[object]


class StatusAgent(TypedDict):
    """One agent in the status. `held` by calls that run, and `in_doubt`, count beside `spent_day`; `balances`: all its caps."""

    agent: str
    tier: str
    state: str
    sessions_open: int
    running: int
    spent_day: Money
    cap_day: Money | None
    held: Money
    in_doubt: NotRequired[Money]
    balances: NotRequired[list[Balance]]


class StatusInDoubt(TypedDict):
    """Calls whose outcome is unknown and which count against their caps; at `charges_at` the first ends by itself."""

    count: int
    amount: Money
    oldest_at: NotRequired[str | None]
    charges_at: NotRequired[str | None]


class StatusAlerts(TypedDict):
    """Alerts not yet delivered, and those given up; `open_episodes`: nobody acknowledged them yet."""

    backlog: int
    oldest_at: NotRequired[str | None]
    oldest_age_s: NotRequired[float]
    failed: int
    open_episodes: NotRequired[int]
    channels: NotRequired[list[ChannelBacklog]]


class Upstream(TypedDict):
    """One upstream; `tools` is how many it offers."""

    name: str
    kind: str
    state: str
    tools: int
    detail: NotRequired[str | None]


class StatusStore(TypedDict):
    """The database: events so far, bytes on disk, units of work waiting for the writer."""

    events: int
    size_bytes: int
    queue: int


class Status(TypedDict):
    """Everything an operator looks at first."""

    now: str
    uptime_s: float
    version: str
    policy: StatusPolicy
    ready: bool
    not_ready_because: NotRequired[str | None]
    halts: list[Halt]
    allowances: NotRequired[list[Allowance]]
    agents: list[StatusAgent]
    in_doubt: StatusInDoubt
    alerts: StatusAlerts
    upstreams: list[Upstream]
    store: StatusStore
