"""Every rule at its threshold and just before it, with a set clock; once per episode; quiet while learning."""

from __future__ import annotations

import pytest

from haltline.policy.watch import CapUse, TaskUse
from haltline.rules.asking import asked
from haltline.signals.facts import Fact
from support.ways import DAY_US, HOUR_US, MONDAY_US, S, Story, busy_days, rule


def test_a_single_charge_fires_above_its_amount_and_not_at_it():
    story, one = Story(), rule("single_charge", over="1.00")
    assert not story.fires(one, MONDAY_US, amount=1_000_000)
    assert story.fires(one, MONDAY_US, amount=1_000_001)


def test_velocity_counts_this_call_and_every_window_of_its_length():
    story, one = Story(), rule("velocity", over="1.00", window="15m")
    story.call(MONDAY_US, 900_000)
    assert not story.fires(one, MONDAY_US + 899 * S, amount=100_000)
    assert story.fires(one, MONDAY_US + 899 * S, amount=100_001)
    assert not story.fires(one, MONDAY_US + 900 * S, amount=1_000_000)  # the window has left it behind


def test_a_late_settlement_corrects_the_window_of_its_admission():
    story, one = Story(), rule("velocity", over="1.00", window="15m")
    story.tell(MONDAY_US, "call.allowed", amount_micros=900_000, same="x")
    assert story.fires(one, MONDAY_US + S, amount=200_000)
    story.tell(MONDAY_US + 2 * S, "call.succeeded", amount_micros=900_000, charged_micros=100_000, duration_us=2 * S)
    assert not story.fires(one, MONDAY_US + 3 * S, amount=900_000)
    assert story.fires(one, MONDAY_US + 3 * S, amount=900_001)


def test_an_hour_is_measured_against_the_active_hours_of_a_week():
    one = rule("hour_over_average", over="3x", at_least="0.10")
    story = Story()
    end_us = busy_days(story, 5, 100_000) + 9 * HOUR_US
    assert not story.fires(one, end_us, amount=300_000)
    assert story.fires(one, end_us, amount=300_001)


def test_with_few_active_hours_an_hour_is_not_measured():
    one = rule("hour_over_average", over="3x", at_least="0.10", active_hours=12)
    tells = rule("hour_over_average", over="3x", at_least="0.10", active_hours=12, learning="alert", do="halt")
    story = Story()
    end_us = busy_days(story, 1, 100_000) + 9 * HOUR_US
    assert not story.fires(one, end_us, amount=5_000_000)
    (found,) = asked(tells, story.now(end_us, amount=5_000_000))
    assert not found.halts


def test_the_rate_of_a_window_is_measured_against_the_week():
    one = rule("spend_rate", over="2x", at_least="0.10", window="30m")
    story = Story()
    end_us = busy_days(story, 5, 100_000) + 9 * HOUR_US
    story.call(end_us, 100_000)
    assert not story.fires(one, end_us + S)
    story.call(end_us + S, 1)
    assert story.fires(one, end_us + 2 * S)


def test_a_day_is_measured_against_the_day_before():
    one = rule("day_over_day", over="150%", at_least="0.50")
    story = Story()
    end_us = busy_days(story, 1, 100_000)
    assert not story.fires(one, end_us, amount=1_200_000)
    assert story.fires(one, end_us, amount=1_200_001)
    assert not story.fires(
        one, end_us + DAY_US, amount=750_000
    )  # the day before that was idle, and counts as the least
    assert story.fires(one, end_us + DAY_US, amount=750_001)


def test_calls_of_a_task_fire_at_the_one_too_many_and_only_there():
    one, story = rule("calls_per_task", over=3, do="halt"), Story()
    assert not story.fires(one, MONDAY_US, tasks=(TaskUse("ses_1", 2, None),))
    assert not story.fires(one, MONDAY_US, tasks=(TaskUse("ses_1", 2, None), TaskUse("root", 2, None)))
    (found,) = asked(one, story.now(MONDAY_US, tasks=(TaskUse("ses_1", 2, None), TaskUse("root", 3, None))))
    assert (found.finding.session, found.finding.observed) == ("root", "4 with this one")


def test_calls_of_a_task_are_measured_by_its_session_s_own_number_where_it_has_one():
    one, story = rule("calls_per_task", share="90%", over=3), Story()
    assert not story.fires(one, MONDAY_US, tasks=(TaskUse("ses_1", 8, 10),))
    assert story.fires(one, MONDAY_US, tasks=(TaskUse("ses_1", 9, 10),))
    assert story.fires(one, MONDAY_US, tasks=(TaskUse("ses_1", 3, None),))
    assert not story.fires(rule("calls_per_task", share="90%"), MONDAY_US, tasks=(TaskUse("ses_1", 999, None),))


