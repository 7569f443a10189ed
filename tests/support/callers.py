"""Callers of a broker's tools over real HTTP, one call at a time each, in the three ways that a client can ask.

A caller goes on whatever it is answered, and says of each answer what it was and when the kernel had it. It can hang up in
the middle of a call.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from bench.load import HANDSHAKE_VERSION, META, MODERN_VERSION, Wire, Wrong, _headers, _message
from support.stamped import StampedSocket, stamped

__all__ = ["MODES", "REFUSAL_KEY", "Answer", "Caller", "Mode"]

Mode = Literal["stream", "json", "handshake"]
MODES: tuple[Mode, ...] = ("stream", "json", "handshake")
"""2026-07-28 answered by an event stream or by JSON, and the revisions before it with `initialize` and a session id."""
IDEMPOTENCY_KEY = "io.haltline/idempotency-key"
REFUSAL_KEY = "io.haltline/refusal"
"""Under which a result says in `_meta` that it is a refusal."""
_ACCEPT = {
    "stream": "text/event-stream",
    "json": "application/json",
    "handshake": "application/json, text/event-stream",
}
Kind = Literal["result", "refused", "error", "http", "lost"]


@dataclass(frozen=True, slots=True)
class Answer:
    """`result`: what the upstream said. `refused`: what Haltline said, with its `code`. `lost`: no answer came."""

    kind: Kind
    code: str = ""
    """The first reason of a refusal; the status of an HTTP error; the code of a JSON-RPC error."""
    said: Mapping[str, Any] | None = None
    """What the counting upstream put into its result."""
    at_ns: int = 0
    """When the last of it arrived."""
    id: Any = None
    message: Mapping[str, Any] | None = None


class Caller:
    """One MCP session on one connection, which is opened again when it is gone."""

    def __init__(self, port: int, token: str, mode: Mode) -> None:
        self.mode = mode
        self.sent = False
        """Whether the whole request of the running call was handed to the kernel."""
        self._port = port
        self._lines = [
            "POST /mcp HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Content-Type: application/json",
            f"Accept: {_ACCEPT[mode]}",
            f"Authorization: Bearer {token}",
        ]
        if mode != "handshake":
            self._lines.append(f"MCP-Protocol-Version: {MODERN_VERSION}")
        self._wire = Wire()
        self._socket: StampedSocket | None = None
        self._session: list[str] | None = None if mode == "handshake" else []
        self._ids = 0

    async def call(
        self, tool: str, arguments: Mapping[str, Any], *, identifier: Any = None, key: str | None = None
    ) -> Answer:
        """One `tools/call`, with an idempotency key where one is given. Never raises: whatever becomes of it is an answer."""
        self._ids += 1
        identifier = self._ids if identifier is None else identifier
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        extra: list[str] = []
        if self.mode != "handshake":
            params["_meta"] = dict(META)
            extra = ["Mcp-Method: tools/call", f"Mcp-Name: {tool}"]
        if key is not None:
            params.setdefault("_meta", {})[IDEMPOTENCY_KEY] = key
        self.sent = False
        try:
            if self._session is None:
                await self.open()
            message = {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}
            status, head, body = await self._post(message, extra)
        except (OSError, Wrong) as error:
            return Answer("lost", code=str(error))
        at_ns = self._socket.last_ns if self._socket is not None else 0
        return _read(status, head, body, at_ns)

    async def open(self) -> None:
        """Initialize, in the handshake era. Raises OSError or Wrong."""
        params = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        status, head, body = await self._post(message, [])
        if status != 200:
            raise Wrong(f"initialize: {status} {body[:200]!r}")
        self._session = [
            f"Mcp-Session-Id: {_headers(head)['mcp-session-id']}",
            f"MCP-Protocol-Version: {HANDSHAKE_VERSION}",
        ]
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, [])

    def cut(self, *, reset: bool = False) -> None:
        """Hang up now; the running call is lost. `reset`: without a goodbye."""
        if reset and self._wire._transport is not None:
            self._wire._transport.abort()
        self._wire.close()

    async def _post(self, message: Mapping[str, Any], extra: list[str]) -> tuple[int, bytes, bytes]:
        if not self._wire.open:
            await self._connect()
        body = orjson.dumps(message)
        replied: asyncio.Future[tuple[int, bytes, bytes]] = asyncio.get_running_loop().create_future()

        def on_reply(status: int, head: bytes, content: bytes) -> None:
            if not replied.done():
                replied.set_result((status, head, content))

        def on_lost() -> None:
            if not replied.done():
                replied.set_exception(ConnectionResetError("the connection was lost"))

        self._wire.on_reply, self._wire.on_lost = on_reply, on_lost
        lines = [*self._lines, *(self._session or []), *extra, f"Content-Length: {len(body)}", "", ""]
        self._wire.write("\r\n".join(lines).encode() + body)
        self.sent = True
        return await replied

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._socket = StampedSocket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setblocking(False)
        stamped(self._socket)
        try:
            await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
            _, self._wire = await loop.create_connection(Wire, sock=self._socket)
        except BaseException:
            self._socket.close()
            raise


def _read(status: int, head: bytes, body: bytes, at_ns: int) -> Answer:
    if status == 401 or not body:
        return Answer("http", code=str(status), at_ns=at_ns)
    try:
        message = _message(body, stream=b"text/event-stream" in head)
    except Wrong:
        return Answer("http", code=f"{status} {body[:200]!r}", at_ns=at_ns)
    identifier = message.get("id")
    if "error" in message:
        return Answer("error", code=str(message["error"]["code"]), at_ns=at_ns, id=identifier, message=message)
    result = message["result"]
    refused = (result.get("_meta") or {}).get(REFUSAL_KEY)
    if refused is not None:
        code = refused["reasons"][0]["code"]
        return Answer("refused", code=code, at_ns=at_ns, id=identifier, message=message)
    said = json.loads(result["content"][0]["text"])
    return Answer("result", said=said, at_ns=at_ns, id=identifier, message=message)
