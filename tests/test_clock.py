"""Time that never goes backward, and that a wall clock cannot push forward."""

from __future__ import annotations

import random
import threading

import pytest

from haltline.clock import STEP_MAX_US, Clock, iso
from support.records import HOUR, NOON_US, SECOND


class Times:
    """A wall clock that can be set, and a steady one that only passes."""

    def __init__(self) -> None:
        self.wall_us, self.steady_us = NOON_US, 5
        self.clock = Clock(lambda: self.wall_us, lambda: self.steady_us)
        self.clock.now_us()

    def passes(self, us: int) -> int:
        self.wall_us += us
        self.steady_us += us
        return self.clock.now_us()


@pytest.mark.promise("R9")
def test_a_clock_set_back_lets_time_pass_as_it_passes_and_does_not_jump_when_it_is_put_right() -> None:
    times = Times()
    times.wall_us -= HOUR
    assert times.passes(HOUR - 1) == NOON_US + HOUR - 1
    assert (times.clock.stepped_us, times.clock.behind_us) == (0, HOUR)
    times.wall_us += HOUR
    assert times.passes(2) == NOON_US + HOUR + 1
    assert (times.clock.stepped_us, times.clock.behind_us) == (0, 0)


@pytest.mark.promise("R9")
def test_a_step_forward_is_not_believed_is_said_and_ends_when_the_wall_is_put_right() -> None:
    times = Times()
    times.wall_us += HOUR
    assert times.passes(SECOND) == NOON_US + SECOND
    assert times.clock.stepped_us == HOUR
    assert times.passes(10 * SECOND) == NOON_US + 11 * SECOND
    times.wall_us -= HOUR
    assert times.passes(SECOND) == NOON_US + 12 * SECOND
    assert times.clock.stepped_us == 0


def test_a_correction_within_the_bound_is_believed() -> None:
    times = Times()
    times.wall_us += STEP_MAX_US
    assert times.passes(0) == NOON_US + STEP_MAX_US
    assert times.clock.stepped_us == 0


def test_a_clock_set_back_and_put_right_again_made_no_step() -> None:
    times = Times()
    times.wall_us -= HOUR
    times.passes(SECOND)
    times.wall_us += HOUR
    assert times.passes(SECOND) == NOON_US + 2 * SECOND
    assert times.clock.stepped_us == 0


def test_a_machine_that_slept_made_no_step() -> None:
    times = Times()
    assert times.passes(9 * HOUR) == NOON_US + 9 * HOUR
    assert times.clock.stepped_us == 0


@pytest.mark.promise("R9")
def test_after_a_restart_time_is_not_before_what_was_recorded() -> None:
    times = Times()
    times.clock.not_before(NOON_US + HOUR)
    assert times.passes(SECOND) == NOON_US + HOUR
    times.clock.not_before(NOON_US)  # never back
    assert times.passes(SECOND) == NOON_US + HOUR
    assert times.passes(HOUR) == NOON_US + HOUR + 2 * SECOND


@pytest.mark.promise("R9")
def test_two_hundred_jumps_of_an_hour_never_turn_time_back_nor_hurry_it() -> None:
    times, chance = Times(), random.Random(1)
    passed = 0
    for _ in range(200):
        times.wall_us += chance.choice([-HOUR, HOUR])
        step = chance.randrange(10 * SECOND)
        passed += step
        assert times.passes(step) == NOON_US + passed


def test_the_real_clock_is_monotone_between_threads() -> None:
    clock, seen = Clock(), []

    def ask() -> None:
        mine = [clock.now_us() for _ in range(2_000)]
        seen.append(mine == sorted(mine))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert seen == [True] * 4
    assert clock.stepped_us == 0


def test_a_time_reads_exact_to_the_microsecond() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000000Z"
    assert iso(1_795_464_000_123_456) == "2026-11-23T20:00:00.123456Z"
