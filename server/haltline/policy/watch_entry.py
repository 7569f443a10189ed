"""The shape of a rule over an agent's ways in a policy file, one model per kind, and what it compiles to."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from haltline.policy import watch_money, watch_ways
from haltline.policy.caps import parse_count
from haltline.policy.durations import parse_duration
from haltline.policy.fields import Closed, Count, Duration, HoursEntry, Pattern, text_schema
from haltline.policy.hours import is_open
from haltline.policy.patterns import any_of
from haltline.policy.price_entry import Amount
from haltline.policy.watch import Common

if TYPE_CHECKING:
    from haltline.policy.watch import WatchRule

__all__ = ["WatchEntry", "compile_watch"]

_SHARE = re.compile(r"([0-9]{1,5})(?:\.([0-9]))?( ?%|x)")
_EXACT_S = 3600.0
_MOST_TIMES = 128
_MOST_ENDED = 2048
_WHOLE = 1000
_HOUR_S = 3600.0


def _share(text: object) -> int:
    """`150%` or `3x`, in thousandths."""
    found = _SHARE.fullmatch(text) if isinstance(text, str) else None
    tenths = 0 if found is None else int(found[1]) * 10 + int(found[2] or 0)
    if found is None or tenths == 0:
        raise ValueError(f"{text!r} is no share; write it with its unit, such as 150% or 3x")
    return tenths * (100 if found[3] == "x" else 1)


def _window(text: object) -> float:
    seconds = parse_duration(text)
    if seconds > _EXACT_S:
        raise ValueError(f"{text} is too long a window; one that is exact to the moment has an hour at most")
    return seconds


def _times(value: object) -> int:
    times = parse_count(value)
    if not 2 <= times <= _MOST_TIMES:
        raise ValueError(f"{times} is out of range; a call repeats from 2 to {_MOST_TIMES} times")
    return times


def _part(text: object) -> int:
    permille = _share(text)
    if permille >= _WHOLE:
        raise ValueError(f"{text}: at its own cap a session stops by itself; write less than 100%, such as 90%")
    return permille


def _ended(value: object) -> int:
    count = parse_count(value)
    if count > _MOST_ENDED:
        raise ValueError(f"{count} is too many; of an agent's calls the last {_MOST_ENDED} that ended are counted")
    return count


def _destination(text: object) -> str:
    if isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable():
        return text
    raise ValueError(f"{text!r:.80} is no name; write one that may be used, with * for any run of characters")


Times = Annotated[int, BeforeValidator(_times), WithJsonSchema({"type": "integer", "minimum": 2, "maximum": 128})]
Window = Annotated[float, BeforeValidator(_window), text_schema(r"^[0-9]+[smhd]$", "15m")]
Share = Annotated[int, BeforeValidator(_share), text_schema(r"^[0-9]+(\.[0-9])?( ?%|x)$", "150%")]
Part = Annotated[int, BeforeValidator(_part), text_schema(r"^[0-9]{1,2}(\.[0-9])? ?%$", "90%")]
Ended = Annotated[int, BeforeValidator(_ended), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 2048})]
Named = Annotated[str, BeforeValidator(_destination), WithJsonSchema({"type": "string"})]


class Entry(Closed, ABC):
    """What every rule says."""

    description: str | None = None
    do: Literal["alert", "halt"] = Field(default="alert", description="halt also alerts.")
    severity: Literal["critical", "warning", "info"] | None = Field(
        default=None, description="Of its alert; critical for halt and warning for alert where left out."
    )
    tiers: list[str] | None = Field(default=None, min_length=1, description="Only agents of these tiers.")
    agents: list[Named] | None = Field(default=None, min_length=1, description="Only these agents, by handle.")
    tools: list[Pattern] | None = Field(default=None, min_length=1, description="Only calls of these tools.")
    quiet: Duration = Field(default=_HOUR_S, description="One episode is told once in so long.")
    mode: Literal["enforce", "audit"] | None = Field(default=None, description="audit: recorded, never tells or halts.")
    running: Literal["finish", "cancel"] = Field(default="finish", description="What a halt does to calls that run.")
    learning: Literal["quiet", "alert"] = Field(
        default="quiet", description="With too little history it never halts; alert: it tells."
    )
    learn_for: Duration = Field(default=7 * 86_400.0, description="An agent is learning for so long ...")
    learn_calls: Count = Field(default=30, description="... and until it made so many calls.")

    @abstractmethod
    def rule(self, of: Common) -> WatchRule:
        """What it compiles to."""


class SingleChargeEntry(Entry):
    kind: Literal["single_charge"]
    over: Amount

    def rule(self, of: Common) -> WatchRule:
        return watch_money.SingleCharge(of, self.over)


class VelocityEntry(Entry):
    kind: Literal["velocity"]
    over: Amount
    window: Window = 900.0

    def rule(self, of: Common) -> WatchRule:
        return watch_money.Velocity(of, self.over, self.window)


class AveragedEntry(Entry):
    over: Share
    days: Literal[7, 28] = 7
    at_least: Amount = Field(description="Less money than this is never unusual.")
    active_hours: Count = Field(default=12, description="Learning until so many hours of those days were active.")


class HourOverAverageEntry(AveragedEntry):
    kind: Literal["hour_over_average"]

    def rule(self, of: Common) -> WatchRule:
        return watch_money.HourOverAverage(of, self.over, self.days, self.at_least, self.active_hours)


class SpendRateEntry(AveragedEntry):
    kind: Literal["spend_rate"]
    window: Window = _EXACT_S

    def rule(self, of: Common) -> WatchRule:
        return watch_money.SpendRate(of, self.over, self.window, self.days, self.at_least, self.active_hours)


class DayOverDayEntry(Entry):
    kind: Literal["day_over_day"]
    over: Share
    at_least: Amount = Field(description="A day before that cost less, or nothing, counts as this much.")

    def rule(self, of: Common) -> WatchRule:
        return watch_money.DayOverDay(of, self.over, self.at_least)


class CallsPerTaskEntry(Entry):
    kind: Literal["calls_per_task"]
    share: Part | None = Field(default=None, description="Of the number of calls that a session's grant gives: 90%.")
    over: Count | None = Field(
        default=None, description="Calls; of sessions without such a number, where share is given."
    )

    @model_validator(mode="after")
    def _says_how_many(self) -> Self:
        if self.share is None and self.over is None:
            raise ValueError("how many is missing; write over: 1000, or share: 90% of what a session's grant gives")
        return self

    def rule(self, of: Common) -> WatchRule:
        return watch_ways.CallsPerTask(of, self.over, self.share)


class ConcurrentCallsEntry(Entry):
    kind: Literal["concurrent_calls"]
    over: Count

    def rule(self, of: Common) -> WatchRule:
        return watch_ways.ConcurrentCalls(of, self.over)


class RepeatsEntry(Entry):
    kind: Literal["repeats"]
    times: Times
    window: Window = 600.0

    def rule(self, of: Common) -> WatchRule:
        return watch_ways.Repeats(of, self.times, self.window)


class FirstUseEntry(Entry):
    kind: Literal["first_use"]
    of_what: Literal["tool", "upstream", "destination"] = Field(alias="of")
    declared: list[Named] | None = Field(
        default=None, min_length=1, description="What may be used, with * for any run; counts from the first call on."
    )

    def rule(self, of: Common) -> WatchRule:
        return watch_ways.FirstUse(of, self.of_what, None if self.declared is None else _any_named(self.declared))


class OffHoursEntry(Entry):
    kind: Literal["off_hours"]
    hours: HoursEntry | None = Field(default=None, description="Left out: an hour of the week that was never used.")

    def rule(self, of: Common) -> WatchRule:
        if self.hours is None:
            return watch_ways.OffHours(of, None)
        hours = self.hours.hours(of.time_zone)
        return watch_ways.OffHours(of, lambda now_us: is_open(hours, now_us))


class FailureRateEntry(Entry):
    kind: Literal["failure_rate"]
    over: Share
    window: Window = 900.0
    at_least: Ended = 10

    def rule(self, of: Common) -> WatchRule:
        return watch_ways.FailureRate(of, self.over, self.window, self.at_least)


class SilenceEntry(Entry):
    kind: Literal["silence"]
    for_: Duration = Field(alias="for")
    of_what: Literal["call", "session"] = Field(
        default="call", alias="of", description="A call that runs, or a session that goes on."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.of_what == "session" and self.tools is not None:
            raise ValueError("a session is silent as a whole; leave tools out, or write of: call")
        return self

    def rule(self, of: Common) -> WatchRule:
        return watch_ways.Silence(of, self.for_) if self.of_what == "call" else watch_ways.TaskSilence(of, self.for_)


class ForecastEntry(Entry):
    kind: Literal["forecast"]
    within: Duration
    window: Window = 900.0
    at_least: Amount = Field(description="With less than this in the window nothing is foretold.")
    at_least_calls: Count = Field(default=10, description="Nor, of a cap on calls, with fewer than these.")
    caps: list[Literal["task", "hour", "day", "calls"]] | None = Field(
        default=None, min_length=1, description="Of these alone; of all where left out."
    )

    def rule(self, of: Common) -> WatchRule:
        caps = frozenset(self.caps or ("task", "hour", "day", "calls"))
        return watch_money.Forecast(of, self.within, self.window, self.at_least, self.at_least_calls, caps)


WatchEntry = Annotated[
    SingleChargeEntry
    | VelocityEntry
    | HourOverAverageEntry
    | SpendRateEntry
    | DayOverDayEntry
    | CallsPerTaskEntry
    | ConcurrentCallsEntry
    | RepeatsEntry
    | FirstUseEntry
    | OffHoursEntry
    | FailureRateEntry
    | SilenceEntry
    | ForecastEntry,
    Field(discriminator="kind"),
]


def compile_watch(name: str, where: str, entry: Entry, *, audit: bool, time_zone: str) -> WatchRule:
    """`audit`: the mode of the policy, where the rule says none of its own (R29)."""
    common = Common(
        name=name,
        where=where,
        do=entry.do,
        severity=entry.severity or ("critical" if entry.do == "halt" else "warning"),
        quiet_s=entry.quiet,
        time_zone=time_zone,
        audit=audit if entry.mode is None else entry.mode == "audit",
        cancels=entry.running == "cancel",
        tells_while_learning=entry.learning == "alert",
        learn_s=entry.learn_for,
        learn_calls=entry.learn_calls,
        applies=any_of(("*",) if entry.tools is None else tuple(entry.tools)),
    )
    return entry.rule(common)


def _any_named(names: list[str]) -> Callable[[str], bool]:
    """`*` is no run over `,` or `;`: what reaches several at once is not known for its last one's sake."""
    pattern = re.compile("|".join(r"[^,;\r\n]*".join(map(re.escape, name.split("*"))) for name in names))
    return lambda name: pattern.fullmatch(name) is not None
