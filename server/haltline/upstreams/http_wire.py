"""HTTP/1.1 connections to one upstream: kept alive, pooled, bounded. Knows bytes, headers and bodies; no JSON, no MCP.

The moment that matters is in `Connection.send`: whatever may still stop the request is asked immediately before the one
write that sends it whole, on a connection that exists. What fails before that never left; what fails after it may have
been received, and is never sent again from here. No redirects, no proxies, no cookies, no compression.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol, cast

import httptools

from haltline.upstreams.address import Address
from haltline.upstreams.pace import TURN_S, Pace

__all__ = ["Connection", "Lost", "NoConnection", "Pool", "Receiver", "tls_context"]

IDLE_S = 4.0
"""Less than servers keep idle connections, so that it is we who close them."""
MAX_IDLE = 256
MAX_HEAD_BYTES = 64 * 1024
MAX_FRAMING_BYTES = 1024 * 1024
"""Of what is neither head nor body: chunk sizes and trailers."""
PIECE_BYTES = 4 * 1024
"""Of a stream of events so much is handed on at once: some dozen messages may be in it."""
FULL_BYTES = 32 * 1024
"""Where so much is read at once there is more: uvloop would go on reading it, many times before anybody else's turn."""
DRAIN_S = 1.0
DRAIN_BYTES = 64 * 1024
"""How long, and for how much, the end of an answered stream is waited for so that its connection can serve again."""


class NoConnection(Exception):
    """No connection could be made: nothing left."""


class Lost(Exception):
    """The connection ended, or what came over it is not HTTP, after the request was written."""


class Receiver(Protocol):
    """What becomes of one answer. Each is called on the event loop, in this order; `lost` ends it early."""

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None: ...

    def body(self, data: bytes) -> None: ...

    def done(self) -> None: ...

    def lost(self, error: Exception) -> None: ...


def tls_context() -> ssl.SSLContext:
    """The system's trusted authorities (`SSL_CERT_FILE` is honoured), host names checked."""
    return ssl.create_default_context()


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    _parser: httptools.HttpResponseParser

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._chunks: deque[memoryview] = deque()
        self._paused = False
        self._gone: Exception | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._framing_bytes = 0
        self._head_known = False
        self._complete = False
        self._framed = False
        self._keep = False
        self._poll: select.poll | None = None
        self.idle_since = 0.0

    def send(self, data: bytes, receiver: Receiver, before_send: Callable[[], None]) -> None:
        """Write one request. Raises NoConnection where the connection is gone, or what `before_send` raises."""
        if self._transport is None or self._transport.is_closing() or self._receiver is not None:
            raise NoConnection("the connection is closed")
        before_send()
        self._parser = httptools.HttpResponseParser(self)
        self._receiver = receiver
        self._headers, self._head_bytes, self._framing_bytes = {}, 0, 0
        self._head_known = self._complete = self._framed = self._keep = False
        self._transport.write(data)

    @property
    def reusable(self) -> bool:
        """Open, between exchanges, and silent: an idle connection with something to read was closed or is confused."""
        return self.free and self._poll is not None and not self._poll.poll(0)

    @property
    def free(self) -> bool:
        """Open and between exchanges."""
        if self._transport is None or self._receiver is not None or self._transport.is_closing():
            return False
        return not self._transport.get_write_buffer_size()

    def drain(self, done: Callable[[], None]) -> bool:
        """The receiver has heard what it wanted: read on to the end of the answer, then call `done`. False: do close."""
        if self._receiver is None or self._transport is None or self._transport.is_closing():
            return False
        self._receiver = _Drain(self, done)
        return True

    def break_off(self) -> None:
        """Close it, and tell whoever still waits for an answer."""
        self._fail(Lost("the broker closed the connection"))

    def close(self) -> None:
        """Now, without waiting for anything; whoever waited for an answer has gone."""
        self._receiver = None
        self._chunks.clear()
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        socket = transport.get_extra_info("socket")
        if socket is not None:
            self._poll = select.poll()
            self._poll.register(socket.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self.close()  # nothing was asked
            return
        self._safely(self._feed, data)

    def _safely(self, work: Callable[..., None], *arguments: bytes) -> None:
        try:
            work(*arguments)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Lost(f"not HTTP/1.1: {type(error).__name__}"))
        except Exception as error:  # noqa: BLE001 - the boundary to the event loop: the receiver hears of it
            self._fail(error)

    def eof_received(self) -> bool:
        if self._receiver is not None and self._head_known and not self._framed and not self._complete:
            self._complete = True  # the body ends with the connection
            if not self._chunks:
                self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._poll = None
        self._gone = Lost("the connection was closed" if exc is None else str(exc))
        if not self._chunks:
            self._fail(self._gone)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # a second answer to one request: this connection is confused

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_known:
            key = name.lower()
            self._headers[key] = self._headers[key] + b", " + value if key in self._headers else value

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._headers = {}  # 1xx: the answer is still to come
            return
        self._head_known = True
        self._framed = b"content-length" in self._headers or b"transfer-encoding" in self._headers

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._chunks.append(memoryview(data))

    def on_message_complete(self) -> None:
        self._complete = self._head_known
        self._keep = self._framed and self._parser.should_keep_alive()  # only known here

    def _feed(self, data: bytes) -> None:
        begun = self._pace.worked() if len(data) >= FULL_BYTES else None
        known = self._head_known
        self._parser.feed_data(data)
        if not known:
            self._head_bytes += len(data)
            if not self._head_known:
                if self._head_bytes > MAX_HEAD_BYTES:
                    raise Lost("endless headers")
                return
            if self._receiver is not None:
                self._receiver.head(self._parser.get_status_code(), self._headers)
        if known and not self._chunks:
            self._framing_bytes += len(data)
            if self._framing_bytes > MAX_FRAMING_BYTES:
                raise Lost("endless framing")
        if not known and self._complete and len(data) <= PIECE_BYTES:
            self._hand_over()
            return
        self._hand_on(begun)
        if len(data) >= FULL_BYTES and not self._complete and not self._paused:
            self._rest(0)

    def _hand_over(self) -> None:
        """A short answer that came whole: there is no turn worth timing."""
        while self._chunks and self._receiver is not None:
            self._receiver.body(bytes(self._chunks.popleft()))
        self._finish()

    def _hand_on(self, begun: float | None = None) -> None:
        """Give the receiver what is there of the body, for so long as one turn may take; nothing is read meanwhile.

        `begun`: when the work on it was, where reading it was much of that.
        """
        begun, until = self._pace.worked() if begun is None else begun, perf_counter() + TURN_S
        piece = PIECE_BYTES if b"event-stream" in self._headers.get(b"content-type", b"") else FULL_BYTES
        while self._chunks:
            if self._receiver is None:
                return  # it heard enough, and closed this
            chunk = self._chunks.popleft()
            if len(chunk) > piece:
                self._chunks.appendleft(chunk[piece:])
            self._receiver.body(bytes(chunk[:piece]))
            if self._chunks and perf_counter() > until:
                self._rest(self._pace.rest_s(begun))
                return
        rest_s = self._pace.rest_s(begun)
        if self._complete:
            self._resume()
            self._finish()
        elif self._gone is not None:
            self._fail(self._gone)
        elif rest_s > 0 and self._receiver is not None:
            self._rest(rest_s)
        else:
            self._resume()

    def _rest(self, seconds: float) -> None:
        """Read nothing until the next turn: whoever sends too much waits for it."""
        self._pause()
        loop = asyncio.get_running_loop()
        if seconds > 0:
            loop.call_later(seconds, self._safely, self._hand_on)
        else:
            loop.call_soon(self._safely, self._hand_on)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._paused = True

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False

    def _finish(self) -> None:
        receiver, self._receiver = self._receiver, None
        if self._transport is not None and not self._keep:
            self._transport.close()
        if receiver is not None:
            receiver.done()

    def _fail(self, error: Exception) -> None:
        receiver = self._receiver
        self.close()
        if receiver is not None:
            receiver.lost(error)


