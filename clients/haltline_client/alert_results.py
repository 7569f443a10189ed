"""The shapes of what the control tools say of alerts. See `results` for what the values are."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

__all__ = [
    "Alert",
    "AlertList",
    "AlertStats",
    "ChannelBacklog",
    "ChannelTried",
    "Delivery",
    "Episode",
    "EpisodeChanged",
    "Retried",
    "Spread",
]


class Delivery(TypedDict):
    """One alert on its way to one channel: `pending`, `delivered`, or `parked`, which is tried again by `retry_alert` alone."""

    channel: str
    state: str
    attempts: int
    last_error: NotRequired[str | None]


class Alert(TypedDict):
    """One message: that something happened (`trigger`, `notice`), or what became of it (`acknowledge`, `resolve`)."""

    id: str
    at: str
    kind: str
    act: NotRequired[str]
    episode: NotRequired[str | None]
    agent: str | None
    session: str | None
    summary: str
    deliveries: list[Delivery]


class Episode(TypedDict):
    """What several alerts are about: `open` until acknowledged, live until `resolved`. `count`: how often it happened."""

    id: str
    state: Literal["open", "acknowledged", "resolved"]
    severity: str
    count: int
    since: str
    last_at: str
    kind: str
    code: str
    rule: NotRequired[str | None]
    threshold: NotRequired[str | None]
    observed: NotRequired[str | None]
    agent: str | None
    session: str | None
    tool: NotRequired[str | None]
    summary: str
    acknowledged_at: NotRequired[str | None]
    acknowledged_by: NotRequired[str | None]
    acted_at: NotRequired[str | None]
    acted_by: NotRequired[str | None]
    resolved_at: NotRequired[str | None]
    resolved_by: NotRequired[str | None]
    escalates_at: NotRequired[str | None]
    """When it goes to the next route, unless somebody acknowledges it."""
    escalations: int
    last_actions: list[str]
    commands: list[str]
    waiting: int
    """Deliveries that a channel still has to take."""
    failed: int
    """Deliveries given up."""


class AlertList(TypedDict):
    """`episodes` and `alerts` (their messages), each the newest first."""

    episodes: list[Episode]
    alerts: list[Alert]


class EpisodeChanged(TypedDict):
    """`to_acknowledge_s`, `to_act_s`: how long people took, where they have."""

    episode: str
    state: str
    by: str
    at: str
    count: int
    to_acknowledge_s: float | None
    to_act_s: float | None


class Retried(TypedDict):
    id: str
    deliveries: int


class ChannelTried(TypedDict):
    """`why` it was not taken, where it was not."""

    channel: str
    delivered: bool
    why: str | None
    took_s: float


class Spread(TypedDict):
    """Seconds."""

    p50: float
    p95: float
    max: float


class AlertStats(TypedDict):
    """`raised`: how often something happened in these episodes; `unseen`: live, and nobody showed to have seen it.

    `acknowledged_in_time`: seen within five minutes.
    """

    since: str
    episodes: int
    raised: int
    critical: int
    acknowledged: int
    acknowledged_in_time: int
    escalated: int
    resolved: int
    unseen: int
    to_acknowledge_s: Spread | None
    to_act_s: Spread | None


class ChannelBacklog(TypedDict):
    """Deliveries that wait for one channel, how long the oldest has, and those given up."""

    channel: str
    backlog: int
    oldest_age_s: float
    failed: int
