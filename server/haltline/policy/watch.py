"""What rules over an agent's ways are asked with, and what they answer. Pure.

What is counted comes in as a `History`; folding and storing it is not known here, nor is what becomes of a finding. The
rules themselves: about money in `watch_money`, about all else in `watch_ways`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = ["Average", "CapUse", "Common", "Finding", "History", "Moment", "TaskUse", "WatchRule", "length", "share"]


class Average(NamedTuple):
    """Money in an active hour, and over how many active hours (R2)."""

    micros: int
    active: int


class History(Protocol):
    """What is known of one agent. Windows up to an hour are exact; money counts by its admission."""

    @property
    def first_us(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def week(self) -> list[int]:
        """By hour of the week: the hour since the epoch in which it was used first; 0: never."""
        ...

    @property
    def week_known(self) -> bool: ...
    def spent(self, window_s: float, now_us: int) -> int: ...
    def most_spent(self, window_s: float, at_us: int) -> int:
        """In any window of this length that holds an admission of the last hour; 0 for an older one."""
        ...

    def average(self, days: int, now_us: int) -> Average: ...
    def day_spent(self, start_us: int, end_us: int) -> int: ...
    def ended(self, window_s: float, now_us: int) -> tuple[int, int]: ...
    def repeats(self, same: str, window_s: float, now_us: int) -> int: ...
    def used(self, what: str, name: str) -> int: ...
    def fired_us(self, rule: str, cause: str) -> int | None: ...
    def task_before(self, session: str, since_us: int) -> tuple[int, int] | None:
        """Money and calls of a session and those below it, before its first call since then; None: it made none."""
        ...


class TaskUse(NamedTuple):
    """A session and those below it: how many calls they made, and how many its grant gives it."""

    session: str
    calls: int
    cap: int | None


class CapUse(NamedTuple):
    """A cap that fills up: money in micro-units, or calls; `session` where it is not the agent's."""

    kind: str
    session: str
    limit: int
    used: int


class Moment(NamedTuple):
    """What a rule may read: a call that is about to go, one that ended, or none and the state of things now."""

    history: History
    now_us: int
    currency: str = ""
    time_zone: str = "UTC"
    day_bounds: Callable[[int], tuple[int, int]] | None = None
    tool: str = ""
    upstream: str = ""
    destination: str = ""
    same: str = ""
    amount: int = 0
    """What the call would cost; of one that ended, what it did."""
    admitted_us: int | None = None
    """Of a call that ended: its cost is in the history by this time."""
    running: int = 0
    """Calls of the agent that run, without this one."""
    tasks: tuple[TaskUse, ...] = ()
    """The call's session and those above it."""
    caps: tuple[CapUse, ...] = ()
    silent: tuple[tuple[str, str, int], ...] = ()
    """Running calls: (call, tool, microseconds since its last output)."""
    silent_tasks: tuple[tuple[str, int], ...] = ()
    """Sessions that go on: (session, microseconds since anything of it was heard)."""

    def spent(self, window_s: float) -> int:
        """In the window up to now with this call; for one that ended, in the worst window that it is in."""
        if self.admitted_us is not None:
            return self.history.most_spent(window_s, self.admitted_us)
        return self.history.spent(window_s, self.now_us) + self.amount

    @property
    def adds(self) -> int:
        """What the history does not count yet."""
        return self.amount if self.admitted_us is None else 0


class Finding(NamedTuple):
    """A rule found what it looks for. `cause` tells episodes of one rule apart; empty: the agent as a whole."""

    cause: str
    threshold: str
    observed: str
    numbers: dict[str, int | str | None]
    learning: bool = False
    session: str = ""
    """The session that it is about, and that a halt stops; empty: the agent."""


@dataclass(frozen=True, slots=True)
class Common:
    """What every rule says: whom it watches, what it does, how long it then keeps quiet."""

    name: str
    where: str
    do: Literal["alert", "halt"]
    severity: Literal["critical", "warning", "info"]
    quiet_s: float
    time_zone: str
    audit: bool
    cancels: bool
    """A halt by this rule also cancels what runs (R18)."""
    tells_while_learning: bool
    learn_s: float
    learn_calls: int
    applies: Callable[[str], bool]
    """To calls of this tool; rules that are not about single calls read it never."""

    def learning(self, moment: Moment) -> bool:
        """Too little history to say what is unusual (R28)."""
        history = moment.history
        return history.calls < self.learn_calls or moment.now_us - history.first_us < int(self.learn_s * 1_000_000)


class WatchRule(Protocol):
    """One rule: a frozen value with one question."""

    @property
    def of(self) -> Common: ...
    @property
    def counting(self) -> bool:
        """Asked about each call before it goes (R27); the others from time to time."""
        ...

    @property
    def at_end(self) -> Literal["", "cost", "failure"]:
        """Asked again in the settling transaction of a call that cost more than was held, or that failed (R8)."""
        ...

    @property
    def each(self) -> Literal["", "tasks", "caps", "silent", "silent_tasks"]:
        """What of a moment it is asked about one by one, so that each is an episode of its own."""
        ...

    def ask(self, moment: Moment) -> Finding | None: ...


def share(permille: int) -> str:
    return f"{permille / 10:g} %"


def length(seconds: float) -> str:
    whole = int(seconds)
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole % unit == 0:
            return f"{whole // unit} {name}"
    return f"{whole} s"