class _Drain:
    """Takes the rest of an answer that was read already, if it is short."""

    def __init__(self, connection: Connection, done: Callable[[], None]) -> None:
        self._connection = connection
        self._timer = asyncio.get_running_loop().call_later(DRAIN_S, self._give_up)
        self._ended = done
        self._left = DRAIN_BYTES

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        del status, headers

    def body(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._give_up()

    def done(self) -> None:
        self._timer.cancel()
        self._ended()

    def lost(self, error: Exception) -> None:
        del error
        self.done()

    def _give_up(self) -> None:
        self._connection.close()
        self.done()


class Pool:
    """Connections to one address. Idle ones are closed before the server would.

    `look_up` finds what to connect to for host and port, in the order of trying; it may raise NoConnection.
    """

    def __init__(
        self,
        address: Address,
        tls: ssl.SSLContext | None = None,
        look_up: Callable[[str, int], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        self.address = address
        self._tls = tls
        self._look_up = look_up
        self._pace = Pace()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def connection(self, ready_by: float) -> Connection:
        """One that is open now. Raises NoConnection, by `ready_by` (loop time). Give it back with `release`."""
        loop = asyncio.get_running_loop()
        while self._idle:
            kept = self._idle.pop()
            if loop.time() - kept.idle_since < IDLE_S and kept.reusable:
                self._busy.add(kept)
                return kept
            kept.close()
        try:
            async with asyncio.timeout_at(ready_by):
                made = await self._connect(loop)
        except TimeoutError as error:
            raise NoConnection("connecting took too long") from error
        self._busy.add(made)
        return made

    def release(self, connection: Connection, *, answered: bool = False) -> None:
        """Keep it for the next request once its exchange is over, else close it. Synchronous, and never fails."""
        if answered and connection.drain(lambda: self.release(connection)):
            return
        self._busy.discard(connection)
        if len(self._idle) >= MAX_IDLE or not connection.free:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in [*self._idle, *self._busy]:
            connection.break_off()
        self._idle.clear()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        where: dict[str, Any] = {}
        if self.address.tls:
            self._tls = self._tls or tls_context()
            where = {"ssl": self._tls, "server_hostname": self.address.host}
        hosts: Sequence[str] = (self.address.host,)
        if self._look_up is not None:
            hosts = await self._look_up(self.address.host, self.address.port)
        refused: Exception | None = None
        for host in hosts:
            try:
                _, made = await loop.create_connection(self._new, host, self.address.port, **where)
            except (OSError, ValueError) as error:  # ssl.SSLError and DNS errors are OSErrors; a host may be no name
                refused = error
            else:
                return made
        raise NoConnection(str(refused) or type(refused).__name__) from refused

    def _new(self) -> Connection:
        return Connection(self._pace)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        fresh = [one for one in self._idle if loop.time() - one.idle_since < IDLE_S]
        for one in self._idle:
            if one not in fresh:
                one.close()
        self._idle = fresh
        if fresh:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)