def test_each_session_above_is_an_episode_of_its_own():
    one, story = rule("calls_per_task", over=3), Story()
    story.tell(MONDAY_US, "rule.fired", rule="r", cause="ses_1")
    tasks = (TaskUse("ses_1", 3, None), TaskUse("root", 3, None))
    assert [fired.finding.cause for fired in asked(one, story.now(MONDAY_US, tasks=tasks))] == ["root"]


def test_calls_at_once_fire_above_their_number():
    one, story = rule("concurrent_calls", over=3), Story()
    assert not story.fires(one, MONDAY_US, running=2)
    assert story.fires(one, MONDAY_US, running=3)


def test_the_same_call_fires_at_its_nth_time_within_the_window():
    one, story = rule("repeats", times=3, window="10m"), Story()
    story.call(MONDAY_US, same="a")
    story.call(MONDAY_US + S, same="a")
    assert not story.fires(one, MONDAY_US + 2 * S, same="b")
    assert story.fires(one, MONDAY_US + 599 * S, same="a")
    assert not story.fires(one, MONDAY_US + 600 * S, same="a")


def test_failures_fire_above_their_share_with_at_least_so_many_calls():
    one, story = rule("failure_rate", over="10%", window="15m", at_least=10), Story()
    story.call(MONDAY_US, end="call.failed")
    for number in range(8):
        story.call(MONDAY_US + number)
    assert not story.fires(one, MONDAY_US + S)
    story.call(MONDAY_US + 9)
    assert not story.fires(one, MONDAY_US + S)  # one of ten is ten per cent
    story.call(MONDAY_US + 10, end="call.in_doubt")
    assert story.fires(one, MONDAY_US + S)


def test_what_policy_refused_is_no_failure():
    one, story = rule("failure_rate", over="10%", at_least=1), Story()
    for number in range(20):
        story.tell(MONDAY_US + number, "call.denied")
    story.call(MONDAY_US + 30)
    assert not story.fires(one, MONDAY_US + S)


@pytest.mark.parametrize("what", ["tool", "upstream", "destination"])
def test_a_first_use_fires_after_learning_and_never_for_what_was_used(what):
    one, story = rule("first_use", of=what, learn_for="7d", learn_calls=5), Story()
    for day in range(5):
        story.call(MONDAY_US + day * DAY_US, destination="acme")
    assert not story.fires(one, MONDAY_US + 7 * DAY_US - 1, **{what: "new"})
    assert story.fires(one, MONDAY_US + 7 * DAY_US, **{what: "new"})
    old = {"tool": "pay__charge", "upstream": "pay", "destination": "acme"}
    assert not story.fires(one, MONDAY_US + 7 * DAY_US, **{what: old[what]})


def test_declared_destinations_count_from_the_first_call():
    one, story = rule("first_use", of="destination", declared=["acme", "*.example.org"]), Story()
    assert not story.fires(one, MONDAY_US, destination="a.example.org")
    assert story.fires(one, MONDAY_US, destination="a.example.org.evil.net")


def test_a_call_that_reaches_several_is_declared_where_each_is_and_known_where_each_was_used():
    one, story = rule("first_use", of="destination", declared=["acme", "*.example.org"]), Story()
    assert not story.fires(one, MONDAY_US, destination="acme, a.example.org")
    assert story.fires(one, MONDAY_US, destination="mallory.net, a.example.org")
    assert story.fires(one, MONDAY_US, destination="none named")
    learned = rule("first_use", of="destination", learn_for="1s", learn_calls=1)
    story.call(MONDAY_US, destination="acme")
    story.call(MONDAY_US, destination="b.example.org")
    assert not story.fires(learned, MONDAY_US + DAY_US, destination="b.example.org, acme")
    assert story.fires(learned, MONDAY_US + DAY_US, destination="b.example.org, mallory.net")


def test_off_hours_fire_in_an_hour_that_no_day_of_its_sort_has_used():
    one, story = rule("off_hours", learn_for="5d", learn_calls=5), Story()
    end_us = busy_days(story, 5, 0)
    assert not story.fires(one, end_us + 2 * DAY_US + 17 * HOUR_US)  # beside a usual hour, on a Monday
    assert story.fires(one, end_us + 2 * DAY_US + 18 * HOUR_US)
    assert story.fires(one, end_us + 9 * HOUR_US)  # a Saturday


def test_an_hour_of_use_makes_the_next_usual_a_day_later_and_not_before():
    one, story = rule("off_hours", learn_for="5d", learn_calls=5), Story()
    end_us = busy_days(story, 12, 0) + 2 * DAY_US  # a Monday
    story.call(end_us + 17 * HOUR_US)
    assert story.fires(one, end_us + 18 * HOUR_US)
    assert not story.fires(one, end_us + DAY_US + 18 * HOUR_US)


