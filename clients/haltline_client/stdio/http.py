"""A small HTTP/1.1 client on asyncio: one exchange a connection at a time, bodies as they arrive, closed to cancel.

Owns connections and knows whether a byte of a request may have left, which decides what a caller is told. Knows no MCP.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from haltline_client.errors import BrokerUnreachable, SettingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

__all__ = ["Http", "Reply", "Target", "target"]

CONNECT_TIMEOUT_S = 5.0
HEAD_BYTES = 32 * 1024
READ_BYTES = 64 * 1024
IDLE_MAX = 8
IDLE_S = 2.0
"""A connection that rested longer is not used again: the other side may be about to close it."""
LOOPBACK = re.compile(r"localhost|([\w-]+\.)+localhost|127(\.\d{1,3}){3}|::1", re.IGNORECASE)
BROKEN = (OSError, EOFError, asyncio.LimitOverrunError, ValueError)


class Target(NamedTuple):
    """Where an endpoint is."""

    url: str
    secure: bool
    host: str
    port: int
    path: str
    authority: str


def target(url: str, *, insecure_http: bool) -> Target:
    """Raises SettingError for what is no URL of an endpoint, and where a credential would be readable on its way."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingError(f"{url!r} is not a URL: {error}") from error
    plain = url.isascii() and url.isprintable() and " " not in url
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or parts.username
        or parts.query
        or parts.fragment
        or not plain
    ):
        raise SettingError(f"{url!r} is not an agents' URL such as http://127.0.0.1:7400/mcp")
    secure = parts.scheme == "https"
    if not secure and not insecure_http and not LOOPBACK.fullmatch(host):
        raise SettingError(
            f"{url} would carry the credential unencrypted over the network: "
            "use https, a tunnel to the broker's machine, or --insecure-http if the network is trusted"
        )
    default = 443 if secure else 80
    name = f"[{host}]" if ":" in host else host
    authority = name if port in {None, default} else f"{name}:{port}"
    return Target(url, secure, host, port or default, parts.path.rstrip("/") or "/mcp", authority)


class Reply:
    """The head of an answer, and its body as it arrives."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self.ended = False
        """Whether the body was read to its end, and the connection can be used again."""
        self._reader = reader

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises one of BROKEN."""
        length = self.headers.get("content-length")
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            async for chunk in self._chunked():
                yield chunk
        elif length is not None or self.status in {204, 304}:
            async for chunk in self._counted(int(length or 0)):
                yield chunk
        else:
            while chunk := await self._reader.read(READ_BYTES):
                yield chunk
            return
        self.ended = self.headers.get("connection", "").lower() != "close"

    async def _chunked(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            async for chunk in self._counted(size):
                yield chunk
            await self._reader.readexactly(2)
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass

    async def _counted(self, left: int) -> AsyncIterator[bytes]:
        while left > 0:
            chunk = await self._reader.read(min(left, READ_BYTES))
            if not chunk:
                raise EOFError
            left -= len(chunk)
            yield chunk


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def usable(self) -> bool:
        return not self.reader.at_eof() and self.reader.exception() is None and not self.writer.is_closing()

    def close(self) -> None:
        self.writer.transport.abort()


class Http:
    """Exchanges with one endpoint, any number at once."""

    def __init__(self, where: Target) -> None:
        self.where = where
        self._idle: list[tuple[float, _Connection]] = []
        self._tls = ssl.create_default_context() if where.secure else None

    @asynccontextmanager
    async def exchange(
        self,
        verb: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        sent: Callable[[], None] | None = None,
        behind: bool = False,
    ) -> AsyncIterator[Reply]:
        """`sent` is called when the whole request was handed on. Leaving early closes the connection.

        `behind`: on a new connection, so that it is not read before what was sent on one that may not be accepted yet.

        Raises BrokerUnreachable, also for what goes wrong while the body is read inside.
        """
        connection = (None if behind else self._rested()) or await self._connect()
        reply: Reply | None = None
        try:
            connection.writer.write(self._head(verb, headers, body) + body)
            await connection.writer.drain()
            if sent is not None:
                sent()
            reply = await _read_head(connection.reader)
            yield reply
        except BROKEN as error:
            raise self._lost(error) from error
        finally:
            if reply is not None and reply.ended and connection.usable() and len(self._idle) < IDLE_MAX:
                self._idle.append((asyncio.get_running_loop().time(), connection))
            else:
                connection.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _rested(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, connection = self._idle.pop()
            if connection.usable() and now - since < IDLE_S:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        where = self.where
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                opened = asyncio.open_connection(where.host, where.port, ssl=self._tls, limit=HEAD_BYTES)
                connection = _Connection(*await opened)
        except OSError as error:
            raise BrokerUnreachable(_why(error)) from error
        found = connection.writer.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _head(self, verb: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = [f"{verb} {self.where.path} HTTP/1.1", f"Host: {self.where.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    @staticmethod
    def _lost(error: Exception) -> BrokerUnreachable:
        broken = isinstance(error, (OSError, EOFError))
        return BrokerUnreachable("the connection broke" if broken else "it did not answer as HTTP", sent=True)


async def _read_head(reader: asyncio.StreamReader) -> Reply:
    while True:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        status = int(first.split(" ", 2)[1]) if first.startswith("HTTP/1.") and " " in first else 0
        if status == 0:
            raise ValueError(first)
        if status >= 200:
            split = (line.partition(":") for line in lines)
            return Reply(status, {name.strip().lower(): value.strip() for name, _, value in split}, reader)


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "the connection timed out"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return error.strerror or str(error)
