"""Rules about money: one charge, a window, an hour, a day, and how soon a cap is reached. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.policy.hours import local_time
from haltline.policy.money import format_amount
from haltline.policy.watch import Finding, length, share

if TYPE_CHECKING:
    from haltline.policy.watch import CapUse, Common, Moment

__all__ = ["DayOverDay", "Forecast", "HourOverAverage", "SingleCharge", "SpendRate", "Velocity"]

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class SingleCharge:
    """One call that attempts more (R4), or that cost more."""

    of: Common
    over_micros: int
    counting = True
    at_end: Literal["cost"] = "cost"
    each: Literal[""] = ""

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
    at_end: Literal["cost"] = "cost"
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        spent = moment.spent(self.window_s)
        if spent <= self.over_micros:
            return None
        limit = f"{format_amount(self.over_micros, moment.currency)} in {length(self.window_s)}"
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
    at_end: Literal["cost"] = "cost"
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        what = "the last hour" if moment.admitted_us is None else "the hour of this call"
        return _over_average(self, moment, moment.spent(_HOUR_S), what)


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
    at_end: Literal[""] = ""
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        spent = moment.history.spent(self.window_s, moment.now_us)
        hourly = spent * int(_HOUR_S) // int(self.window_s)
        return _over_average(self, moment, hourly, f"the rate of the last {length(self.window_s)}, in an hour,")


@dataclass(frozen=True, slots=True)
class DayOverDay:
    """The calendar day, with this call, above a share of the day before, which counts as a stated minimum at least (R2)."""

    of: Common
    over_permille: int
    at_least_micros: int
    counting = True
    at_end: Literal["cost"] = "cost"
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        if moment.day_bounds is None:
            return None
        at_us = moment.now_us if moment.admitted_us is None else moment.admitted_us
        start_us, end_us = moment.day_bounds(at_us)
        spent = moment.history.day_spent(start_us, end_us) + moment.adds
        before = moment.history.day_spent(*moment.day_bounds(start_us - 1))
        usual = max(before, self.at_least_micros)
        if spent * 1000 <= usual * self.over_permille:
            return None
        whose = "the day before" if usual == before else "the least that counts as a day"
        limit = f"{share(self.over_permille)} of {whose}, {format_amount(usual, moment.currency)}"
        cause = f"{local_time(at_us, moment.time_zone):%Y-%m-%d}"
        numbers = _numbers(usual * self.over_permille // 1000, spent)
        return Finding(cause, limit, f"{format_amount(spent)} with this call", numbers)


@dataclass(frozen=True, slots=True)
class Forecast:
    """At the rate of the window, a cap is reached within this time: of task, hour or day, or on the number of calls."""

    of: Common
    within_s: float
    window_s: float
    at_least_micros: int
    at_least_calls: int
    kinds: frozenset[str]
    counting = True
    at_end: Literal["cost"] = "cost"
    each: Literal["caps"] = "caps"

    def ask(self, moment: Moment) -> Finding | None:
        for cap in moment.caps:
            calls = cap.kind == "calls"
            this = (1 if moment.admitted_us is None else 0) if calls else moment.adds
            recent = self._recent(moment, cap, cap.used + this, this)
            left = max(cap.limit - cap.used - this, 0)
            if cap.kind not in self.kinds or recent <= (self.at_least_calls if calls else self.at_least_micros):
                continue
            if left * int(self.window_s) <= recent * int(self.within_s):
                left_s = left * int(self.window_s) // recent
                amount = f"{left} calls" if calls else format_amount(left, moment.currency)
                observed = f"{amount} left of the {cap.kind} cap, gone in {left_s} s"
                numbers: dict[str, int | str | None] = {
                    "cap_kind": cap.kind,
                    "left_calls" if calls else "left_micros": left,
                    "left_s": left_s,
                }
                cause = f"{cap.kind} {cap.session}".strip()
                return Finding(cause, f"a cap within {length(self.within_s)}", observed, numbers, session=cap.session)
        return None

    def _recent(self, moment: Moment, cap: CapUse, used: int, this: int) -> int:
        """What went into the cap in the window, this call with it."""
        if not cap.session:
            return moment.history.spent(self.window_s, moment.now_us) + this
        before = moment.history.task_before(cap.session, moment.now_us - int(self.window_s * 1_000_000))
        if before is None:
            return this
        return used - before[1 if cap.kind == "calls" else 0]


def _over_average(rule: HourOverAverage | SpendRate, moment: Moment, spent: int, what: str) -> Finding | None:
    if spent <= rule.at_least_micros:
        return None
    average = moment.history.average(rule.days, moment.now_us)
    if spent * 1000 <= average.micros * rule.over_permille:
        return None
    usual = format_amount(average.micros, moment.currency)
    limit = f"{share(rule.over_permille)} of an active hour's average, {usual}"
    numbers = _numbers(average.micros * rule.over_permille // 1000, spent)
    return Finding("", limit, f"{what} {format_amount(spent)}", numbers, learning=average.active < rule.history_hours)


def _numbers(limit: int, observed: int) -> dict[str, int | str | None]:
    return {"limit": limit, "observed": observed}
