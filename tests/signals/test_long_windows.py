"""Baselines of 7 and 28 days, and whole days, through the days of the year that have 23 and 25 hours (R2)."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from haltline.policy.hours import day_bounds
from haltline.signals.facts import Fact
from haltline.signals.state import HOUR_US, AgentSignals

ZONE = "Europe/Berlin"
CENT = 10_000


def midnight_us(day: str, after: int = 0) -> int:
    there = datetime.fromisoformat(day) + timedelta(days=after)
    return int(there.replace(tzinfo=ZoneInfo(ZONE)).timestamp()) * 1_000_000


def spending(since_us: int, until_us: int, price: int = CENT) -> AgentSignals:
    """One call in each hour that passes."""
    state = AgentSignals(zone=ZONE)
    named = {"session": "s", "tool": "t", "upstream": "u"}
    for seq, at_us in enumerate(range(since_us, until_us, HOUR_US), 1):
        body = {"amount_micros": price, "same": "a", "destination": "d"}
        state.fold(Fact.of(seq, at_us, "call.allowed", named, body), ZONE)
    return state


@pytest.mark.promise("R2")
@pytest.mark.parametrize(("odd", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_the_day_and_the_day_before_hold_the_hours_that_they_have(odd: str, hours: int) -> None:
    for after in (0, 1):
        state = spending(midnight_us(odd, -2), midnight_us(odd, after + 1))
        lengths = [state.day_spent(*day_bounds(midnight_us(odd, day), ZONE)) // CENT for day in (after - 1, after)]
        assert lengths == ([24, hours] if after == 0 else [hours, 24])


@pytest.mark.promise("R2")
@pytest.mark.parametrize("odd", ["2026-03-29", "2026-10-25"])
def test_a_baseline_of_days_is_of_24_hours_each_and_leaves_out_what_may_still_be_settled(odd: str) -> None:
    state = spending(midnight_us(odd, -29), midnight_us(odd, 2))
    for days in (7, 28):
        found = state.average(days, midnight_us(odd, 2))
        assert (found.active, found.micros) == (days * 24 - 1, CENT)


@pytest.mark.promise("R2")
@pytest.mark.parametrize("odd", ["2026-03-29", "2026-10-25"])
def test_what_was_spent_28_days_ago_leaves_the_baseline_after_28_times_24_hours(odd: str) -> None:
    begin = midnight_us(odd, -1)
    state = spending(begin, begin + HOUR_US)
    length_us = 28 * 24 * HOUR_US
    assert state.average(28, begin + length_us).active == 1
    assert state.average(28, begin + length_us + HOUR_US).active == 0
