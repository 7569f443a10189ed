"""Lines, however they are cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.upstreams.lines import LineReader, LineTooLong


@given(
    st.lists(st.binary(max_size=10).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))),
    st.integers(1, 7),
)
def test_where_it_is_cut_makes_no_difference(lines: list[bytes], size: int) -> None:
    stream = b"".join(line + b"\r\n" for line in lines)
    reader = LineReader(1000)
    assert [one for i in range(0, len(stream), size) for one in reader.feed(stream[i : i + size])] == lines


def test_a_line_longer_than_allowed_is_noticed_while_it_is_read() -> None:
    reader = LineReader(100)
    assert reader.feed(b"x" * 100 + b"\n") == [b"x" * 100]
    reader.feed(b"x" * 60)
    with pytest.raises(LineTooLong):
        reader.feed(b"x" * 60)


def test_time_grows_with_the_length_only() -> None:
    reader = LineReader(10_000_000)
    began = time.monotonic()
    for _ in range(400_000):
        reader.feed(b"x" * 10)
    assert len(reader.feed(b"\n")[0]) == 4_000_000
    assert time.monotonic() - began < 10
