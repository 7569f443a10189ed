"""What an alert is, what a channel must do with it, and the settings of the channels. No I/O, no tables.

An alert is written once, with its cause; a delivery is one alert on its way to one channel. How one reads for a person is
`text`'s matter, when it is sent the outbox's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson

from haltline.alerts.settings import (
    AppriseSettings,
    DesktopSettings,
    PagerDutySettings,
    SlackSettings,
    SmsSettings,
)
from haltline.alerts.visible import clipped, visible

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DESKTOP",
    "LAST_ACTIONS",
    "STDERR",
    "Act",
    "Alert",
    "AlertSettings",
    "Balance",
    "Channel",
    "ChannelSettings",
    "Delivery",
    "Later",
    "Link",
    "Never",
    "Severity",
    "Undelivered",
    "WebhookSettings",
]

Severity = Literal["critical", "warning", "info"]
Act = Literal["trigger", "acknowledge", "resolve", "notice"]
"""What a message says of its episode. A notice belongs to none: it tells what a person did, and nobody need act."""

STDERR = "stderr"
"""The channel that is always there, whatever routes say."""
DESKTOP = "desktop"
"""The channel that is there by itself where nothing else is configured and somebody sits before it."""
LAST_ACTIONS = 5
_LONGEST = {
    "text": 500,
    "task": 300,
    "rule": 200,
    "threshold": 100,
    "observed": 100,
    "last_actions": 300,
    "commands": 300,
}
"""Characters kept of a field; the others are names and identifiers."""
_LONGEST_NAME = 100
_MOST_LINES = 10


@dataclass(frozen=True, slots=True)
class Balance:
    """One cap in words, as it stands with the alert: `Balance("task", "0.50 USD", "0.47 USD", "0.00 USD", "0.03 USD")`.

    Empty where the cap counts nothing of that kind.
    """

    cap: str
    limit: str
    spent: str
    held: str
    remaining: str
    in_doubt: str = ""
    resets_at: str | None = None
    of_session: str | None = None
    """A session above the alert's whose cap it is."""

    @property
    def name(self) -> str:
        return f"{self.cap} of session {self.of_session}" if self.of_session else self.cap

    @property
    def numbers(self) -> str:
        """`spent 0.47 USD, held 0.00 USD, in doubt 0.00 USD, remaining 0.03 USD of 0.50 USD`."""
        parts = (("spent", self.spent), ("held", self.held), ("in doubt", self.in_doubt), ("remaining", self.remaining))
        return f"{', '.join(f'{what} {number}' for what, number in parts if number)} of {self.limit}"


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the operators' console."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody must know who can act. `fit` is applied before it is stored: nothing unredacted is ever kept."""

    kind: str
    """That of the event which caused it, e.g. `session.halted`."""
    code: str
    """The reason's, e.g. `budget.task_exceeded`."""
    text: str
    """The cause in one sentence: `task cap 0.50 USD, spent 0.47, this call 0.05`."""
    agent: str | None = None
    """The agent's handle; None where it is about everything."""
    agent_id: str | None = None
    session: str | None = None
    task: str | None = None
    by: str | None = None
    """Who or what did it: `cap task`, `operator:anna`."""
    severity: Severity = "critical"
    rule: str | None = None
    threshold: str | None = None
    observed: str | None = None
    last_actions: tuple[str, ...] = ()
    """Newest last, one line each; the last five are kept."""
    balances: tuple[Balance, ...] = ()
    commands: tuple[str, ...] = ()
    """The exact commands to resume or revoke, quoted for a shell."""
    tool: str | None = None
    """The tool, or the upstream, where it is about that and no agent."""
    tier: str | None = None
    owner: str | None = None
    links: tuple[Link, ...] = ()
    act: Act = "trigger"
    acted_by: str | None = None
    """Who acknowledged or resolved it; with a trigger: who had it in hand from the start."""
    episode: str | None = None
    """The episode's id: the same for all its messages."""
    count: int = 1
    """How often it happened in this episode."""
    opened_us: int | None = None
    """When the episode began."""
    step: str | None = None
    """Why it is told again: `not acknowledged for 5 min, so it goes to managers`."""
    test: bool = False
    """Sent to try a channel; nothing happened."""

    @property
    def summary(self) -> str:
        """One line with agent, cause and balance: what remains when there is room for nothing else."""
        who = f"agent {self.agent}" if self.agent else f"tool {self.tool}" if self.tool else "everything"
        where = f" (session {self.session})" if self.session else ""
        times = f" (×{self.count})" if self.count > 1 else ""
        return f"{who}{where}: {self.kind} [{self.code}]{times}: {self.text}{self._balance()}"

    @property
    def headline(self) -> str:
        """What a message begins with where it is not the alert itself."""
        if self.test:
            return "TEST of this channel, nothing happened"
        if self.act in {"acknowledge", "resolve"}:
            return f"{'acknowledged' if self.act == 'acknowledge' else 'resolved'} by {self.acted_by}"
        return self.step or ""

    @property
    def tightest(self) -> Balance | None:
        """The balance of the cap that the code names, else the first."""
        named = [one for one in self.balances if f".{one.cap}_" in self.code or self.code.startswith(f"{one.cap}.")]
        return next(iter(named or self.balances), None)

    def _balance(self) -> str:
        one = self.tightest
        if one is None:
            return ""
        return f"; {one.cap} cap: {one.numbers}"

    def fit(self, redact: Callable[[str], str]) -> Alert:
        """The same without secrets, without characters that could forge lines, and of a bounded size.

        Redacted before it is cut, so that no half of a secret stays (P9).
        """

        def clean(text: str, longest: int) -> str:
            return clipped(visible(redact(text)), longest)

        changed: dict[str, Any] = {"last_actions": self.last_actions[-LAST_ACTIONS:]}
        for one in fields(self):
            value, longest = changed.get(one.name, getattr(self, one.name)), _LONGEST.get(one.name, _LONGEST_NAME)
            if isinstance(value, str):
                changed[one.name] = clean(value, longest)
            elif one.name in {"last_actions", "commands"}:
                changed[one.name] = tuple(clean(line, longest) for line in value[:_MOST_LINES])
        changed["balances"] = tuple(
            replace(one, **{name: clean(value, _LONGEST_NAME) for name, value in asdict(one).items() if value})
            for one in self.balances[:_MOST_LINES]
        )
        return replace(self, **changed)

    def stored(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS)

    @staticmethod
    def from_stored(body: bytes) -> Alert:
        """What `stored` wrote, also by a version that knew fewer or more fields."""
        said = orjson.loads(body)
        known = {one.name: said[one.name] for one in fields(Alert) if one.name in said}
        for name in ("last_actions", "commands"):
            known[name] = tuple(known.get(name, ()))
        names = {one.name for one in fields(Balance)}
        known["balances"] = tuple(
            Balance(**{name: value for name, value in balance.items() if name in names})
            for balance in known.get("balances", ())
        )
        known["links"] = tuple(Link(**link) for link in known.get("links", ()))
        return Alert(**known)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to bring one alert to one channel."""

    id: str
    """The same at every attempt, for receivers to recognise what they have already."""
    alert_id: str
    attempt: int
    """From 1."""
    at_us: int
    """When it happened."""
    attempted_us: int
    alert: Alert


class Undelivered(Exception):  # a name for what happened, not for a fault of this program
    """A channel did not take it. `why` is for people: never a secret, never a URL."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Later(Undelivered):
    """It may succeed later; not before `after_s` where the receiver asked for that."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Never(Undelivered):
    """It cannot succeed, however often it is tried."""


class Channel(Protocol):
    """A way to a person. Several sends may run at once, for different agents."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """`stderr`, `webhook` …"""

    @property
    def acts(self) -> frozenset[Act]:
        """What it is told of; the rest is not queued for it."""

    async def send(self, delivery: Delivery) -> None:
        """Return once it was taken. Raises `Later` or `Never`; bounded in time by the channel itself."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """One receiver of alerts in the Alertmanager's form. Neither address nor secret is ever shown: both may let in."""

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    """Signs each body where set."""
    timeout_s: float = 10.0


ChannelSettings = WebhookSettings | SlackSettings | PagerDutySettings | SmsSettings | DesktopSettings | AppriseSettings


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """The `alerts:` block of haltline.yaml. Standard error is always a channel."""

    webhooks: tuple[WebhookSettings, ...] = ()
    channels: tuple[ChannelSettings, ...] = ()
    console_url: str = ""
    """Where the operators' console is, for links; empty: none."""
    keep_s: float = 90 * 86_400.0
    """How long an alert is kept once it is resolved and delivered everywhere."""

    @property
    def names(self) -> frozenset[str]:
        """Of all channels there will be; a route may name the desktop's also where there is none."""
        return frozenset({STDERR, DESKTOP, *(one.name for one in (*self.webhooks, *self.channels))})
