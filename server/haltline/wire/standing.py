"""A stream of messages that belong to no single answer: the standing GET of the handshake era, a subscription of 2026-07-28.

Owns the bound on what waits for a slow reader (it loses the newest, memory never grows), the pings that keep the connection
open, and that nothing is written once it was stopped. Knows nothing of what is in the messages.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import anyio

from haltline.wire.eras import LATEST_HANDSHAKE
from haltline.wire.http import STREAM, Receive, Send, send_reply
from haltline.wire.sessions import owner_of
from haltline.wire.strict_json import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline.wire.conversations import Conversation, Conversations
    from haltline.wire.messages import Unauthorized
    from haltline.wire.sessions import SessionIds

__all__ = ["NoStream", "Standing", "StandingFace", "StandingRequest", "serve_standing", "until_gone"]

PING_S = 15.0
WAITING_MAX = 256
WAITING_MAX_BYTES = 256 * 1024
CLOSE_S = 0.5
"""How long the end of a stream may wait for a reader that does not read; then the connection is dropped."""
RETRY_MS = 5000
"""How long a client that takes such a wish (2025-11-25) waits before it opens its stream again: the official ones try twice
and then never again, and a broker that starts anew needs a moment."""
_PING = b": ping\n\n"


class Standing:
    """`run` writes until it is cancelled or `end` was called; `tell` never waits."""

    def __init__(
        self,
        send: Send,
        *,
        ping_s: float = PING_S,
        retry_ms: int | None = None,
    ) -> None:
        """`retry_ms`: told to the client first."""
        self._send = send
        self._retry_ms = retry_ms
        self._ping_s = ping_s
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._wake = anyio.Event()
        self._ending = False
        self.muted: Callable[[], bool] = lambda: False
        """Whether it was stopped: then not even what waits is written any more."""

    def tell(self, message: dict[str, Any], *, once: bool = False) -> bool:
        """Send a message. `once`: not if the same one waits already. False: it is not sent."""
        data = dumps(message)
        if self._ending or len(self._waiting) >= WAITING_MAX or self._size + len(data) > WAITING_MAX_BYTES:
            return False
        if once and data in self._waiting:
            return True
        self._waiting.append(data)
        self._size += len(data)
        self._wake.set()
        return True

    def end(self, last: dict[str, Any] | None = None) -> None:
        """Close it after what waits and after `last`."""
        if self._ending:
            return
        if last is not None:
            self._waiting.append(dumps(last))
        self._ending = True
        self._wake.set()

    async def run(self) -> None:
        headers = [(b"content-type", STREAM), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            if self._retry_ms is not None:
                await self._write(b"retry: %d\n\n" % self._retry_ms)
            while await self._write_waiting():
                self._wake = anyio.Event()
                with anyio.move_on_after(self._ping_s) as quiet:
                    await self._wake.wait()
                if quiet.cancelled_caught and not self.muted():
                    await self._write(_PING)
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._send({"type": "http.response.body", "body": b""})

    async def _write_waiting(self) -> bool:
        """False: there will be no more."""
        while self._waiting and not self.muted():
            data = self._waiting.popleft()
            self._size -= len(data)
            await self._write(b"event: message\ndata: " + data + b"\n\n")
        return not self._ending and not self.muted()

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


@dataclass(frozen=True, slots=True)
class StandingRequest:
    """Somebody's wish for the standing stream of a session of the handshake era, which `session_key` names, verified."""

    token: str | None
    source: str
    session_key: str
    conversation: Conversation
    standing: Standing
    receive: Receive


@dataclass(frozen=True, slots=True)
class NoStream:
    """Why there is none, said with HTTP 405: the one way to say so that every client takes."""

    text: str


@runtime_checkable
class StandingFace(Protocol):
    """A face that tells its clients something by itself."""

    async def stand(self, request: StandingRequest) -> Unauthorized | NoStream | None:
        """Serve the stream until it ends. Authenticates by itself. What it returns was said before any byte was sent."""

    async def session_over(self, session_key: str) -> None:
        """A client has ended its session."""


async def until_gone(receive: Receive, gone: Callable[[], None]) -> None:
    """Call `gone` when the client closes its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()


async def serve_standing(
    face: StandingFace,
    sessions: SessionIds,
    conversations: Conversations,
    headers: dict[str, str],
    *,
    token: str | None,
    source: str,
    receive: Receive,
    send: Send,
) -> Unauthorized | None:
    """Answer a GET that names a session and takes an event stream."""
    session_id = headers["mcp-session-id"]
    if not sessions.valid(session_id, token):
        await send_reply(send, 404, b"this MCP session has ended; send initialize again")
        return None
    conversation = conversations.of(session_id, owner_of(token))
    retry_ms = RETRY_MS if headers.get("mcp-protocol-version") == LATEST_HANDSHAKE else None
    standing = Standing(send, retry_ms=retry_ms)
    said = await face.stand(StandingRequest(token, source, session_id, conversation, standing, receive))
    if isinstance(said, NoStream):
        await send_reply(send, 405, said.text.encode(), headers=[(b"allow", b"POST, DELETE")])
        return None
    return said
