"""An MCP endpoint over HTTP whose every answer a test writes, and what it was asked, on a real port."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

__all__ = ["Asked", "FakeEndpoint", "fake_endpoint"]

SESSION = "session-1"


class Asked:
    """One request, and the ways to answer it."""

    def __init__(self, verb: str, headers: dict[str, str], body: bytes, reader: Any, writer: Any) -> None:
        self.verb = verb
        self.headers = headers
        self.body = body
        self.message: Any = json.loads(body, parse_int=_integer) if body else None
        self.ended = False
        self._reader = reader
        self._writer = writer

    @property
    def what(self) -> str:
        """The method of a message, `response` where it has none, else the verb."""
        return self.verb if self.message is None else self.message.get("method", "response")

    @property
    def id(self) -> Any:
        return self.message["id"]

    @property
    def connection(self) -> object:
        """The same for all that came on one."""
        return self._writer

    async def reply(self, status: int, value: Any = None, **headers: str) -> None:
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
        if body:
            lines.append("Content-Type: application/json")
        lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        await self._send("\r\n".join([*lines, "", ""]).encode() + body)
        self.ended = True

    async def result(self, value: Any, **headers: str) -> None:
        await self.reply(200, {"jsonrpc": "2.0", "id": self.id, "result": value}, **headers)

    async def error(self, code: int, text: str, status: int = 400) -> None:
        await self.reply(status, {"jsonrpc": "2.0", "id": self.id, "error": {"code": code, "message": text}})

    async def begin(self) -> None:
        """An event stream."""
        await self._send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def event(self, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        await self.chunk(b"event: message\ndata: " + data + b"\n\n")

    async def chunk(self, data: bytes) -> None:
        await self._send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self._send(b"0\r\n\r\n")
        self.ended = True

    async def gone(self) -> None:
        """Returns when the other side has closed."""
        with suppress(ConnectionError):
            while await self._reader.read(1024):
                pass

    def cut(self) -> None:
        self._writer.transport.abort()

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) < 4_000 else digits


Answering = Callable[[Asked], Awaitable[None]]


class FakeEndpoint:
    """`on` has what answers a method or a verb; without it comes the plainest answer there is."""

    def __init__(self) -> None:
        self.on: dict[str, Answering] = {}
        self.asked: list[Asked] = []
        self.port = 0
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def of(self, what: str) -> list[Asked]:
        return [one for one in self.asked if one.what == what]

    async def arrived(self, what: str, count: int = 1) -> Asked:
        """The last of so many."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.of(what)) >= count)
        return self.of(what)[count - 1]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Nobody listens any more, and every connection is closed."""
        assert self._server is not None
        self._server.close()
        for one in self._serving:
            one.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(first.split()[0], headers, body, reader, writer)
        self.asked.append(asked)
        async with self._arrived:
            self._arrived.notify_all()
        await self.on.get(asked.what, _plainly)(asked)
        return asked.ended


async def _plainly(asked: Asked) -> None:
    if asked.verb != "POST":
        await asked.reply(405 if asked.verb == "GET" else 204)
    elif asked.what == "initialize":
        agreed = {"protocolVersion": asked.message["params"]["protocolVersion"], "capabilities": {}, "serverInfo": {}}
        await asked.result(agreed, Mcp_Session_Id=SESSION)
    elif "id" not in asked.message or asked.what == "response":
        await asked.reply(202)
    else:
        await asked.result({"content": [{"type": "text", "text": asked.what}]})


@asynccontextmanager
async def fake_endpoint(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeEndpoint]:
    endpoint = FakeEndpoint()
    await endpoint.start(tls)
    try:
        yield endpoint
    finally:
        await endpoint.stop()
