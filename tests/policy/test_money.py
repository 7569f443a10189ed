"""Amounts: decimal text outside, integer micro-units inside."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.policy.money import MAX_MICROS, format_amount, parse_amount


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    ("text", "micros"),
    [("0.50", 500_000), ("0", 0), ("0.000001", 1), ("1.10", 1_100_000), ("00.5", 500_000), ("0.5000000000", 500_000)],
)
def test_a_decimal_text_becomes_micro_units_exactly(text, micros):
    assert parse_amount(text) == micros


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("-1", "'-1' is negative; an amount is zero or more"),
        ("NaN", "'NaN' is not an amount"),
        ("inf", "'inf' is not an amount"),
        ("1e3", "'1e3' has an exponent; write all digits"),
        ("0.0000001", "0.0000001 is finer than a millionth"),
        ("1,50", 'write a point, such as "1.50"'),
        ("1 USD", "without sign, space or currency"),
        ("+1", "without sign"),
        (" 1", "without sign, space"),
        ("1\n", "is not an amount"),
        ("5.", "is not an amount"),
        (".5", "is not an amount"),
        ("٣", "is not an amount"),
        ("", "is not an amount"),
        ("1_000", "is not an amount"),
        (str(2**63), "more than the largest amount"),
        ("9" * 5000, "is not an amount"),
        (0.5, 'write the amount in quotes, "0.5"'),
        (5, 'write the amount in quotes, "5"'),
        (True, "a decimal number in quotes"),
        (None, "a decimal number in quotes"),
    ],
)
def test_what_is_no_amount_is_refused_with_a_sentence(written, said):
    with pytest.raises(ValueError) as refused:
        parse_amount(written)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 200


def test_an_amount_reads_with_two_decimals_at_least_and_more_only_as_needed():
    assert format_amount(500_000, "USD") == "0.50 USD"
    assert format_amount(47) == "0.000047"
    assert format_amount(-1_234_500) == "-1.2345"
    assert format_amount(2**70, "EUR").endswith(" EUR")


@given(st.integers(min_value=0, max_value=MAX_MICROS))
def test_every_amount_reads_back_as_itself_and_as_its_decimal(micros):
    text = format_amount(micros)
    assert parse_amount(text) == micros
    assert Decimal(text) == Decimal(micros) / 1_000_000
