"""The line to one HTTP upstream: its address, its configured headers and its connections; writes POST, GET and DELETE.

Speaks for whoever has a message to send, in either era. Maps a connection that cannot be had to `NotSent`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import structlog

from haltline.errors import ConfigError
from haltline.upstreams import faults
from haltline.upstreams.address import Address
from haltline.upstreams.http_reply import Paused, Reply, exchange
from haltline.upstreams.http_wire import Connection, NoConnection, Pool
from haltline.upstreams.model import NotSent, UpstreamError, UpstreamSpec

__all__ = ["HttpLine"]

log = structlog.get_logger(__name__)
Late = Callable[[Exception, Reply, Connection, Pool], bool]
"""Told at a deadline, with the error of it: whether it takes over what still comes."""

RETRY_S = 1.0
"""Before a paused stream is taken up again, where the upstream does not say how long; never shorter than the next."""
RETRY_LEAST_S = 0.05
_OF_A_POST = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
TELL_S = 5.0
"""How long a message that expects no answer may take."""
_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "mcp-protocol-version",
        "mcp-session-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say what we do; a configured one of these names is not sent."""


class HttpLine:
    def __init__(self, spec: UpstreamSpec, tls: ssl.SSLContext | None = None) -> None:
        assert spec.url is not None
        self._spec = spec
        address = Address.of(spec.url)
        self._pool = Pool(address, tls)
        self._target = address.target.encode("ascii")
        configured = {name: value for name, value in spec.headers.items() if name.lower() not in _OURS}
        ours = {"Host": address.host_header, "User-Agent": "haltline", "Accept-Encoding": "identity"}
        self._fixed = self._said(ours | configured)
        self._post = self._first(b"POST") + self._said(_OF_A_POST)

    def close(self) -> None:
        self._pool.close()

    async def post(
        self,
        headers: Mapping[str, str],
        body: bytes,
        reply: Reply,
        *,
        before_send: Callable[[], None] = lambda: None,
        overdue: tuple[float, Exception],
        late: Late | None = None,
    ) -> dict[str, Any]:
        """Raises NotSent, OutcomeUnknown, or what `before_send` raises. `late`: who may hear of an answer after the deadline.

        A stream that ends before its answer, in a session of the handshake era, is taken up where it says (2025-11-25,
        transports): its upstream closed it so as not to hold a connection meanwhile, or the line broke.
        """
        reply.resumable = "Mcp-Session-Id" in headers
        data = b"".join((self._post, self._said(headers), b"Content-Length: %d\r\n\r\n" % len(body), body))
        try:
            return await self._exchange(data, reply, before_send, overdue, late)
        except Paused as paused:
            return await self._taken_up(headers, reply, paused, overdue, late)

    async def _taken_up(
        self,
        headers: Mapping[str, str],
        reply: Reply,
        paused: Paused,
        overdue: tuple[float, Exception],
        late: Late | None,
    ) -> dict[str, Any]:
        """The rest of a stream, in as many parts as it comes. Whatever fails now, the request has left."""
        loop = asyncio.get_running_loop()
        while True:
            wait_s = RETRY_S if paused.retry_ms is None else max(paused.retry_ms / 1000, RETRY_LEAST_S)
            await asyncio.sleep(max(0.0, min(wait_s, overdue[0] - loop.time())))
            if loop.time() >= overdue[0]:
                raise overdue[1]
            head = {"Accept": "text/event-stream", **headers, "Last-Event-ID": paused.last_id}
            reply = reply.again()
            try:
                return await self._exchange(self._request(b"GET", head), reply, lambda: None, overdue, late)
            except Paused as again:
                paused = again
            except NotSent as error:
                raise faults.lost(self._spec.name, f"{error}: its stream cannot be taken up") from error
            except UpstreamError as error:
                if reply.status < 300:
                    raise
                raise faults.lost(self._spec.name, f"{error}: its stream cannot be taken up") from error

    async def ask(
        self, headers: Mapping[str, str], body: bytes, identifier: int, *, deadline: float | None = None
    ) -> dict[str, Any]:
        """A request of the broker's own; what comes beside its answer is passed over."""
        return await self.post(headers, body, self.reply(identifier), overdue=self._overdue(deadline))

    async def tell(self, headers: Mapping[str, str], body: bytes) -> None:
        """A message that expects no answer. Never fails: what comes of it is only logged."""
        try:
            await self.post(headers, body, self.reply(None), overdue=self._overdue(None, TELL_S))
        except UpstreamError as error:
            log.debug("upstream_not_told", upstream=self._spec.name, code=error.code)

    async def get(self, headers: Mapping[str, str], reply: Reply, deadline: float) -> dict[str, Any]:
        """A stream of what the upstream tells by itself, until it ends."""
        data = self._request(b"GET", {"Accept": "text/event-stream", **headers})
        return await self._exchange(data, reply, lambda: None, self._overdue(deadline))

    async def delete(self, headers: Mapping[str, str], timeout_s: float) -> None:
        """End a session. Never fails."""
        try:
            data = self._request(b"DELETE", headers)
            await self._exchange(data, self.reply(None), lambda: None, self._overdue(None, timeout_s))
        except UpstreamError as error:
            log.debug("session_not_ended", upstream=self._spec.name, code=error.code)

    def reply(self, identifier: int | None, on_message: Callable[[dict[str, Any]], None] | None = None) -> Reply:
        return Reply(self._spec.name, identifier, self._spec.max_result_bytes, on_message or _pass_over)

    def _overdue(self, deadline: float | None, limit_s: float | None = None) -> tuple[float, Exception]:
        now = asyncio.get_running_loop().time()
        if deadline is None:
            deadline = now + (self._spec.connect_timeout_s if limit_s is None else limit_s)
        return deadline, faults.overdue(self._spec.name, round(deadline - now, 1))

    async def _exchange(
        self,
        data: bytes,
        reply: Reply,
        before_send: Callable[[], None],
        overdue: tuple[float, Exception],
        late: Late | None = None,
    ) -> dict[str, Any]:
        ready_by = min(overdue[0], asyncio.get_running_loop().time() + self._spec.connect_timeout_s)
        try:
            return await exchange(
                self._pool,
                data,
                reply,
                before_send=before_send,
                ready_by=ready_by,
                overdue=overdue,
                late=None if late is None else lambda connection: late(overdue[1], reply, connection, self._pool),
            )
        except NoConnection as error:
            raise faults.unreachable(self._spec.name, str(error)) from error

    def _request(self, method: bytes, headers: Mapping[str, str]) -> bytes:
        return b"".join((self._first(method), self._said(headers), b"\r\n"))

    def _first(self, method: bytes) -> bytes:
        return method + b" " + self._target + b" HTTP/1.1\r\n" + self._fixed

    def _said(self, headers: Mapping[str, str]) -> bytes:
        return _lines(tuple(headers.items()), self._spec.name)


def _pass_over(message: dict[str, Any]) -> None:
    del message


@lru_cache(maxsize=256)
def _lines(headers: tuple[tuple[str, str], ...], upstream: str) -> bytes:
    """Written once for all calls of a session or a tool. Raises ConfigError: the only values from outside are configured."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ConfigError(f"upstream {upstream}: a header holds a line break; take it out")
    return text.encode("utf-8")
