"""Weekly opening hours and calendar days, both by the wall clock of a named zone, so that daylight saving needs no care.

Owns the written form `{"days": "mon-fri", "from": "08:00", "to": "18:00", "time_zone": "Europe/Berlin"}`. Reads no clock.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from haltline.policy.model import Hours

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DAYS", "check_zone", "day_bounds", "hours_from_json", "hours_to_json", "is_open", "local_time", "week_hour"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_KEYS = ("days", "from", "to", "time_zone")
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_QUARTER_US = 900_000_000
_DAY_MINUTES = 24 * 60


def hours_from_json(written: Mapping[str, Any]) -> Hours:
    """Raises ValueError naming the key and what to write."""
    for key in written:
        if key not in _KEYS:
            raise ValueError(f"{key}: hours have no such key; they have {', '.join(_KEYS)}")
    missing = [key for key in _KEYS if key not in written]
    if missing:
        raise ValueError(f"{missing[0]}: missing; hours need {', '.join(_KEYS)}")
    start, end = _minute("from", written["from"]), _minute("to", written["to"])
    if start == _DAY_MINUTES:
        raise ValueError("from: 24:00 is the end of a day; write 00:00 and the next day")
    if start == end:
        raise ValueError("to: the same as from, so never open; for a whole day write 00:00 to 24:00")
    try:
        zone = check_zone(written["time_zone"])
    except ValueError as error:
        raise ValueError(f"time_zone: {error}") from None
    return Hours(_days(written["days"]), start, end, zone)


def hours_to_json(hours: Hours) -> dict[str, str]:
    """The written form again; days as runs, `mon-fri` or `mon,wed`."""
    return {
        "days": _days_text(hours.days),
        "from": _clock_text(hours.start_minute),
        "to": _clock_text(hours.end_minute),
        "time_zone": hours.time_zone,
    }


def is_open(hours: Hours, now_us: int) -> bool:
    """Whether `now_us` lies within. An hour that the clock repeats is open twice, one that it skips never comes."""
    here = local_time(now_us, hours.time_zone)
    minute, today = here.hour * 60 + here.minute, here.weekday()
    if hours.start_minute < hours.end_minute:
        return today in hours.days and hours.start_minute <= minute < hours.end_minute
    yesterday = (today - 1) % 7
    return (today in hours.days and minute >= hours.start_minute) or (
        yesterday in hours.days and minute < hours.end_minute
    )


def local_time(now_us: int, time_zone: str) -> datetime:
    return (_EPOCH + timedelta(microseconds=now_us)).astimezone(_zone(time_zone))


def week_hour(now_us: int, time_zone: str) -> tuple[int, int]:
    """The day of the week, from Monday, and the hour, in a zone."""
    return _week_hour(now_us // _QUARTER_US, time_zone)


@lru_cache(maxsize=64)
def _week_hour(quarter: int, time_zone: str) -> tuple[int, int]:
    """Every offset is a multiple of a quarter of an hour, so no hour begins within one."""
    here = local_time(quarter * _QUARTER_US, time_zone)
    return here.weekday(), here.hour


def day_bounds(now_us: int, time_zone: str) -> tuple[int, int]:
    """The calendar day around `now_us` in a zone (R2): start and end in microseconds, `start <= now_us < end`."""
    today = local_time(now_us, time_zone).date()
    start, end = _midnight_us(today, time_zone), _midnight_us(today + timedelta(days=1), time_zone)
    while now_us >= end:
        # A clock set back across midnight shows the old date again; that hour belongs to the day already begun.
        today += timedelta(days=1)
        start, end = end, _midnight_us(today + timedelta(days=1), time_zone)
    return start, end


def check_zone(name: object) -> str:
    """The name of a time zone that this machine knows. Raises ValueError with a sentence."""
    if isinstance(name, str) and name in _zones():
        return name
    near = get_close_matches(str(name), _zones(), n=1)
    hint = f"did you mean {near[0]}?" if near else "write one such as Europe/Berlin or UTC"
    raise ValueError(f"there is no time zone {name!r}; {hint}")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=512)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _midnight_us(day: date, time_zone: str) -> int:
    """The first instant of a local day, also where the clock skips midnight (the earlier offset gives the same)."""
    return (datetime.combine(day, time(), _zone(time_zone)).astimezone(UTC) - _EPOCH) // _MICROSECOND


def _minute(key: str, text: object) -> int:
    found = _CLOCK.fullmatch(text) if isinstance(text, str) else None
    minute = _DAY_MINUTES + 1 if found is None else int(found[1]) * 60 + int(found[2])
    if minute > _DAY_MINUTES:
        raise ValueError(f'{key}: {text!r} is not a time of day; write it as "08:00", up to "24:00"')
    return minute


def _clock_text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _days(text: object) -> frozenset[int]:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"days: {text!r} names no day; write them as mon-fri or mon,wed,fri")
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        try:
            start, end = DAYS.index(first), DAYS.index(last if dash else first)
        except ValueError:
            raise ValueError(f"days: {part!r} is no day; write them as mon-fri or mon,wed,fri") from None
        days.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return frozenset(days)


def _days_text(days: frozenset[int]) -> str:
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)
