"""Caps: two written forms, and the strictest of several levels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.policy.caps import caps_from_json, caps_to_json, effective, parse_caps
from haltline.policy.model import CapKind, Caps, Rate

amounts = st.none() | st.integers(min_value=0, max_value=10**15)
counts = st.none() | st.integers(min_value=1, max_value=10**6)
rates = st.none() | st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 60, 90, 3600]))
caps = st.builds(Caps, amounts, amounts, amounts, amounts, counts, counts, rates)


def test_the_asked_form_is_read():
    asked = {
        "per_call": "1",
        "task": "0.50",
        "hour": "2.00",
        "day": "5.00",
        "calls": 20,
        "concurrent": 2,
        "rate": "5/90s",
    }
    assert parse_caps(asked) == Caps(1_000_000, 500_000, 2_000_000, 5_000_000, 20, 2, Rate(5, 90))


@pytest.mark.parametrize("text", ["1/second", "5/minute", "10/hour", "100/day", "5/90s"])
def test_a_rate_reads_back_as_written(text):
    assert str(parse_caps({"rate": text}).rate) == text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tasks": "1.00"}, "tasks: there is no such cap; did you mean task?"),
        ({"task": 1}, 'task: write the amount in quotes, "1"'),
        ({"day": "-1"}, "day: '-1' is negative"),
        ({"calls": "20"}, "calls: a whole number is wanted"),
        ({"calls": True}, "calls: a whole number is wanted"),
        ({"calls": 0}, "calls: 0 is out of range"),
        ({"concurrent": -1}, "concurrent: -1 is out of range"),
        ({"rate": "5/min"}, "rate: '5/min' is not a rate"),
        ({"rate": "0/minute"}, "rate: a rate of 0 would refuse every call"),
        ({"rate": "1/99999s"}, "rate: a rate's window is from 1 second to a day"),
        ({"rate": "1/0s"}, "rate: a rate's window is from 1 second to a day"),
        ({"zzz": 1}, "the caps are per_call, task"),
    ],
)
def test_a_cap_that_cannot_be_is_refused_naming_its_key(asked, said):
    with pytest.raises(ValueError) as refused:
        parse_caps(asked)
    assert said in str(refused.value)


@given(caps)
def test_stored_caps_come_back_as_they_were(one):
    assert caps_from_json(caps_to_json(one)) == one


def test_stored_caps_with_an_unknown_key_are_refused_rather_than_lost():
    with pytest.raises(ValueError, match="task_cents"):
        caps_from_json({"task_cents": 50})


@pytest.mark.promise("P2")
@given(caps, caps, caps)
def test_no_level_ever_widens_another(tier, agent, session):
    both = {
        (cap.kind, cap.window_s): cap.limit
        for cap in effective([(tier, "tier"), (agent, "agent"), (session, "session")])
    }
    for level in (tier, agent, session):
        for alone in effective([(level, "alone")]):
            assert both[alone.kind, alone.window_s] <= alone.limit
    wanted = {(cap.kind, cap.window_s) for level in (tier, agent, session) for cap in effective([(level, "")])}
    assert set(both) == wanted


@given(caps, caps)
def test_the_strictest_does_not_depend_on_the_order_of_levels(one, other):
    limits = [
        [(cap.kind, cap.limit, cap.window_s) for cap in effective(levels)]
        for levels in ([(one, "a"), (other, "b")], [(other, "b"), (one, "a")])
    ]
    assert limits[0] == limits[1]


def test_each_cap_says_which_level_set_it():
    found = effective(
        [
            (Caps(task_micros=5, day_micros=9), {"task": "tiers.yaml:3", "day": "tiers.yaml:4"}),
            (Caps(task_micros=4), "session"),
        ]
    )
    assert [(cap.kind, cap.limit, cap.where) for cap in found] == [
        (CapKind.TASK, 4, "session"),
        (CapKind.DAY, 9, "tiers.yaml:4"),
    ]


def test_rates_over_different_windows_all_hold():
    found = effective(
        [(Caps(rate=Rate(5, 60)), "tier"), (Caps(rate=Rate(100, 3600)), "agent"), (Caps(rate=Rate(3, 60)), "session")]
    )
    assert [(cap.limit, cap.window_s, cap.where) for cap in found] == [(3, 60, "session"), (100, 3600, "agent")]
