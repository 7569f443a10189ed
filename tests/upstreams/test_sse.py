"""Reading streams of events, however they are cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.upstreams.sse import EventReader, EventTooLarge

STREAM = b"\xef\xbb\xbf:c\r\nid: 1\ndata: a\r\ndata:b\rdata:\n\r\nevent: other\ndata: no\n\ndata\n\nevent: message\ndata: {}\n\nretry: 1\n\n"
EVENTS = [b"a\nb\n", b"{}"]


def all_of(chunks: list[bytes], limit: int = 1000) -> list[bytes]:
    reader = EventReader(limit)
    return [event for chunk in chunks for event in reader.feed(chunk)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_where_it_is_cut_makes_no_difference(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert all_of([STREAM[a:b] for a, b in zip(edges, edges[1:], strict=False)]) == EVENTS


def test_byte_by_byte() -> None:
    assert all_of([STREAM[i : i + 1] for i in range(len(STREAM))]) == EVENTS


def test_an_event_that_is_not_ended_is_none() -> None:
    assert all_of([b"data: a\n"]) == []


@pytest.mark.parametrize("stream", [[b"data: " + b"x" * 50] * 3, [b"data: x\n"] * 60, [b":" + b"c" * 101]])
def test_an_event_larger_than_allowed_is_noticed_while_it_is_read(stream: list[bytes]) -> None:
    with pytest.raises(EventTooLarge):
        all_of(stream, 100)


def test_the_limit_is_for_each_event() -> None:
    assert len(all_of([b"data: " + b"x" * 90 + b"\n\n"] * 50, 100)) == 50


def test_time_grows_with_the_length_only() -> None:
    began = time.monotonic()
    (event,) = all_of([b"data: ", *[b"x" * 10] * 400_000, b"\n\n"], 10_000_000)
    assert len(event) == 4_000_000
    assert time.monotonic() - began < 10


def test_where_a_stream_can_be_taken_up_is_the_id_of_its_last_whole_event() -> None:
    reader = EventReader(100)
    assert list(reader.feed(b"id: one\nretry: 250\ndata: \n\n: still here\ndata: x\n\n")) == [b"x"]
    assert (reader.last_id, reader.retry_ms) == ("one", 250)
    assert list(reader.feed(b"id: two\ndata: y\n")) == []
    assert reader.last_id == "one"
    list(reader.feed(b"\n"))
    assert reader.last_id == "two"


def test_an_id_that_no_header_could_carry_is_passed_over() -> None:
    reader = EventReader(10_000)
    list(reader.feed("id: é\nid: a\0b\nretry: soon\ndata: x\n\n".encode() + b"id: " + b"z" * 600 + b"\ndata: y\n\n"))
    assert (reader.last_id, reader.retry_ms) == (None, None)
