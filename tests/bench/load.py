"""A load client that is never the bottleneck: MCP sessions on bare asyncio protocols, in both eras, each answer checked.

A session sends its next call from within the callback that received the answer to the last: no task, future or HTTP library
is in the way while it is measured. Every answer must carry the id and the text of the call that it answers.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ERAS", "Era", "Sample", "Session", "Wrong", "percentile", "run"]

Era = Literal["handshake", "2026-07-28"]
ERAS: tuple[Era, ...] = ("handshake", "2026-07-28")
HANDSHAKE_VERSION = "2025-11-25"
MODERN_VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}
OPEN_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 30.0
Reply = tuple[int, dict[str, str], bytes]


class Wrong(Exception):  # noqa: N818 - a finding about the server, not an error of ours
    """An answer that is not the one to the call."""


class Wire(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with at most one request on it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.on_reply: Callable[[int, bytes, bytes], None] = _ignored
        self.on_lost: Callable[[], None] = _nothing

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self.on_lost()

    def write(self, data: bytes) -> None:
        if self._transport is None:
            raise Wrong("the connection is closed")
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        body = self._body(head.lower(), end + 4)
        if body is not None:
            self._buffer.clear()
            self.on_reply(int(head[9:12]), head, body)

    def _body(self, head: bytes, start: int) -> bytes | None:
        """The whole body, or None while it is not all there."""
        at = head.find(b"content-length:")
        if at >= 0:
            line_end = head.find(b"\r\n", at)
            length = int(head[at + 15 : line_end if line_end > 0 else len(head)])
            return bytes(self._buffer[start : start + length]) if len(self._buffer) >= start + length else None
        if b"transfer-encoding: chunked" in head:
            return _dechunked(bytes(self._buffer[start:]))
        return b""


@dataclass
class Sample:
    """What a measured span gave. Latencies in seconds; `answered` also counts the calls of the warm-up."""

    latencies: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    answered: int = 0

    @property
    def per_s(self) -> float:
        return len(self.latencies) / self.elapsed_s if self.elapsed_s else 0.0


class Session:
    """One MCP session on one connection. `era`: with `initialize` and a session id, or 2026-07-28."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        era: Era,
        tool: str,
        token: str | None = None,
        name: str = "s",
        path: str = "/mcp",
    ) -> None:
        self.era = era
        self._address = (host, port)
        self._tool = tool
        self._name = name
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
        ]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        self._lines = lines
        self._wire = Wire()
        self._count = 0
        self._call_head = b""
        self._call_tail = b""
        self._expected = b""
        self._sent_at = 0.0

    async def open(self, *, bare: bool = False) -> None:
        """Connect and, in the handshake era, initialize. `bare`: the other side is no MCP server."""
        await self._connect()
        if self.era == "2026-07-28":
            self._lines.append(f"MCP-Protocol-Version: {MODERN_VERSION}")
        elif not bare:
            await self._initialize()
        modern = self.era == "2026-07-28"
        extra = ["Mcp-Method: tools/call", f"Mcp-Name: {self._tool}"] if modern else []
        self._call_head = "\r\n".join([*self._lines, *extra]).encode() + b"\r\nContent-Length: "
        meta = b',"_meta":' + orjson.dumps(META) if modern else b""
        self._call_tail = b'"},"name":' + orjson.dumps(self._tool) + meta + b"}}"

    async def _connect(self) -> None:
        if not self._wire.open:
            loop = asyncio.get_running_loop()
            _, self._wire = await loop.create_connection(Wire, *self._address)

    async def _initialize(self) -> None:
        client = {"name": "bench", "version": "1"}
        params = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": client}
        status, headers, body = await self._post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        answer = _message(body, stream=headers.get("content-type", "").startswith("text/event-stream"))
        if status != 200 or "result" not in answer:
            raise Wrong(f"initialize: {status} {body[:300]!r}")
        if "mcp-session-id" in headers:
            self._lines.append(f"Mcp-Session-Id: {headers['mcp-session-id']}")
        self._lines.append(f"MCP-Protocol-Version: {answer['result']['protocolVersion']}")
        status, _, body = await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        if status not in {200, 202, 204}:
            raise Wrong(f"notifications/initialized: {status} {body[:300]!r}")

    async def ask(self, method: str) -> bytes:
        """The body of the answer to any request; raises Wrong where it is no result."""
        self._count += 1
        modern = self.era == "2026-07-28"
        params = {"_meta": META} if modern else {}
        message = {"jsonrpc": "2.0", "id": self._count, "method": method, "params": params}
        status, _, body = await self._post(message, [f"Mcp-Method: {method}"] if modern else [])
        if status != 200 or b'"result"' not in body:
            raise Wrong(f"{method}: {status} {body[:300]!r}")
        return body

    async def _post(self, message: dict[str, Any], extra: Sequence[str] = ()) -> Reply:
        body = orjson.dumps(message)
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._wire.on_reply = lambda status, head, content: replied.set_result((status, _headers(head), content))
        head = "\r\n".join([*self._lines, *extra, f"Content-Length: {len(body)}"]).encode()
        self._wire.write(head + b"\r\n\r\n" + body)
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await replied

    # measuring

    async def spin(self, until: float, sample: Sample, *, keep: bool) -> None:
        """Call, one after the other, until the clock passes `until`; latencies are kept if `keep`."""
        await self._connect()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        latencies = sample.latencies
        clock = time.perf_counter

        def on_reply(status: int, head: bytes, body: bytes) -> None:
            now = clock()
            try:
                self._check(status, head, body)
            except Wrong as error:
                ended.set_exception(error)
                return
            sample.answered += 1
            if keep:
                latencies.append(now - self._sent_at)
            if now >= until:
                ended.set_result(None)
            else:
                self._send()

        def on_lost() -> None:
            if not ended.done():
                ended.set_exception(Wrong("the connection was lost in the middle of a call"))

        self._wire.on_reply, self._wire.on_lost = on_reply, on_lost
        self._send()
        try:
            async with asyncio.timeout(until - clock() + ANSWER_TIMEOUT_S):
                await ended
        except TimeoutError as error:
            raise Wrong(f"call {self._count} of {self._name}: no answer within {ANSWER_TIMEOUT_S:g} s") from error
        finally:
            self._wire.on_lost = _nothing

    def _send(self) -> None:
        self._count = count = self._count + 1
        text = b"%s-%d" % (self._name.encode(), count)
        self._expected = text
        body = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"arguments":{"text":"%s' % (count, text)
        body += self._call_tail
        self._sent_at = time.perf_counter()
        self._wire.write(self._call_head + b"%d\r\n\r\n" % len(body) + body)

    def _check(self, status: int, head: bytes, body: bytes) -> None:
        if status != 200:
            raise Wrong(f"{status} {body[:400]!r}")
        answer = _message(body, stream=b"text/event-stream" in head)
        result = answer.get("result")
        if answer.get("id") != self._count or not isinstance(result, dict) or result.get("isError"):
            raise Wrong(f"call {self._count} of {self._name}: {body[:400]!r}")
        if result["content"][0]["text"].encode() != self._expected:
            raise Wrong(f"call {self._count} of {self._name} got another's echo: {body[:400]!r}")

    def close(self) -> None:
        self._wire.close()


async def run(sessions: Sequence[Session], seconds: float, *, warm_s: float = 0.2) -> Sample:
    """All sessions at once, for `seconds` after a warm-up. The garbage collector rests meanwhile."""
    sample = Sample()
    await _all(sessions, time.perf_counter() + warm_s, sample, keep=False)
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        await _all(sessions, start + seconds, sample, keep=True)
        sample.elapsed_s = time.perf_counter() - start
    finally:
        gc.enable()
    return sample


async def _all(sessions: Sequence[Session], until: float, sample: Sample, *, keep: bool) -> None:
    """Raises what went wrong first; the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                tasks.create_task(session.spin(until, sample, keep=keep))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank: the smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else float("nan")


def _message(body: bytes, *, stream: bool) -> dict[str, Any]:
    """The response in a JSON body or in an event stream."""
    if not stream:
        return _parsed(body)
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if data:
            message = _parsed(data)
            if "result" in message or "error" in message:
                return message
    raise Wrong(f"an event stream without an answer: {body[:400]!r}")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Wrong(f"not JSON: {body[:400]!r}") from error
    if not isinstance(message, dict):
        raise Wrong(f"not an object: {body[:400]!r}")
    return message


def _dechunked(data: bytes) -> bytes | None:
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end].split(b";")[0], 16)
        at = end + 2
        if len(data) < at + size + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[at : at + size])
        at += size + 2


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.decode("latin-1").lower(): value.strip().decode("latin-1") for name, _, value in lines}


def _ignored(status: int, head: bytes, body: bytes) -> None:
    del status, head, body


def _nothing() -> None:
    return
