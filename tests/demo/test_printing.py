"""How the demonstration tells what happens."""

from __future__ import annotations

import io

import pytest

from haltline.demo.printing import Teller


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tell(out: io.StringIO) -> Teller:
    return Teller(out)


def test_a_scene_shows_what_held_and_what_did_not(tell: Teller, out: io.StringIO) -> None:
    tell.scene("A cap")
    tell.check(True, "it stopped")
    tell.check(False, "it was told")
    tell.end()
    assert not tell.held
    lines = out.getvalue().splitlines()
    assert lines[1].startswith("1  A cap")
    assert lines[2:4] == ["   ✓ it stopped", "   ✗ it was told"]
    assert lines[-2:] == ["✗ 1 of 2 things did not hold:", "   A cap: it was told"]


def test_all_that_held_ends_in_one_line_with_the_time(tell: Teller, out: io.StringIO) -> None:
    tell.check(True, "it stopped")
    tell.end()
    assert tell.held
    assert out.getvalue().splitlines()[-1].startswith("✓ All 1 things held, in ")


def test_nothing_checked_is_nothing_held(tell: Teller) -> None:
    assert not tell.held


def test_what_others_said_cannot_steer_the_terminal(tell: Teller, out: io.StringIO) -> None:
    tell.quote("one\n\x1b[2Jtwo")
    tell.say("three\x07")
    tell.check(True, "four\x1b]0;title")
    assert not {"\x1b", "\x07"} & set(out.getvalue())
    assert out.getvalue().splitlines()[:1] == ["   one"]
