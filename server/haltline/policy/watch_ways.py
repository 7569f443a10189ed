"""Rules about what an agent does and when: how many calls, which, at what hours, how they end, whether they speak. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from haltline.policy.hours import DAYS, local_time, week_hour
from haltline.policy.watch import Finding, length, share

if TYPE_CHECKING:
    from haltline.policy.watch import Common, Moment

__all__ = [
    "CallsPerTask",
    "ConcurrentCalls",
    "FailureRate",
    "FirstUse",
    "OffHours",
    "Repeats",
    "Silence",
    "TaskSilence",
    "usual_hour",
]

_HOUR_US = 3_600_000_000
_BETWEEN_NAMES = re.compile(r"\s*[,;]\s*")


@dataclass(frozen=True, slots=True)
class CallsPerTask:
    """A session, with those below it, makes more calls than a share of what its grant gives, or than a number."""

    of: Common
    over: int | None
    """For sessions whose grant gives no number, or where `share_permille` is None."""
    share_permille: int | None
    counting = True
    at_end: Literal[""] = ""
    each: Literal["tasks"] = "tasks"

    def ask(self, moment: Moment) -> Finding | None:
        for task in moment.tasks:
            limit, calls = self._limit(task.cap), task.calls + 1
            if limit is not None and calls > limit:
                of = "in a session" if limit == self.over else f"of the {task.cap} that its session may make"
                numbers: dict[str, int | str | None] = {"limit": limit, "observed": calls}
                return Finding(
                    task.session, f"{limit} calls {of}", f"{calls} with this one", numbers, False, task.session
                )
        return None

    def _limit(self, cap: int | None) -> int | None:
        return self.over if cap is None or self.share_permille is None else cap * self.share_permille // 1000


@dataclass(frozen=True, slots=True)
class ConcurrentCalls:
    """More calls of one agent than this run at once."""

    of: Common
    over: int
    counting = True
    at_end: Literal[""] = ""
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        running = moment.running + 1
        if running <= self.over:
            return None
        numbers: dict[str, int | str | None] = {"limit": self.over, "observed": running}
        return Finding("", f"{self.over} calls at once", f"{running} with this one", numbers)


@dataclass(frozen=True, slots=True)
class Repeats:
    """The same tool with the same arguments, the Nth time within a window."""

    of: Common
    times: int
    window_s: float
    counting = True
    at_end: Literal[""] = ""
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        times = moment.history.repeats(moment.same, self.window_s, moment.now_us) + 1
        if times < self.times:
            return None
        limit = f"the same call {self.times} times in {length(self.window_s)}"
        numbers: dict[str, int | str | None] = {"limit": self.times, "observed": times}
        return Finding(f"{moment.tool} {moment.same[:8]}", limit, f"{moment.tool}, {times} times", numbers)


@dataclass(frozen=True, slots=True)
class FirstUse:
    """A tool, an upstream or a destination that this agent never used, or that is not among those declared."""

    of: Common
    what: Literal["tool", "upstream", "destination"]
    declared: Callable[[str], bool] | None
    """Where it is given, it says what is known, from the first call on, and nothing is learned."""
    counting = True
    at_end: Literal[""] = ""
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        name: str = getattr(moment, self.what)
        if not name or self._known(moment, name):
            return None
        known = "among those declared" if self.declared else "used before"
        learning = self.declared is None and self.of.learning(moment)
        numbers: dict[str, int | str | None] = {"what": self.what, "name": name}
        return Finding(f"{self.what} {name}", f"a {self.what} {known}", name, numbers, learning)

    def _known(self, moment: Moment, name: str) -> bool:
        """A call that reaches several at once is known where it is as a whole, or each of them is by itself."""
        known = self.declared or (lambda one: bool(moment.history.used(self.what, one)))
        return known(name) or all(known(one) for one in _BETWEEN_NAMES.split(name))


@dataclass(frozen=True, slots=True)
class OffHours:
    """A call in an hour of the week that no earlier day of that sort used, nor one beside it."""

    of: Common
    declared: Callable[[int], bool] | None
    """Where hours are given, they say what is usual, from the first call on."""
    counting = True
    at_end: Literal[""] = ""
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        if self.declared is not None and self.declared(moment.now_us):
            return None
        if self.declared is None and usual_hour(moment.history.week, moment.now_us, moment.time_zone):
            return None
        learning = self.declared is None and (self.of.learning(moment) or not moment.history.week_known)
        if learning and not self.of.tells_while_learning:
            return None  # before anything is put in words: it is so for each call of a new agent
        here = local_time(moment.now_us, moment.time_zone)
        observed = f"{DAYS[here.weekday()]} {here:%H:%M}"
        cause = f"{here:%Y-%m-%d}"
        return Finding(cause, "the agent's hours", observed, {"at": observed}, learning)


@dataclass(frozen=True, slots=True)
class FailureRate:
    """More than this share of the calls that ended in a window failed, and at least so many."""

    of: Common
    over_permille: int
    window_s: float
    at_least: int
    counting = False
    at_end: Literal["failure"] = "failure"
    each: Literal[""] = ""

    def ask(self, moment: Moment) -> Finding | None:
        ended, failed = moment.history.ended(self.window_s, moment.now_us)
        if ended < self.at_least or failed * 1000 <= ended * self.over_permille:
            return None
        limit = f"{share(self.over_permille)} of at least {self.at_least} calls in {length(self.window_s)}"
        return Finding("", limit, f"{failed} of {ended} failed", {"ended": ended, "failed": failed})


@dataclass(frozen=True, slots=True)
class Silence:
    """A running call gave no output, progress included, for this long."""

    of: Common
    for_s: float
    counting = False
    at_end: Literal[""] = ""
    each: Literal["silent"] = "silent"

    def ask(self, moment: Moment) -> Finding | None:
        for call, tool, silent_us in moment.silent:
            if silent_us >= int(self.for_s * 1_000_000) and self.of.applies(tool):
                observed = f"{tool}, {silent_us // 1_000_000} s"
                limit = f"no output for {length(self.for_s)}"
                return Finding(call, limit, observed, {"call": call, "silent_us": silent_us})
        return None


@dataclass(frozen=True, slots=True)
class TaskSilence:
    """Of a session that goes on nothing was heard for this long: no call begun or ended, no output of one that runs."""

    of: Common
    for_s: float
    counting = False
    at_end: Literal[""] = ""
    each: Literal["silent_tasks"] = "silent_tasks"

    def ask(self, moment: Moment) -> Finding | None:
        for session, silent_us in moment.silent_tasks:
            told_us = moment.history.fired_us(self.of.name, f"{'audit:' if self.of.audit else ''}{session}")
            told = told_us is not None and moment.now_us - told_us <= silent_us
            if silent_us >= int(self.for_s * 1_000_000) and not told:
                observed = f"{silent_us // 1_000_000} s since anything of it was heard"
                numbers: dict[str, int | str | None] = {"session": session, "silent_us": silent_us}
                limit = f"a sign of life within {length(self.for_s)}"
                return Finding(session, limit, observed, numbers, session=session)
        return None


def usual_hour(week: list[int], now_us: int, time_zone: str) -> bool:
    """An hour is usual a day after it, or the one before or after it, was used on a day of the same sort.

    Not at once: else what goes on into the evening would make each hour usual for the next.
    """
    day, hour = week_hour(now_us, time_zone)
    before = now_us // _HOUR_US - 24
    return any(0 < week[slot] <= before for slot in _alike(day < 5, hour))


@lru_cache(maxsize=48)
def _alike(workday: bool, hour: int) -> tuple[int, ...]:
    """The hours of the week that make this one usual: itself and those beside it, on each day of its sort."""
    days = range(5) if workday else range(5, 7)
    return tuple(day * 24 + (hour + beside) % 24 for day in days for beside in (-1, 0, 1))
