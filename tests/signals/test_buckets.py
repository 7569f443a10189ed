"""Buckets say the same as a plain sum over what was added, however time goes on, and cost the same at any age."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haltline.signals.buckets import Buckets

STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 25), st.integers(1, 9)), max_size=40)


@given(STEPS, st.integers(0, 30), st.integers(0, 30))
def test_sums_are_those_of_what_was_added_within_what_is_kept(steps, back, length):
    buckets, added, newest = Buckets(20), [], 1000
    for later, earlier, amount in steps:
        newest += later
        buckets.add(newest, amount)
        buckets.add(newest - earlier, amount)
        added += [(newest, amount)] + [(newest - earlier, amount)] * (earlier < 20)
    first = newest - back
    expected = sum(amount for at, amount in added if max(first, newest - 19) <= at < first + length)
    assert sum(buckets.between(first, first + length)) == expected
    assert sum(Buckets(20).load(buckets.stored()).between(first, first + length)) == expected
