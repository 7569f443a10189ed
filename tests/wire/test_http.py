"""A client's connection as those that answer on it know it, and bodies: whole, in pieces, and never."""

from __future__ import annotations

import anyio
import pytest

from haltline.http_server import Routes, bind
from haltline.wire.guard import Guard
from haltline.wire.http import WHOLE, BadRequest, Line, Receive, Scope, Send, read_body, send_reply
from support.serving import LOOPBACK, served


def test_who_wants_to_know_hears_once_that_a_connection_was_closed() -> None:
    line, heard = Line(), list[str]()
    line.tell(lambda: heard.append("a"))
    line.tell(lambda: heard.append("b"))
    line.close()
    line.close()
    assert sorted(heard) == ["a", "b"]


def test_who_asks_when_it_is_closed_already_hears_at_once() -> None:
    line, heard = Line(), list[str]()
    line.close()
    line.tell(lambda: heard.append("late"))
    assert heard == ["late"]


class Call:
    gone = 0

    def went(self) -> None:
        self.gone += 1


def test_whose_answer_is_written_hears_nothing_any_more() -> None:
    line, answered, waits = Line(), Call(), Call()
    for one in (answered, waits):
        line.tell(one.went)
    line.tell_no_more(answered.went)
    line.close()
    assert (answered.gone, waits.gone) == (0, 1)


async def test_a_body_that_never_ends_is_given_up() -> None:
    async def receive() -> dict[str, object]:
        await anyio.sleep_forever()
        return {}

    with pytest.raises(BadRequest, match="did not arrive within 0 s") as refused:
        await read_body({}, receive, max_bytes=10, declared=None, timeout_s=0)
    assert refused.value.status == 408


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_a_body_is_read_to_its_end_in_however_many_pieces_it_comes(pieces: int) -> None:
    """Each piece is sent once the one before it was seen, so that none is there with the head but the first."""
    begun, whole_at_first = anyio.Event(), list[bool]()

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        whole_at_first.append(WHOLE in scope)
        begun.set()
        await send_reply(send, 200, await read_body(scope, receive, max_bytes=100, declared=None))

    bound = bind(LOOPBACK, "agents")
    guard = Guard("127.0.0.1", bound.getsockname()[1], hosts=(), origins=())
    port = bound.getsockname()[1]
    parts = [b"%d" % number * 5 for number in range(pieces)]
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    async with served(Routes(guard, {"/": echo}), bound), await anyio.connect_tcp("127.0.0.1", port) as line:
        await line.send(head % (port, 5 * pieces) + parts[0])
        with anyio.fail_after(30):
            await begun.wait()
            for part in parts[1:]:
                await line.send(part)
            answer = b""
            while True:
                try:
                    answer += await line.receive()
                except anyio.EndOfStream:
                    break
    assert answer.endswith(b"\r\n\r\n" + b"".join(parts))
    assert whole_at_first == [pieces == 1]
