"""Answers as they arrive in pieces: events of a stream, whole bodies, and how much of them may wait here."""

from __future__ import annotations

import asyncio

import pytest

from haltline_client.stdio.events import MAX_ANSWER_BYTES, SMALL_BYTES, Event, Room, TooLarge, events, whole

STREAM = (
    b": a comment\r\n\r\n"
    b"event: message\ndata: one\n\n"
    b"id: 7\r\nretry: 250\r\ndata:\r\n\r\n"
    b"data: two\ndata:  lines\ndata\nunknown: x\nretry: soon\n\n"
    b"data: never ended\n"
)
EVENTS = [Event(b"one", None, None), Event(b"", "7", 250), Event(b"two\n lines\n", None, None)]


async def _pieces(data, size):
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_the_same_however_they_are_cut(size):
    room = Room(asyncio.Semaphore(1))
    assert [event async for event in events(_pieces(STREAM, size), room)] == EVENTS


@pytest.mark.parametrize("line", [b"data: ", b"data: x\ndata: ", b"", b": "])
async def test_an_event_without_end_is_too_large(line):
    async def endless():
        yield line
        while True:
            yield b"x" * 1_000_000

    room = Room(asyncio.Semaphore(1))
    with pytest.raises(TooLarge):
        _ = [event async for event in events(endless(), room)]
    with pytest.raises(TooLarge):
        await whole(endless(), room)


async def test_many_small_lines_of_one_event_are_counted_together():
    async def endless():
        while True:
            yield b"data: " + b"x" * 1_000 + b"\n"

    with pytest.raises(TooLarge):
        _ = [event async for event in events(endless(), Room(asyncio.Semaphore(1)))]


async def test_large_answers_wait_for_one_another_and_small_ones_do_not():
    large = asyncio.Semaphore(1)
    with Room(large) as first:
        await whole(_pieces(b"x" * (SMALL_BYTES + 1), 10_000), first)
        assert large.locked()
        with Room(large) as small:
            assert len(await whole(_pieces(b"x" * SMALL_BYTES, 10_000), small)) == SMALL_BYTES
        with Room(large) as second:
            waiting = asyncio.ensure_future(whole(_pieces(b"x" * (2 * SMALL_BYTES), 10_000), second))
            await asyncio.sleep(0)
            assert not waiting.done()
            first.passed()
            assert len(await waiting) == 2 * SMALL_BYTES
    assert not large.locked()


async def test_an_answer_at_the_limit_passes():
    with Room(asyncio.Semaphore(1)) as room:
        assert len(await whole(_pieces(b"x" * MAX_ANSWER_BYTES, 1024 * 1024), room)) == MAX_ANSWER_BYTES
