"""Weekly hours and calendar days by the wall clock of a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.policy.durations import parse_duration
from haltline.policy.hours import day_bounds, hours_from_json, hours_to_json, is_open

BERLIN = "Europe/Berlin"
HOUR_US = 3_600_000_000


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(local.astimezone(UTC).timestamp()) * 1_000_000


def hours(days: str, start: str, end: str, zone: str = BERLIN):
    return hours_from_json({"days": days, "from": start, "to": end, "time_zone": zone})


@pytest.mark.parametrize(
    ("days", "canonical"),
    [
        ("mon-fri", "mon-fri"),
        ("Mon, WED,fri", "mon,wed,fri"),
        ("sat-mon", "mon,sat-sun"),
        ("sun", "sun"),
        ("mon-sun", "mon-sun"),
    ],
)
def test_days_are_runs_and_lists(days, canonical):
    written = hours_to_json(hours(days, "08:00", "24:00"))
    assert written == {"days": canonical, "from": "08:00", "to": "24:00", "time_zone": BERLIN}
    assert hours_from_json(written) == hours(days, "08:00", "24:00")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"days": "mon-fry"}, "days: 'mon-fry' is no day"),
        ({"days": ""}, "days: '' names no day"),
        ({"days": None}, "days: None names no day"),
        ({"from": "8:00"}, "from: '8:00' is not a time of day"),
        ({"from": 480}, "from: 480 is not a time of day"),
        ({"to": "24:01"}, "to: '24:01' is not a time of day"),
        ({"from": "24:00"}, "from: 24:00 is the end of a day"),
        ({"to": "08:00"}, "to: the same as from, so never open"),
        ({"time_zone": "Europe/Berln"}, "time_zone: there is no time zone 'Europe/Berln'; did you mean Europe/Berlin?"),
        ({"time_zone": "../etc/passwd"}, "time_zone: there is no time zone"),
        ({"time_zone": "Europe"}, "time_zone: there is no time zone"),
        ({"until": "18:00"}, "until: hours have no such key"),
    ],
)
def test_hours_that_cannot_be_are_refused_naming_the_key(change, said):
    with pytest.raises(ValueError) as refused:
        hours_from_json({"days": "mon", "from": "08:00", "to": "18:00", "time_zone": BERLIN} | change)
    assert said in str(refused.value)


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="time_zone: missing"):
        hours_from_json({"days": "mon", "from": "08:00", "to": "18:00"})


def test_the_end_is_not_included():
    office = hours("mon-fri", "08:00", "18:00")
    assert [is_open(office, at(f"2025-11-25T{clock}", BERLIN)) for clock in ("07:59", "08:00", "17:59", "18:00")] == [
        False,
        True,
        True,
        False,
    ]
    assert not is_open(office, at("2025-11-29T12:00", BERLIN))


def test_a_span_past_midnight_belongs_to_the_day_on_which_it_starts():
    night = hours("fri", "22:00", "06:00")
    open_at = {
        clock: is_open(night, at(clock, BERLIN))
        for clock in (
            "2025-11-28T05:00",
            "2025-11-28T21:59",
            "2025-11-28T22:00",
            "2025-11-29T05:59",
            "2025-11-29T06:00",
            "2025-11-29T22:30",
        )
    }
    assert list(open_at.values()) == [False, False, True, True, False, False]


def test_a_night_when_the_clock_is_set_forward_closes_by_the_clock_on_the_wall():
    # 2026-03-29: 02:00 becomes 03:00, so the night from 22:00 to 06:00 has seven hours.
    night = hours("sat", "22:00", "06:00")
    begin = at("2026-03-28T22:00", BERLIN)
    assert [is_open(night, begin + step * HOUR_US) for step in (-1, 0, 6, 7)] == [False, True, True, False]


def test_a_night_when_the_clock_is_set_back_is_an_hour_longer():
    # 2026-10-25: 03:00 becomes 02:00.
    night = hours("sat", "22:00", "06:00")
    begin = at("2026-10-24T22:00", BERLIN)
    assert [is_open(night, begin + step * HOUR_US) for step in (-1, 0, 8, 9)] == [False, True, True, False]


def test_an_hour_that_the_clock_repeats_is_open_twice():
    early = hours("sun", "02:00", "03:00")
    assert is_open(early, at("2026-10-25T02:30", BERLIN, fold=0))
    assert is_open(early, at("2026-10-25T02:30", BERLIN, fold=1))


def test_an_hour_that_the_clock_skips_never_comes():
    skipped = hours("sun", "02:00", "03:00")
    day = at("2026-03-29T00:00", BERLIN)
    assert not any(is_open(skipped, day + minute * 60_000_000) for minute in range(23 * 60))


@pytest.mark.promise("R2")
@pytest.mark.parametrize(
    ("now", "zone", "length_h"),
    [
        ("2025-11-25T12:00", BERLIN, 24),
        ("2026-03-29T12:00", BERLIN, 23),
        ("2026-10-25T12:00", BERLIN, 25),
        ("2026-10-25T12:00", "UTC", 24),
    ],
)
def test_a_day_is_the_calendar_day_of_the_zone(now, zone, length_h):
    start, end = day_bounds(at(now, zone), zone)
    assert start == at(f"{now[:10]}T00:00", zone)
    assert end - start == length_h * HOUR_US


@pytest.mark.promise("R2")
@pytest.mark.parametrize(
    "zone",
    [
        BERLIN,
        "America/Sao_Paulo",
        "Africa/Cairo",
        "America/Havana",
        "Pacific/Apia",
        "America/St_Johns",
        "Asia/Kathmandu",
    ],
)
@given(moment=st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1)))  # noqa: DTZ001 - UTC, given below
def test_days_join_without_gap_or_overlap(zone, moment):
    now_us = round(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000
    start, end = day_bounds(now_us, zone)
    assert start <= now_us < end
    assert day_bounds(end - 1, zone) == (start, end)
    assert day_bounds(end, zone)[0] == end
    assert timedelta(hours=20) <= timedelta(microseconds=end - start) <= timedelta(hours=48)


def test_a_day_whose_midnight_the_clock_skips_begins_at_the_skip():
    # America/Sao_Paulo, 2017-10-15: 00:00 became 01:00.
    start, end = day_bounds(at("2017-10-15T12:00", "America/Sao_Paulo"), "America/Sao_Paulo")
    assert start == at("2017-10-15T03:00")
    assert end - start == 23 * HOUR_US


def test_a_clock_set_back_across_midnight_does_not_begin_the_old_day_again():
    # America/St_Johns, 2010-11-07: 00:01 became 23:01 of the day before.
    zone = "America/St_Johns"
    again = at("2010-11-06T23:30", zone, fold=1)
    start, end = day_bounds(again, zone)
    assert start <= again < end
    assert day_bounds(at("2010-11-06T12:00", zone), zone)[1] == start


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28_800), ("7d", 604_800)])
def test_a_length_of_time_is_a_number_and_a_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "30 m", "1h30m", "-5m", "0s", "999d", 30, None, "5w"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(ValueError, match="30m|366d"):
        parse_duration(text)
