"""Counters and times say on the page what the library's own would say of the same."""

from __future__ import annotations

import re

import prometheus_client as library
from hypothesis import given
from hypothesis import strategies as st

from haltline.counters import Count, Times

BOUNDS = (0.001, 0.25, 1.0, 60.0)
LABELS = st.sampled_from(["http", "stdio", 'of "another" kind\n'])
SECONDS = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100))


def _page(registry: library.CollectorRegistry) -> list[str]:
    """Without when each was made, which ours does not say."""
    text = library.generate_latest(registry).decode()
    return [line for line in text.splitlines() if not re.search("_created( |{)", line)]


@given(st.lists(st.tuples(LABELS, SECONDS, st.integers(0, 10**15))))
def test_the_page_is_the_same(steps: list[tuple[str, float, int]]):
    ours, theirs = library.CollectorRegistry(auto_describe=True), library.CollectorRegistry()
    plain, each = Count("spent", "All.", registry=ours), Count("calls", "By how.", ["how"], registry=ours)
    times = Times("took_seconds", "At it.", ["where"], bounds=BOUNDS, registry=ours)
    all_times = Times("all_seconds", "Of all.", bounds=BOUNDS, registry=ours)
    their_plain = library.Counter("spent", "All.", registry=theirs)
    their_each = library.Counter("calls", "By how.", ["how"], registry=theirs)
    their_times = library.Histogram("took_seconds", "At it.", ["where"], buckets=BOUNDS, registry=theirs)
    their_all = library.Histogram("all_seconds", "Of all.", buckets=BOUNDS, registry=theirs)
    for label, seconds, count in steps:
        plain.add(count)
        each.add(1, label)
        times.took(seconds, label)
        all_times.took(seconds)
        their_plain.inc(count)
        their_each.labels(label).inc()
        their_times.labels(label).observe(seconds)
        their_all.observe(seconds)
    assert _page(ours) == _page(theirs)
