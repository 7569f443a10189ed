"""Rules over an agent's ways: each a frozen value that is asked what it makes of one moment. Pure.

What is counted comes in as a `History`; folding and storing it is not known here, nor is what becomes of a finding.
Counting rules are asked about each call before it goes (R27); the others from time to time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from haltline.policy.hours import DAYS, local_time, week_hour
from haltline.policy.money import format_amount

__all__ = [
    "Average", "CallsPerTask", "Common", "DayOverDay", "FailureRate", "Finding", "FirstUse", "Forecast", "History",
    "HourOverAverage", "Moment", "OffHours", "Repeats", "Silence", "SingleCharge", "SpendRate", "Velocity", "WatchRule",
]  # fmt: skip

_HOUR_US = 3_600_000_000
_HOUR_S = 3600.0


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
    def average(self, days: int, now_us: int) -> Average: ...
    def day_spent(self, start_us: int, end_us: int) -> int: ...
    def ended(self, window_s: float, now_us: int) -> tuple[int, int]: ...
    def repeats(self, same: str, window_s: float, now_us: int) -> int: ...
    def session_calls(self, session: str) -> int: ...
    def used(self, what: str, name: str) -> int: ...
    def fired_us(self, rule: str, cause: str) -> int | None: ...


class Moment(NamedTuple):
    """What a rule may read: a call that is about to go, or none and the state of things now."""

    history: History
    now_us: int
    currency: str = ""
    time_zone: str = "UTC"
    day_bounds: Callable[[int], tuple[int, int]] | None = None
    session: str = ""
    tool: str = ""
    upstream: str = ""
    destination: str = ""
    same: str = ""
    amount: int = 0
    silent: tuple[tuple[str, str, int], ...] = ()
    """Running calls: (call, tool, microseconds since its last output)."""
    caps: tuple[tuple[str, int, int], ...] = ()
    """Money caps in force: (kind, limit, used)."""


class Finding(NamedTuple):
    """A rule found what it looks for. `cause` tells episodes of one rule apart; empty: the agent as a whole."""

    cause: str
    threshold: str
    observed: str
    numbers: dict[str, int | str | None]
    learning: bool = False


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


@dataclass(frozen=True, slots=True)
class SingleCharge:
    """One call that attempts more (R4)."""

    of: Common
    over_micros: int
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        if moment.amount <= self.over_micros:
            return None
        limit = f"a charge above {format_amount(self.over_micros, moment.currency)}"
        numbers = _numbers(self.over_micros, moment.amount)
        return Finding(moment.tool, limit, f"this call {format_amount(moment.amount)}", numbers)


@dataclass(frozen=True, slots=True)
class Velocity:
    """More money than this in any window."""

    of: Common
    over_micros: int
    window_s: float
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        spent = moment.history.spent(self.window_s, moment.now_us) + moment.amount
        if spent <= self.over_micros:
            return None
        limit = f"{format_amount(self.over_micros, moment.currency)} in {_length(self.window_s)}"
        return Finding("", limit, f"{format_amount(spent)} with this call", _numbers(self.over_micros, spent))


@dataclass(frozen=True, slots=True)
class HourOverAverage:
    """The rolling hour, with this call, above a multiple of an active hour's average."""

    of: Common
    over_permille: int
    days: int
    at_least_micros: int
    history_hours: int
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        spent = moment.history.spent(_HOUR_S, moment.now_us) + moment.amount
        return _over_average(self, moment, spent, "the last hour")


@dataclass(frozen=True, slots=True)
class SpendRate:
    """The rate of a window, scaled to an hour, above a multiple of an active hour's average."""

    of: Common
    over_permille: int
    window_s: float
    days: int
    at_least_micros: int
    history_hours: int
    counting = False

    def ask(self, moment: Moment) -> Finding | None:
        spent = moment.history.spent(self.window_s, moment.now_us)
        hourly = spent * int(_HOUR_S) // int(self.window_s)
        return _over_average(self, moment, hourly, f"the rate of the last {_length(self.window_s)}, in an hour,")


