"""Receivers of alerts: real HTTP on loopback, in the test's own event loop, answering as scripted.

Each answer of the script serves one request, in order of arrival; after them every request is taken. Nothing is checked
here: what came is kept for the test to look at.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

__all__ = ["CLOSE", "HANG", "Answer", "Received", "Receiver", "receiver"]


@dataclass(frozen=True)
class Answer:
    """`endless`: the body never ends, without a length."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bool = False


HANG = Answer(0)
"""Takes the request and says nothing for as long as the receiver lives."""
CLOSE = Answer(-1)
"""Takes the request and closes the connection."""


@dataclass(frozen=True)
class Received:
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def delivery(self) -> str:
        return self.headers["x-haltline-delivery"]

    @property
    def labels(self) -> dict[str, str]:
        return self.json["alerts"][0]["labels"]


class Receiver:
    def __init__(self, script: tuple[Answer, ...]) -> None:
        self.received: list[Received] = []
        self.script = deque(script)
        self.port = 0
        self.connections = 0
        self._arrived = anyio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def got(self, count: int) -> list[Received]:
        """Wait until that many requests have arrived."""
        with anyio.fail_after(30):
            while len(self.received) < count:
                await self._arrived.wait()
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received.append(Received(head[0].split(" ")[1], headers, body))
        answer = self.script.popleft() if self.script else Answer()
        self._arrived.set()
        self._arrived = anyio.Event()
        if answer is HANG:
            await asyncio.Event().wait()
        if answer is CLOSE:
            return False
        await self._answer(writer, answer)
        return not answer.endless

    async def _answer(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        length = {} if answer.endless else {"Content-Length": str(len(answer.body))}
        lines = [f"{name}: {value}" for name, value in {**length, **answer.headers}.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {answer.status} Scripted", *lines, "", ""]).encode() + answer.body)
        await writer.drain()
        while answer.endless:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def receiver(*script: Answer) -> AsyncIterator[Receiver]:
    one = Receiver(script)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await one.stop()
