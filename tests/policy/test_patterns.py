"""Tool-name patterns."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.policy.patterns import any_of, check_pattern, matches, most_specific, overlap

pieces = st.text("ab_*", min_size=1, max_size=8).map(lambda text: re.sub(r"\*+", "*", text))
names = st.text("ab_", max_size=10)


@pytest.mark.parametrize(
    ("pattern", "name", "does"),
    [
        ("*", "anything", True),
        ("*", "odd\nname", True),
        ("payments__*", "payments__charge", True),
        ("payments__*", "payments__", True),
        ("payments__*", "xpayments__charge", False),
        ("payments__charge", "payments__charge", True),
        ("payments__charge", "payments__charges", False),
        ("payments__charge", "Payments__charge", False),
        ("a.b", "axb", False),
        ("*__read", "files__read", True),
        ("*a*a", "a", False),
        ("ab*ba", "aba", False),
        ("a*b*c", "a-b-b-c", True),
    ],
)
def test_a_star_is_any_run_and_nothing_else_is_special(pattern, name, does):
    assert matches(pattern, name) is does


@given(pieces, names)
def test_matching_agrees_with_the_same_regular_expression(pattern, name):
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.DOTALL) is not None
    assert matches(pattern, name) is expected


def test_many_stars_take_no_longer_than_the_name_is():
    assert not matches("*a*a*a*a*a*a*a*b", "a" * 200_000)


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "is empty"),
        ("a b", "' ' is not allowed"),
        ("pay[ab]", "'[' is not allowed"),
        ("pay?", "'?' is not allowed"),
        ("a\n", "'\\n' is not allowed"),
        ("zahlung_ü", "'ü' is not allowed"),
        ("a\u202eb", "is not allowed"),
        ("a**", "one * instead of several"),
        ("*a" * 9, "at most 8 *"),
        ("a" * 257, "at most 256 characters"),
        (7, "is text such as"),
        (None, "is text such as"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_a_sentence(pattern, said):
    with pytest.raises(ValueError) as refused:
        check_pattern(pattern)
    assert said in str(refused.value)


def test_no_patterns_match_nothing():
    assert not any_of(())("anything")


@given(st.lists(pieces, max_size=6), names)
def test_several_patterns_match_what_any_of_them_matches(patterns, name):
    assert any_of(tuple(patterns))(name) == any(matches(one, name) for one in patterns)


def test_the_most_specific_is_the_name_then_the_longer_text_before_the_star():
    patterns = ["*", "pay__*", "pay__ch*", "pay__charge", "*__charge", "p*e", "pay__*e"]
    assert most_specific(patterns) == ["pay__charge", "pay__ch*", "pay__*e", "pay__*", "p*e", "*__charge", "*"]
    assert most_specific(reversed(patterns)) == most_specific(patterns)


@given(pieces, pieces, names)
def test_patterns_that_share_a_name_are_found_to_overlap(one, other, name):
    assert overlap(one, other) == overlap(other, one)
    if matches(one, name) and matches(other, name):
        assert overlap(one, other)


def test_patterns_without_a_common_name_do_not_overlap():
    assert not overlap("payments__*", "tasks__*")
    assert not overlap("a*b", "a*c")
    assert overlap("a*", "*b")