@dataclass(frozen=True, slots=True)
class DayOverDay:
    """The calendar day, with this call, above a share of the day before, which counts as a stated minimum at least (R2)."""

    of: Common
    over_permille: int
    at_least_micros: int
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        if moment.day_bounds is None:
            return None
        start_us, end_us = moment.day_bounds(moment.now_us)
        spent = moment.history.day_spent(start_us, end_us) + moment.amount
        before = moment.history.day_spent(*moment.day_bounds(start_us - 1))
        usual = max(before, self.at_least_micros)
        if spent * 1000 <= usual * self.over_permille:
            return None
        whose = "the day before" if usual == before else "the least that counts as a day"
        limit = f"{_share(self.over_permille)} of {whose}, {format_amount(usual, moment.currency)}"
        cause = f"{local_time(moment.now_us, moment.time_zone):%Y-%m-%d}"
        numbers = _numbers(usual * self.over_permille // 1000, spent)
        return Finding(cause, limit, f"{format_amount(spent)} with this call", numbers)


@dataclass(frozen=True, slots=True)
class CallsPerTask:
    """A session makes its N-plus-first call."""

    of: Common
    over: int
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        calls = moment.history.session_calls(moment.session) + 1
        if calls <= self.over:
            return None
        return Finding(
            moment.session, f"{self.over} calls in a session", f"{calls} with this one", _numbers(self.over, calls)
        )


@dataclass(frozen=True, slots=True)
class Repeats:
    """The same tool with the same arguments, the Nth time within a window."""

    of: Common
    times: int
    window_s: float
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        times = moment.history.repeats(moment.same, self.window_s, moment.now_us) + 1
        if times < self.times:
            return None
        limit = f"the same call {self.times} times in {_length(self.window_s)}"
        return Finding(
            f"{moment.tool} {moment.same[:8]}", limit, f"{moment.tool}, {times} times", _numbers(self.times, times)
        )


@dataclass(frozen=True, slots=True)
class FirstUse:
    """A tool, an upstream or a destination that this agent never used, or that is not among those declared."""

    of: Common
    what: Literal["tool", "upstream", "destination"]
    declared: Callable[[str], bool] | None
    """Where it is given, it says what is known, from the first call on, and nothing is learned."""
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        name: str = getattr(moment, self.what)
        if not name or (self.declared(name) if self.declared else moment.history.used(self.what, name)):
            return None
        known = "among those declared" if self.declared else "used before"
        learning = self.declared is None and self.of.learning(moment)
        numbers: dict[str, int | str | None] = {"what": self.what, "name": name}
        return Finding(f"{self.what} {name}", f"a {self.what} {known}", name, numbers, learning)


@dataclass(frozen=True, slots=True)
class OffHours:
    """A call in an hour of the week that no earlier day of that sort used, nor one beside it."""

    of: Common
    declared: Callable[[int], bool] | None
    """Where hours are given, they say what is usual, from the first call on."""
    counting = True

    def ask(self, moment: Moment) -> Finding | None:
        if self.declared is not None and self.declared(moment.now_us):
            return None
        day, hour = week_hour(moment.now_us, moment.time_zone)
        if self.declared is None and self._usual(moment.history.week, moment.now_us, day, hour):
            return None
        here = local_time(moment.now_us, moment.time_zone)
        observed = f"{DAYS[here.weekday()]} {here:%H:%M}"
        cause = f"{here:%Y-%m-%d}"
        learning = self.declared is None and (self.of.learning(moment) or not moment.history.week_known)
        return Finding(cause, "the agent's hours", observed, {"at": observed}, learning)

    @staticmethod
    def _usual(week: list[int], now_us: int, day: int, hour: int) -> bool:
        """An hour is usual a day after it, or the one before or after it, was used on a day of the same sort.

        Not at once: else what goes on into the evening would make each hour usual for the next.
        """
        before = now_us // _HOUR_US - 24
        return any(0 < week[slot] <= before for slot in _alike(day < 5, hour))


@dataclass(frozen=True, slots=True)
class FailureRate:
    """More than this share of the calls that ended in a window failed, and at least so many."""

    of: Common
    over_permille: int
    window_s: float
    at_least: int
    counting = False

    def ask(self, moment: Moment) -> Finding | None:
        ended, failed = moment.history.ended(self.window_s, moment.now_us)
        if ended < self.at_least or failed * 1000 <= ended * self.over_permille:
            return None
        limit = f"{_share(self.over_permille)} of at least {self.at_least} calls in {_length(self.window_s)}"
        return Finding("", limit, f"{failed} of {ended} failed", {"ended": ended, "failed": failed})


@dataclass(frozen=True, slots=True)
class Silence:
    """A running call gave no output, progress included, for this long."""

    of: Common
    for_s: float
    counting = False

    def ask(self, moment: Moment) -> Finding | None:
        for call, tool, silent_us in moment.silent:
            if silent_us >= int(self.for_s * 1_000_000) and self.of.applies(tool):
                observed = f"{tool}, {silent_us // 1_000_000} s"
                limit = f"no output for {_length(self.for_s)}"
                return Finding(call, limit, observed, {"call": call, "silent_us": silent_us})
        return None


@dataclass(frozen=True, slots=True)
class Forecast:
    """At the rate of the window, a cap is reached within this time."""

    of: Common
    within_s: float
    window_s: float
    at_least_micros: int
    counting = False

    def ask(self, moment: Moment) -> Finding | None:
        spent = moment.history.spent(self.window_s, moment.now_us)
        if spent <= self.at_least_micros:
            return None
        for kind, limit, used in moment.caps:
            left = max(limit - used, 0)
            if left * int(self.window_s) <= spent * int(self.within_s):
                left_s = left * int(self.window_s) // spent
                observed = f"{format_amount(left, moment.currency)} left of the {kind} cap, gone in {left_s} s"
                numbers: dict[str, int | str | None] = {"cap_kind": kind, "left_micros": left, "left_s": left_s}
                return Finding(kind, f"a cap within {_length(self.within_s)}", observed, numbers)
        return None


WatchRule = (
    SingleCharge
    | Velocity
    | HourOverAverage
    | SpendRate
    | DayOverDay
    | CallsPerTask
    | Repeats
    | FirstUse
    | OffHours
    | FailureRate
    | Silence
    | Forecast
)


def _over_average(rule: HourOverAverage | SpendRate, moment: Moment, spent: int, what: str) -> Finding | None:
    if spent <= rule.at_least_micros:
        return None
    average = moment.history.average(rule.days, moment.now_us)
    if spent * 1000 <= average.micros * rule.over_permille:
        return None
    usual = format_amount(average.micros, moment.currency)
    limit = f"{_share(rule.over_permille)} of an active hour's average, {usual}"
    numbers = _numbers(average.micros * rule.over_permille // 1000, spent)
    return Finding("", limit, f"{what} {format_amount(spent)}", numbers, learning=average.active < rule.history_hours)


@lru_cache(maxsize=48)
def _alike(workday: bool, hour: int) -> tuple[int, ...]:
    """The hours of the week that make this one usual: itself and those beside it, on each day of its sort."""
    days = range(5) if workday else range(5, 7)
    return tuple(day * 24 + (hour + beside) % 24 for day in days for beside in (-1, 0, 1))


def _numbers(limit: int, observed: int) -> dict[str, int | str | None]:
    return {"limit": limit, "observed": observed}


def _share(permille: int) -> str:
    return f"{permille / 10:g} %"


def _length(seconds: float) -> str:
    whole = int(seconds)
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole % unit == 0:
            return f"{whole // unit} {name}"
    return f"{whole} s"
