"""The reply to one MCP request: plain JSON, or an event stream from the first notification on.

Notifications of a call arrive before its result and in their order; a reader that is too slow for them loses the newest,
never the result. Knows nothing of what is in them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from haltline.wire.http import JSON, STREAM, Send, send_reply
from haltline.wire.standing import Standing
from haltline.wire.strict_json import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from haltline.wire.messages import Answer

__all__ = ["Reply"]

_NOTICES_MAX = 1_000
"""Notifications that wait for a slow reader; a result never waits behind more than these."""


_WRITTEN_AT_ONCE = 64


class Reply:
    """Answers exactly once. Notifications are carried by a task of their own, until `end`."""

    def __init__(self, send: Send, identifier: int | str, *, json: bool, stream: bool) -> None:
        self._send = send
        self._id = identifier
        self._json = json
        self._stream = stream
        self._pump: asyncio.Task[None] | None = None
        self._notices: MemoryObjectSendStream[dict[str, Any]] | None = None
        self.answered = False
        self.muted: Callable[[], bool] = lambda: False
        """Whether its call was stopped: then not even a notification that waits is written any more."""
        self.headers: list[tuple[bytes, bytes]] = []

    def notify(self, message: dict[str, Any]) -> bool:
        """Send a message before the answer. False: the client takes no event stream, or does not read."""
        if not self._stream or self.answered or (self._pump is not None and self._pump.done()):
            return False
        if self._notices is None:
            self._notices, waiting = anyio.create_memory_object_stream[dict[str, Any]](_NOTICES_MAX)
            self._pump = asyncio.create_task(self._carry(waiting))
        try:
            self._notices.send_nowait(message)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def drain(self) -> None:
        """Wait until the notifications so far are written, so that the answer can follow at once."""
        if self._notices is not None and self._pump is not None and not self._pump.done():
            self._notices.close()
            await asyncio.wait((self._pump,))

    def end(self) -> None:
        """The request is over: nothing more is carried."""
        if self._pump is not None:
            self._pump.cancel()

    def stand(self) -> Standing | None:
        """A stream of its own as the answer, for whoever called to write. None: the client takes none, or it is answered."""
        if not self._stream or self._notices is not None or self.answered:
            return None
        self.answered = True
        return Standing(self._send)

    async def answer(self, answer: Answer, status: int = 200) -> None:
        """Write the answer. Only the first one counts."""
        if self.answered:
            return
        await self.drain()
        self.answered = True
        body = dumps({"jsonrpc": "2.0", "id": self._id, **answer})
        if self._notices is not None:
            await self._send({"type": "http.response.body", "body": _event(body)})
        elif self._json:
            await send_reply(self._send, status, body, kind=JSON, headers=self.headers)
        else:
            await self._start(status)
            await self._send({"type": "http.response.body", "body": _event(body)})

    async def _start(self, status: int = 200) -> None:
        headers = [(b"content-type", STREAM), (b"cache-control", b"no-cache"), *self.headers]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _carry(self, waiting: MemoryObjectReceiveStream[dict[str, Any]]) -> None:
        with waiting:
            await self._start()
            async for message in waiting:
                events = _event(dumps(message)) + _events_there(waiting)
                if not self.muted():
                    await self._send({"type": "http.response.body", "body": events, "more_body": True})


def _event(data: bytes) -> bytes:
    return b"event: message\ndata: " + data + b"\n\n"


def _events_there(waiting: MemoryObjectReceiveStream[dict[str, Any]]) -> bytes:
    """More that wait already, to be written at once: one write each would make a flood of them everybody's."""
    events: list[bytes] = []
    with suppress(anyio.WouldBlock, anyio.EndOfStream):
        while len(events) < _WRITTEN_AT_ONCE:
            events.append(_event(dumps(waiting.receive_nowait())))
    return b"".join(events)
