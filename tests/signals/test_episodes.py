"""For every kind of rule: an episode is told once in its quiet period and again after it; whoever is learning is never halted."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from haltline.policy.watch import CapUse, TaskUse
from haltline.policy.watch_entry import WatchEntry
from haltline.rules.asking import asked
from support.ways import HOUR_US, MONDAY_US, S, Story, rule

KNOWN = {"learn_for": "1s", "learn_calls": 1}
FINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "single_charge": ({"over": "1.00"}, {"amount": 2_000_000}),
    "velocity": ({"over": "1.00"}, {"amount": 2_000_000}),
    "hour_over_average": ({"over": "2x", "at_least": "0.01", "active_hours": 1}, {"amount": 9_000_000}),
    "spend_rate": ({"over": "1x", "at_least": "0.01", "active_hours": 1}, {}),
    "day_over_day": ({"over": "150%", "at_least": "0.01"}, {"amount": 9_000_000}),
    "calls_per_task": ({"over": 1}, {"tasks": (TaskUse("ses_1", 1, None),)}),
    "concurrent_calls": ({"over": 1}, {"running": 1}),
    "repeats": ({"times": 2}, {"same": "now"}),
    "first_use": ({"of": "tool", **KNOWN}, {"tool": "new"}),
    "off_hours": (KNOWN, {}),
    "failure_rate": ({"over": "10%", "at_least": 1}, {}),
    "silence": ({"for": "1m"}, {"silent": (("call_1", "pay__charge", 60 * S),)}),
    "forecast": ({"within": "30m", "at_least": "0.01"}, {"amount": 20_000, "caps": (CapUse("day", "", 1, 1),)}),
}
"""Of each kind, what a rule says and what of a moment it fires on, after the history below."""
LEARN = ("hour_over_average", "spend_rate", "first_use", "off_hours")


def told() -> tuple[Story, int]:
    """A Monday before dawn with some money, then an evening of much of it with a failure and a call that comes again."""
    story = Story()
    for number in range(5):
        story.call(MONDAY_US + number * HOUR_US, 10_000, same=f"{number}")
    now_us = MONDAY_US + 20 * HOUR_US
    story.call(now_us, 100_000, same="now", end="call.failed")
    return story, now_us


def test_every_kind_of_rule_is_here():
    assert set(FINDS) == {
        entry.model_fields["kind"].annotation.__args__[0] for entry in get_args(get_args(WatchEntry)[0])
    }


@pytest.mark.parametrize("kind", FINDS)
def test_an_episode_is_told_once_in_its_quiet_period_whatever_the_kind(kind):
    (said, call), (story, now_us) = FINDS[kind], told()
    one = rule(kind, **said, quiet="10s")
    (found,) = asked(one, story.now(now_us, **call))
    story.tell(now_us, "rule.fired", rule="r", cause=found.finding.cause)
    assert asked(one, story.now(now_us + 10 * S - 1, **call)) == []
    assert len(asked(one, story.now(now_us + 10 * S, **call))) == 1


@pytest.mark.parametrize("kind", LEARN)
def test_who_is_learning_is_left_alone_or_told_of_and_never_halted(kind):
    (said, call), (story, now_us) = FINDS[kind], told()
    young = {name: value for name, value in said.items() if name not in {"learn_for", "learn_calls", "active_hours"}}
    assert asked(rule(kind, **young, do="halt"), story.now(now_us, **call)) == []
    (found,) = asked(rule(kind, **young, do="halt", learning="alert"), story.now(now_us, **call))
    assert not found.halts
    assert found.finding.cause.startswith("learning:")


@pytest.mark.parametrize("kind", FINDS)
def test_in_audit_mode_no_kind_halts_or_tells(kind):
    (said, call), (story, now_us) = FINDS[kind], told()
    (found,) = asked(rule(kind, **said, do="halt", mode="audit"), story.now(now_us, **call))
    assert (found.halts, found.tells) == (False, False)
