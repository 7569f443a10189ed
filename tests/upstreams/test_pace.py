"""Whoever sends too much waits: its share of the loop's time, and how many messages that answer nothing are put up with."""

from __future__ import annotations

import pytest

from haltline.upstreams.pace import AT_ONCE_S, MESSAGES_AT_ONCE, MESSAGES_PER_S, SHARE, Pace, Unasked


class Hands:
    """A clock's two hands, moved by the test: the time on the wall, and this thread's work."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.worked_s = 1.0

    def now(self) -> float:
        return self.now_s

    def worked(self) -> float:
        return self.worked_s


def turn(pace: Pace, hands: Hands, seconds: float) -> float:
    begun = pace.worked()
    hands.now_s += seconds
    hands.worked_s += seconds
    return pace.rest_s(begun)


@pytest.mark.promise("P5")
def test_a_little_at_once_needs_no_rest() -> None:
    hands = Hands()
    pace = Pace(hands.now, hands.worked)
    assert turn(pace, hands, AT_ONCE_S) == 0
    hands.now_s += AT_ONCE_S / SHARE
    assert turn(pace, hands, AT_ONCE_S) == 0, "and after a while it may again"


@pytest.mark.promise("P5")
def test_a_flood_gets_its_share_of_the_time_and_no_more() -> None:
    hands = Hands()
    pace = Pace(hands.now, hands.worked)
    begun, worked = hands.now_s, hands.worked_s
    for _ in range(1_000):
        hands.now_s += turn(pace, hands, 0.0005)
    share = (hands.worked_s - worked) / (hands.now_s - begun)
    assert share == pytest.approx(SHARE, rel=0.05)


@pytest.mark.promise("P5")
def test_waiting_for_the_interpreter_is_not_held_against_it() -> None:
    hands = Hands()
    pace = Pace(hands.now, hands.worked)
    begun = pace.worked()
    hands.now_s += 10 * AT_ONCE_S
    assert pace.rest_s(begun) == 0


@pytest.mark.promise("P5")
def test_too_many_messages_are_those_beyond_a_store_that_fills_with_time() -> None:
    hands = Hands()
    unasked = Unasked(hands.now)
    assert not any(unasked.too_many() for _ in range(MESSAGES_AT_ONCE))
    assert unasked.too_many()
    hands.now_s += 2 / MESSAGES_PER_S
    assert not unasked.too_many()
    assert unasked.too_many()


@pytest.mark.promise("P5")
def test_a_long_call_may_tell_much_more_than_a_short_one() -> None:
    hands = Hands()
    unasked = Unasked(hands.now)
    for _ in range(10 * MESSAGES_AT_ONCE):
        hands.now_s += 1 / MESSAGES_PER_S
        assert not unasked.too_many()
