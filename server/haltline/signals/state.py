"""One agent's ways: windows, roll-ups and what was ever used, folded fact by fact in the order of the log (R8). Pure.

Each fact costs the same however long the history is. Money counts by the time of admission, through hold and settlement
(R1); a late settlement corrects the buckets of its admission. Knows no rule, no table and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from haltline.policy.hours import week_hour
from haltline.policy.watch import Average
from haltline.signals.buckets import Buckets
from haltline.signals.rolling import Rolling

if TYPE_CHECKING:
    from haltline.signals.facts import Fact

__all__ = ["HOUR_US", "WINDOW_US", "AgentSignals", "hour_of_week"]

_SECOND_US = 1_000_000
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
QUARTER_US = 15 * MINUTE_US
WINDOW_US = HOUR_US
"""The longest window that is exact to the microsecond; longer ones are sums of whole hours."""
HOURS_KEPT = 28 * 24 + 1
"""Of 28 days and the hour that runs."""
QUARTERS_KEPT = 3 * 96
"""Enough for today and the day before in any zone: every offset is a multiple of a quarter of an hour."""
MOST_EXACT = 4096
"""Beyond so many in the exact window, what comes within the same second is kept as one."""
MOST_ENDED = 2048
MOST_NAMES = 2000
MOST_SESSIONS = 256
MOST_TASKS = 64
MOST_TASK = 64
MOST_SAME = 64
MOST_TIMES = 128
MOST_FIRED = 256
MOST_DAYS = 4


@dataclass(slots=True)
class AgentSignals:
    """All that is remembered of one agent, bounded. Times are microseconds, hours and quarters count from the epoch."""

    seq: int = 0
    first_us: int = 0
    last_us: int = 0
    calls: int = 0
    refused: int = 0
    at_once: int = 0
    """The most calls that ever ran at once."""
    hours: Buckets = field(default_factory=lambda: Buckets(HOURS_KEPT))
    """Money by hour of admission."""
    quarters: Buckets = field(default_factory=lambda: Buckets(QUARTERS_KEPT))
    """Money by quarter of an hour of admission."""
    exact: Rolling = field(default_factory=Rolling)
    """Money and calls of the last hour, by admission."""
    ended_in: Rolling = field(default_factory=Rolling)
    """Failures and calls of the last hour, by end."""
    week: list[int] = field(default_factory=lambda: [0] * 168)
    """By hour of the week in the policy's zone, from Monday 00:00: the hour since the epoch that used it first; 0: none."""
    zone: str = ""
    """The zone that the week is in."""
    week_after: int = 0
    """Where the zone was changed: the week has only what came after this event, until the rest is `counted` again."""
    tools: dict[str, int] = field(default_factory=dict)
    upstreams: dict[str, int] = field(default_factory=dict)
    destinations: dict[str, int] = field(default_factory=dict)
    """How often each was used, the one used longest ago first."""
    sessions: dict[str, int] = field(default_factory=dict)
    """When a call of each session began or ended last."""
    tasks: dict[str, list[list[int]]] = field(default_factory=dict)
    """By session, those below it counted in: [at, money used, calls made] before its calls of the last hour."""
    same: dict[str, list[int]] = field(default_factory=dict)
    """When each of the latest different calls was made."""
    fired: dict[str, int] = field(default_factory=dict)
    """When each rule and cause fired last: `rule|cause`."""
    _average: dict[int, tuple[int, Average]] = field(default_factory=dict)
    _days: dict[tuple[int, int], int] = field(default_factory=dict)

    def fold(self, fact: Fact, time_zone: str) -> None:
        if time_zone != self.zone:
            self.rezone(time_zone)
        self.seq = fact.seq
        if fact.drill:
            return
        if fact.kind == "call.allowed":
            self._admitted(fact, time_zone)
        elif fact.kind == "call.denied":
            self.refused += 1
        elif fact.kind == "rule.fired":
            _touch(self.fired, f"{fact.rule}|{fact.cause}", fact.at_us, MOST_FIRED)
        elif fact.kind.endswith(".resumed"):
            self._resumed(fact)
        else:
            self._ended(fact)

    # the hours of the week, all that depends on the zone

    def rezone(self, time_zone: str) -> None:
        """Count the hours of the week in another zone from now on; those of what was folded before are not known then."""
        if self.zone and self.calls and time_zone != self.zone:
            self.week = [0] * 168
            self.week_after = self.seq
        self.zone = time_zone

    def counted(self, week: list[int]) -> None:
        """Add the hours of the week of all events up to `week_after`, in the zone that is in force."""
        self.week = [before or since for before, since in zip(week, self.week, strict=True)]
        self.week_after = 0

    @property
    def week_known(self) -> bool:
        """Not while hours are being counted anew after a change of the zone."""
        return self.week_after == 0

    # what a fact changes

    def _admitted(self, fact: Fact, time_zone: str) -> None:
        now_us = fact.at_us
        self.first_us = self.first_us or now_us
        self.last_us = now_us
        counted = 1 if fact.same else 0
        self._money(now_us, fact.amount)
        self._exactly(now_us, fact.amount, counted)
        if fact.session:
            _touch(self.sessions, fact.session, now_us, MOST_SESSIONS)
        for session, used, calls in fact.tasks:
            self._task(session, [now_us, used, calls])
        if not counted:
            return
        self.calls += 1
        self.at_once = max(self.at_once, fact.at_once)
        slot = hour_of_week(now_us, time_zone)
        self.week[slot] = self.week[slot] or now_us // HOUR_US
        for known, name in (
            (self.tools, fact.tool),
            (self.upstreams, fact.upstream),
            (self.destinations, fact.destination),
        ):
            if name:
                _touch(known, name, known.get(name, 0) + 1, MOST_NAMES)
        times = self.same.get(fact.same, [])
        times.append(now_us)
        del times[:-MOST_TIMES]
        _touch(self.same, fact.same, times, MOST_SAME)

    def _ended(self, fact: Fact) -> None:
        """An end replaces what was held by what it costs; a call in doubt goes on counting in full."""
        change = fact.charged - fact.amount
        if change:
            self._money(fact.admitted_us, change)
            entry = self._exact_at(fact.admitted_us)
            if entry is not None:
                self.exact.change(entry, change, 0)
        if fact.kind == "call.resolved":
            return
        if fact.session in self.sessions:
            self.sessions[fact.session] = fact.at_us
        self.ended_in.let_go(fact.at_us - WINDOW_US)
        if len(self.ended_in) == MOST_ENDED:
            self.ended_in.let_go_of_oldest()
        self.ended_in.add(fact.at_us, int(fact.failed), 1)

    def _resumed(self, fact: Fact) -> None:
        """A person looked: what repeats and how fast money goes counts anew, and what they resumed it for is new no more."""
        self.exact = Rolling()
        self.same.clear()
        self.ended_in = Rolling()
        self.tasks.clear()
        for session in (fact.session,) if fact.session else self.sessions:
            if session in self.sessions:
                self.sessions[session] = fact.at_us
        for key in self.fired:
            what, _, name = key.partition("|")[2].partition(" ")
            known = self._known(what)
            if known is not None and name not in known:
                _touch(known, name, 1, MOST_NAMES)
        self.fired = {key: at_us for key, at_us in self.fired.items() if not key.endswith("|")}

    def _known(self, what: str) -> dict[str, int] | None:
        return {"tool": self.tools, "upstream": self.upstreams, "destination": self.destinations}.get(what)

    def _task(self, session: str, before: list[int]) -> None:
        """Keep every one while they are few, and the first of each minute where they are many."""
        kept = self.tasks.get(session, [])
        while kept and kept[0][0] <= before[0] - WINDOW_US:
            del kept[0]
        if len(kept) >= MOST_TASK:
            first = [[-MINUTE_US], *kept]
            kept = [one for earlier, one in pairwise(first) if one[0] // MINUTE_US > earlier[0] // MINUTE_US]
        kept.append(before)
        _touch(self.tasks, session, kept, MOST_TASKS)

    def _money(self, at_us: int, change: int) -> None:
        self.hours.add(at_us // HOUR_US, change)
        self.quarters.add(at_us // QUARTER_US, change)
        if self._average and at_us // HOUR_US < self.last_us // HOUR_US:
            self._average.clear()
        for day in self._days:
            if day[0] <= at_us < day[1]:
                self._days[day] += change

    def _exactly(self, now_us: int, amount: int, counted: int) -> None:
        self.exact.let_go(now_us - WINDOW_US)
        crowded = len(self.exact) >= MOST_EXACT
        entry = self.exact.newest(now_us, _SECOND_US) if crowded else None
        if entry is None:
            self.exact.add(now_us, amount, counted)
        else:
            self.exact.change(entry, amount, counted)

    def _exact_at(self, admitted_us: int) -> int | None:
        """The entry of an admission, or of the second it was in."""
        return self.exact.newest(admitted_us, _SECOND_US)

    # what rules ask (policy.watch.History)

    def spent(self, window_s: float, now_us: int) -> int:
        return self.exact.sums(window_s, now_us)[0]

    def most_spent(self, window_s: float, at_us: int) -> int:
        """In any window of this length that holds an admission of the last hour; 0 where it is not kept any more."""
        return 0 if self._exact_at(at_us) is None else self.exact.most(window_s, at_us)

    def calls_in(self, window_s: float, now_us: int) -> int:
        return self.exact.sums(window_s, now_us)[1]

    def average(self, days: int, now_us: int) -> Average:
        """Money in an active hour of the last `days` days, the hour that runs and the one before left out."""
        this = now_us // HOUR_US
        known = self._average.get(days)
        if known is None or known[0] != this:
            money = self.hours.between(this - days * 24, this - 1)
            active = len(money) - money.count(0)
            known = self._average[days] = (this, Average(sum(money) // max(active, 1), active))
        return known[1]

    def day_spent(self, start_us: int, end_us: int) -> int:
        known = self._days.get((start_us, end_us))
        if known is None:
            if len(self._days) >= MOST_DAYS:
                self._days.clear()
            known = sum(self.quarters.between(start_us // QUARTER_US, end_us // QUARTER_US))
            self._days[start_us, end_us] = known
        return known

    def ended(self, window_s: float, now_us: int) -> tuple[int, int]:
        """How many calls ended in a window of an hour at most, and how many of them failed."""
        failed, ended = self.ended_in.sums(window_s, now_us)
        return ended, failed

    def repeats(self, same: str, window_s: float, now_us: int) -> int:
        since_us = now_us - int(window_s * 1_000_000)
        return sum(at_us > since_us for at_us in self.same.get(same, ()))

    def task_before(self, session: str, since_us: int) -> tuple[int, int] | None:
        """Money and calls of a session before its first call since then; None where none is remembered."""
        found = next((one for one in self.tasks.get(session, ()) if one[0] > since_us), None)
        return None if found is None else (found[1], found[2])

    def used(self, what: str, name: str) -> int:
        return (self._known(what) or {}).get(name, 0)

    def fired_us(self, rule: str, cause: str) -> int | None:
        return self.fired.get(f"{rule}|{cause}")

    # stored form

    def stored(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}
        own = {name: kept[name].stored() for name in ("hours", "quarters", "exact", "ended_in")}
        return {**kept, **own}

    @staticmethod
    def loaded(stored: dict[str, Any]) -> AgentSignals:
        own = {
            "hours": Buckets(HOURS_KEPT).load(stored["hours"]),
            "quarters": Buckets(QUARTERS_KEPT).load(stored["quarters"]),
            "exact": Rolling.loaded(stored["exact"]),
            "ended_in": Rolling.loaded(stored["ended_in"]),
        }
        return AgentSignals(**{**stored, **own})


def hour_of_week(now_us: int, time_zone: str) -> int:
    day, hour = week_hour(now_us, time_zone)
    return day * 24 + hour


def _touch(known: dict[str, Any], name: str, value: Any, most: int) -> None:
    """Set it as the latest, and let go of the one touched longest ago where there are too many."""
    known.pop(name, None)
    known[name] = value
    if len(known) > most:
        del known[next(iter(known))]
