"""An agent's ways in words: what was normal, and what is unusual now. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.clock import iso
from haltline.policy.hours import DAYS, local_time
from haltline.policy.money import format_amount
from haltline.policy.watch_ways import usual_hour
from haltline.signals.state import HOUR_US

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from haltline.policy.watch import CapUse
    from haltline.signals.state import AgentSignals

__all__ = ["unusual", "usual"]

_NAMED = 5
_DAY_US = 24 * HOUR_US
_LEARNED_US = 7 * _DAY_US
_RATHER_MORE = 2
_FAILING_PER_CENT = 10
_MOST_TOLD = 10
_RATE_S = 900
_SOON_S = 3600


def usual(state: AgentSignals, now_us: int, currency: str, time_zone: str) -> list[str]:
    """Hours, tools, destinations, money; one line each."""
    if not state.calls:
        return ["no call yet"]
    told = [f"{state.calls} calls since {iso(state.first_us)[:10]}, {state.refused} refused"]
    if now_us - state.first_us < _LEARNED_US:
        told[0] += "; less than a week, so most rules still learn what is usual"
    hours = f"weekdays {_hours(state.week, range(5))}, weekends {_hours(state.week, range(5, 7))} ({time_zone})"
    told.append(hours if state.week_known else f"hours of use are being counted anew for {time_zone}; so far {hours}")
    told.append(f"tools: {_names(state.tools)}")
    if state.destinations:
        told.append(f"destinations: {_names(state.destinations)}")
    if state.at_once > 1:
        told.append(f"up to {state.at_once} calls at once")
    average = state.average(7, now_us)
    if average.active:
        hourly = format_amount(average.micros, currency)
        told.append(f"{hourly} in an active hour, of which the last 7 days had {average.active}")
    month = state.average(28, now_us)
    if month.active > average.active:
        told.append(f"{format_amount(month.micros, currency)} in an active hour over 28 days")
    daily, days = _days(state, now_us, range(28))
    if days:
        told.append(f"{format_amount(sum(daily) // days, currency)} in an active day, {days} in the last 28 days")
    return told


def unusual(
    state: AgentSignals, now_us: int, currency: str, time_zone: str = "UTC", caps: Iterable[CapUse] = ()
) -> list[str]:
    """What stands out in the last hour and today, which caps are near, and which rules fired in the last day."""
    told = list(_soon(state, now_us, caps))
    spent, average = state.spent(3600, now_us), state.average(7, now_us)
    if average.active and spent > average.micros * _RATHER_MORE:
        times = spent / max(average.micros, 1)
        told.append(f"the last hour cost {format_amount(spent, currency)}, {times:.1f} times an active hour's average")
    daily, days = _days(state, now_us, range(1, 28))
    (today,), _ = _days(state, now_us, range(1))
    if days and today * days > sum(daily) * _RATHER_MORE:
        times = today * days / max(sum(daily), 1)
        told.append(f"today cost {format_amount(today, currency)}, {times:.1f} times an active day's average")
    learned = state.week_known and state.last_us - state.first_us > _LEARNED_US
    if learned and now_us - state.last_us < HOUR_US and not usual_hour(state.week, state.last_us, time_zone):
        at = local_time(state.last_us, time_zone)
        told.append(f"it was at work on {DAYS[at.weekday()]} at {at:%H:%M}, an hour that no such day had used")
    ended, failed = state.ended(3600, now_us)
    if failed * 100 > ended * _FAILING_PER_CENT:
        told.append(f"{failed} of {ended} calls failed in the last hour")
    for key, at_us in reversed(state.fired.items()):
        rule, _, cause = key.partition("|")
        if now_us - at_us < _DAY_US and not cause.startswith("audit:"):
            about = f" ({cause})" if cause else ""
            told.append(f"rule {rule}{about} fired at {iso(at_us)[:19]}Z")
    return told[:_MOST_TOLD]


def _days(state: AgentSignals, now_us: int, back: range) -> tuple[list[int], int]:
    """Money of each day so many days back, and how many of them were active."""
    today = now_us // _DAY_US
    daily = [sum(state.hours.between((today - day) * 24, (today - day) * 24 + 24)) for day in back]
    return daily, len(daily) - daily.count(0)


def _soon(state: AgentSignals, now_us: int, caps: Iterable[CapUse]) -> Iterator[str]:
    """At the rate of the last minutes, each cap of the agent that is reached within the hour."""
    recent = state.spent(_RATE_S, now_us)
    for cap in caps:
        left_s = max(cap.limit - cap.used, 0) * _RATE_S // recent if recent > 0 else _SOON_S
        if not cap.session and left_s < _SOON_S:
            yield f"at the rate of the last {_RATE_S // 60} min its {cap.kind} cap is reached in {left_s // 60} min"


def _names(known: dict[str, int]) -> str:
    most = sorted(known.items(), key=lambda one: (-one[1], one[0]))
    told = ", ".join(f"{name} ({times})" for name, times in most[:_NAMED])
    return told if len(most) <= _NAMED else f"{told} and {len(most) - _NAMED} more"


def _hours(week: list[int], days: range) -> str:
    """`09-17, 22-23`: the hours of the day in which something was called."""
    used = [hour for hour in range(24) if any(week[day * 24 + hour] for day in days)]
    if not used:
        return "never"
    runs: list[list[int]] = []
    for hour in used:
        if runs and runs[-1][1] == hour:
            runs[-1][1] = hour + 1
        else:
            runs.append([hour, hour + 1])
    return ", ".join(f"{start:02d}-{end:02d}" for start, end in runs)
