"""What one upstream sends occupies the loop for a moment at a time: the rest waits, unread, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from haltline.upstreams.child import Child
from haltline.upstreams.http_wire import Connection
from haltline.upstreams.pace import TURN_S

BODY = bytes(range(256)) * 400
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(BODY)


class Pipe:
    """A transport of which only the flow is of interest."""

    def __init__(self) -> None:
        self.flows: list[str] = []
        self.closing = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: None

    def pause_reading(self) -> None:
        self.flows.append("pause")

    def resume_reading(self) -> None:
        self.flows.append("resume")

    def is_closing(self) -> bool:
        return self.closing

    def get_pid(self) -> int:
        return 0

    def get_pipe_transport(self, fd: int) -> Pipe:
        return self


class Busy:
    """A pace at which each turn is followed by a rest."""

    rests_s = 0.02

    def worked(self) -> float:
        return 0.0

    def rest_s(self, begun: float) -> float:
        return self.rests_s


class Slow:
    """A receiver that each time takes longer than a turn may."""

    def __init__(self) -> None:
        self.takes_s = 2 * TURN_S
        self.pieces: list[bytes] = []
        self.ended: list[str] = []
        self.over = asyncio.Event()

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        pass

    def body(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.takes_s:
            time.sleep(self.takes_s)

    def done(self) -> None:
        self.ended.append("done")
        self.over.set()

    def lost(self, error: Exception) -> None:
        self.ended.append("lost")
        self.over.set()


def connected() -> tuple[Connection, Pipe, Slow]:
    connection, pipe, slow = Connection(), Pipe(), Slow()
    connection.connection_made(pipe)  # type: ignore[arg-type]
    connection.send(b"", slow, lambda: None)
    return connection, pipe, slow


async def over(slow: Slow) -> None:
    with anyio.fail_after(30):
        await slow.over.wait()


async def test_a_body_is_handed_on_in_turns_and_nothing_is_read_meanwhile() -> None:
    connection, pipe, slow = connected()
    connection.data_received(HEAD + BODY)
    assert (len(slow.pieces), slow.ended, pipe.flows) == (1, [], ["pause"])
    others = 0
    while not slow.over.is_set():
        others += 1
        await asyncio.sleep(0)
    assert others >= len(slow.pieces) - 1, "what else the loop has to do came to its turn"
    assert b"".join(slow.pieces) == BODY
    assert (slow.ended, pipe.flows) == (["done"], ["pause", "resume"])


async def test_of_a_body_that_comes_fast_only_one_read_is_made_in_a_turn() -> None:
    connection, pipe, quick = connected()
    quick.takes_s = 0
    connection.data_received(HEAD + BODY[:50_000])
    assert pipe.flows == ["pause"]
    with anyio.fail_after(30):
        while pipe.flows[-1] == "pause":
            await asyncio.sleep(0)
    connection.data_received(BODY[50_000:])
    await over(quick)
    assert (b"".join(quick.pieces), quick.ended, pipe.flows[-1]) == (BODY, ["done"], "resume")


async def test_what_arrived_before_the_connection_ended_is_handed_on_first() -> None:
    connection, pipe, slow = connected()
    connection.data_received(HEAD + BODY)
    pipe.closing = True
    connection.connection_lost(ConnectionResetError())
    await over(slow)
    assert (b"".join(slow.pieces), slow.ended) == (BODY, ["done"])


async def test_half_a_body_is_lost_when_the_connection_ends_but_only_after_it_was_handed_on() -> None:
    connection, pipe, slow = connected()
    connection.data_received(HEAD + BODY[:50_000])
    pipe.closing = True
    connection.connection_lost(None)
    await over(slow)
    assert (b"".join(slow.pieces), slow.ended) == (BODY[:50_000], ["lost"])


async def test_a_body_that_ends_with_its_connection_is_whole() -> None:
    connection, pipe, slow = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + BODY)
    connection.eof_received()
    pipe.closing = True
    connection.connection_lost(None)
    await over(slow)
    assert (b"".join(slow.pieces), slow.ended) == (BODY, ["done"])


async def test_a_closed_connection_hands_nothing_on() -> None:
    connection, _, slow = connected()
    connection.data_received(HEAD + BODY)
    connection.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (len(slow.pieces), slow.ended) == (1, [])


async def test_the_lines_of_a_program_are_handed_on_in_turns_and_all_of_them_before_its_end() -> None:
    heard: list[bytes] = []
    ended = asyncio.Event()

    def hear(line: bytes) -> None:
        heard.append(line)
        time.sleep(2 * TURN_S)

    pipe = Pipe()
    program = Child("p", 1000, hear, lambda _: ended.set())
    program.connection_made(pipe)  # type: ignore[arg-type]
    lines = [b"%d" % number for number in range(300)]
    program.pipe_data_received(1, b"\n".join(lines) + b"\n")
    assert (heard, pipe.flows) == ([b"0"], ["pause"])
    program._exited.set()
    program._output_over()
    assert not ended.is_set(), "it still has something to say"
    with anyio.fail_after(30):
        await ended.wait()
    assert (heard, pipe.flows) == (lines, ["pause", "resume"])


@pytest.mark.promise("P5")
async def test_a_connection_that_brings_too_much_is_not_read_until_it_has_rested() -> None:
    connection, pipe, quick = Connection(Busy()), Pipe(), Slow()  # type: ignore[arg-type]
    quick.takes_s = 0
    connection.connection_made(pipe)  # type: ignore[arg-type]
    connection.send(b"", quick, lambda: None)
    connection.data_received(HEAD + BODY[:100])
    assert pipe.flows == ["pause"]
    await anyio.lowlevel.checkpoint()
    assert pipe.flows == ["pause"], "a turn of the loop is no rest"
    connection.data_received(BODY[100:])
    await over(quick)
    assert b"".join(quick.pieces) == BODY, "what is whole waits for no rest"


@pytest.mark.promise("P5")
@pytest.mark.parametrize("fd", [1, 2])
async def test_a_program_that_writes_too_much_is_not_read_until_it_has_rested(fd: int) -> None:
    heard: list[bytes] = []
    pace = Busy()
    pipe = Pipe()
    program = Child("p", 1000, heard.append, lambda _: None, pace)  # type: ignore[arg-type]
    program.connection_made(pipe)  # type: ignore[arg-type]
    program.pipe_data_received(fd, b"a line\n")
    assert pipe.flows == ["pause"]
    pace.rests_s = 0
    with anyio.fail_after(20):
        while pipe.flows != ["pause", "resume"]:
            await asyncio.sleep(0)