def test_declared_hours_count_from_the_first_call_to_the_microsecond():
    one, story = rule("off_hours", hours={"days": "mon-fri", "from": "08:00", "to": "18:00"}), Story()
    assert story.fires(one, MONDAY_US + 8 * HOUR_US - 1)
    assert not story.fires(one, MONDAY_US + 8 * HOUR_US)
    assert not story.fires(one, MONDAY_US + 18 * HOUR_US - 1)
    assert story.fires(one, MONDAY_US + 18 * HOUR_US)


def test_silence_fires_at_its_length_and_not_a_microsecond_before():
    one, story = rule("silence", **{"for": "5m"}), Story()
    assert not story.fires(one, MONDAY_US, silent=(("call_1", "pay__charge", 300 * S - 1),))
    assert story.fires(one, MONDAY_US, silent=(("call_1", "pay__charge", 300 * S),))


@pytest.mark.parametrize("kind", ["hour", "day"])
def test_a_forecast_fires_when_the_rate_reaches_a_cap_of_the_agent_in_time(kind):
    one, story = rule("forecast", within="30m", window="15m", at_least="0.10"), Story()
    story.call(MONDAY_US, 900_000)
    now = {"amount": 100_000}
    assert not story.fires(one, MONDAY_US + S, caps=(CapUse(kind, "", 5_000_000, 2_899_999),), **now)
    assert story.fires(one, MONDAY_US + S, caps=(CapUse(kind, "", 5_000_000, 2_900_000),), **now)


def test_a_forecast_of_a_task_looks_at_what_its_own_session_and_those_below_it_spent():
    one, story = rule("forecast", within="30m", window="15m", at_least="0.10"), Story()
    story.call(MONDAY_US, 4_000_000, session="other")
    facts = {"task": [0, 0], "calls": [0, 0]}
    above = {"root": {"task": [500_000, 0], "calls": [0, 0]}}
    story.call(MONDAY_US, 1_000_000, facts=facts, above=above)
    cap = CapUse("task", "ses_1", 3_500_000, 1_000_000)  # 1.1 in the window, 2.4 left
    assert not story.fires(one, MONDAY_US + S, caps=(cap,), amount=100_000)
    assert story.fires(one, MONDAY_US + S, caps=(cap._replace(limit=3_300_000),), amount=100_000)
    root = CapUse("task", "root", 3_800_000, 1_500_000)
    (found,) = asked(one, story.now(MONDAY_US + S, caps=(cap, root), amount=100_000))
    assert (found.finding.cause, found.finding.session) == ("task root", "root")


def test_a_forecast_of_a_number_of_calls_counts_them():
    one, story = rule("forecast", within="30m", window="15m", at_least="0.10", at_least_calls=5), Story()
    for number in range(9):
        story.call(MONDAY_US + number, facts={"task": [0, 0], "calls": [number, 0]})
    assert not story.fires(one, MONDAY_US + S, caps=(CapUse("calls", "ses_1", 31, 9),))  # ten, and 21 left
    assert story.fires(one, MONDAY_US + S, caps=(CapUse("calls", "ses_1", 30, 9),))
    few = rule("forecast", within="30m", window="15m", at_least="0.10", at_least_calls=10)
    assert not story.fires(few, MONDAY_US + S, caps=(CapUse("calls", "ses_1", 30, 9),))


def test_silence_of_a_session_fires_at_its_length_once_until_something_is_heard_again():
    one, story = rule("silence", **{"for": "5m", "of": "session", "quiet": "1m"}), Story()
    assert not story.fires(one, MONDAY_US, silent_tasks=(("ses_1", 300 * S - 1),))
    assert story.fires(one, MONDAY_US, silent_tasks=(("ses_1", 300 * S),))
    story.tell(MONDAY_US, "rule.fired", rule="r", cause="ses_1")
    assert not story.fires(one, MONDAY_US + HOUR_US, silent_tasks=(("ses_1", 300 * S + HOUR_US),))
    assert story.fires(one, MONDAY_US + HOUR_US, silent_tasks=(("ses_1", 301 * S),))


# asked again when a call ended


def test_a_call_that_cost_more_than_was_held_is_measured_by_what_it_cost():
    single, story = rule("single_charge", over="1.00"), Story()
    assert not story.fires(single, MONDAY_US, amount=1_000_000, admitted_us=MONDAY_US)
    assert story.fires(single, MONDAY_US, amount=1_000_001, admitted_us=MONDAY_US)


def test_velocity_at_an_end_is_that_of_the_worst_window_around_its_admission():
    one, story = rule("velocity", over="1.00", window="15m"), Story()
    story.call(MONDAY_US, 400_000)
    story.tell(MONDAY_US + 600 * S, "call.allowed", amount_micros=200_000, same="x")
    story.call(MONDAY_US + 1400 * S, 400_000)
    end = {"amount_micros": 200_000, "admitted_us": MONDAY_US + 600 * S}
    story.tell(MONDAY_US + 1800 * S, "call.succeeded", charged_micros=600_000, **end)
    now = {"amount": 600_000, "admitted_us": MONDAY_US + 600 * S}
    assert not story.fires(one, MONDAY_US + 1800 * S, **now)  # 1.00 up to 600 s, and 1.00 up to 1400 s
    story.tell(
        MONDAY_US + 1800 * S,
        "call.resolved",
        amount_micros=600_000,
        charged_micros=600_001,
        admitted_us=now["admitted_us"],
    )
    assert story.fires(one, MONDAY_US + 1800 * S, **now)


def test_a_day_at_an_end_is_that_of_its_admission():
    one, story = rule("day_over_day", over="150%", at_least="1.00"), Story()
    story.call(MONDAY_US + HOUR_US, 1_400_000)
    late_us = MONDAY_US + DAY_US - S
    story.tell(late_us, "call.allowed", amount_micros=100_000, same="x")
    end = {"amount_micros": 100_000, "admitted_us": late_us}
    story.tell(late_us + 2 * S, "call.succeeded", charged_micros=100_001, **end)
    (found,) = asked(one, story.now(late_us + 2 * S, amount=100_001, admitted_us=late_us))
    assert (found.finding.cause, found.finding.numbers) == ("2024-10-07", {"limit": 1_500_000, "observed": 1_500_001})


def test_an_hour_at_an_end_is_the_worst_one_around_its_admission():
    one, story = rule("hour_over_average", over="3x", at_least="0.10"), Story()
    at_us = busy_days(story, 5, 100_000) + 9 * HOUR_US
    story.tell(at_us, "call.allowed", amount_micros=100_000, same="x")
    story.tell(at_us + S, "call.succeeded", amount_micros=100_000, charged_micros=300_000, admitted_us=at_us)
    assert not story.fires(one, at_us + S, amount=300_000, admitted_us=at_us)
    story.tell(at_us + S, "call.resolved", amount_micros=300_000, charged_micros=300_001, admitted_us=at_us)
    assert story.fires(one, at_us + S, amount=300_001, admitted_us=at_us)


def test_an_episode_is_told_once_in_its_quiet_period():
    one, story = rule("velocity", over="1.00", quiet="1h"), Story()
    assert story.fires(one, MONDAY_US, amount=2_000_000)
    story.tell(MONDAY_US, "rule.fired", rule="r", cause="")
    assert not story.fires(one, MONDAY_US + HOUR_US - 1, amount=2_000_000)
    assert story.fires(one, MONDAY_US + HOUR_US, amount=2_000_000)


def test_after_a_resume_speed_counts_anew_and_what_it_was_for_is_new_no_more():
    fast, new, story = (
        rule("velocity", over="1.00"),
        rule("first_use", of="tool", learn_for="1s", learn_calls=1),
        Story(),
    )
    story.call(MONDAY_US, 900_000)
    story.tell(MONDAY_US + S, "rule.fired", rule="r", cause="tool pay__refund")
    story.tell(MONDAY_US + 2 * S, "agent.resumed")
    assert not story.fires(fast, MONDAY_US + 3 * S, amount=1_000_000)
    assert not story.fires(new, MONDAY_US + DAY_US, tool="pay__refund")


def test_a_rule_that_breaks_fires_and_one_that_halts_does_so():
    one, story = rule("velocity", over="1.00", do="halt"), Story()
    story.state.exact = None  # type: ignore[assignment]  # what no history is
    (found,) = asked(one, story.now(MONDAY_US, amount=1))
    assert found.halts


def test_in_audit_mode_a_rule_neither_halts_nor_tells():
    one = rule("velocity", over="1.00", do="halt", mode="audit")
    (found,) = asked(one, Story().now(MONDAY_US, amount=2_000_000))
    assert (found.halts, found.tells) == (False, False)


def test_a_drill_s_calls_and_its_resume_say_nothing_of_an_agent_s_ways():
    story, velocity, loop = Story(), rule("velocity", over="1.00", window="15m"), rule("repeats", times=3, window="10m")
    story.call(MONDAY_US, 900_000)
    for number in range(5):
        fact = {"tool": "haltline-drill__tick", "upstream": "haltline-drill"}
        story.state.fold(Fact.of(10 + number, MONDAY_US + S, "call.allowed", fact, {"same": "z"}), "UTC")
    assert story.state.calls == 1
    assert not story.fires(loop, MONDAY_US + 2 * S, same="z")
    story.tell(MONDAY_US + 3 * S, "session.resumed", drill=True)
    assert story.fires(velocity, MONDAY_US + 4 * S, amount=100_001)
    story.tell(MONDAY_US + 5 * S, "session.resumed")
    assert not story.fires(velocity, MONDAY_US + 6 * S, amount=100_001)
