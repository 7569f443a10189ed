"""An MCP upstream that is never the bottleneck: a plain ASGI application with the tool `echo`, in both eras.

It checks nothing; it counts the calls it answered (`GET /calls`), so that its books can be laid beside the broker's.
With `--tools N` it lists so many tools, all of which echo, at every path. With `--stdio` the same server speaks over its
standard streams.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import orjson

__all__ = ["Upstream", "VERSIONS"]

VERSIONS = ("2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26")
ECHO = {
    "name": "echo",
    "description": "Say the text again.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
INFO = {"name": "bench-upstream", "version": "1"}
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = {"tools": {"listChanged": False}}
JSON = (b"content-type", b"application/json")


class Upstream:
    """An ASGI application; also usable message by message."""

    def __init__(self, tools: int = 1) -> None:
        self.calls = 0
        self._tools = [ECHO, *map(_another, range(1, tools))]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] != "POST":
            counted = scope["method"] == "GET" and scope["path"] == "/calls"
            await _reply(send, 200 if counted or scope["method"] == "DELETE" else 405, b"%d" % self.calls, [])
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = orjson.loads(body)
        answer = self.answer(request)
        if answer is None:
            await _reply(send, 202, b"", [])
            return
        named = [(b"mcp-session-id", os.urandom(16).hex().encode())] if request["method"] == "initialize" else []
        await _reply(send, 200, orjson.dumps(answer), [JSON, *named])

    def answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to one message; None to a notification."""
        if "id" not in request:
            return None
        params = request.get("params") or {}
        result = self._result(request["method"], params)
        if result is None:
            return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "Method not found"}}
        if VERSION_KEY in (params.get("_meta") or {}):
            result["resultType"] = "complete"
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "tools/call":
            self.calls += 1
            return {"content": [{"type": "text", "text": params["arguments"]["text"]}], "isError": False}
        if method == "tools/list":
            modern = {"ttlMs": 0, "cacheScope": "private"} if "_meta" in params else {}
            return {"tools": self._tools, **modern}
        if method == "initialize":
            return {"protocolVersion": params["protocolVersion"], "capabilities": CAPABILITIES, "serverInfo": INFO}
        if method == "server/discover":
            meta = {"io.modelcontextprotocol/serverInfo": INFO}
            known = {"supportedVersions": list(VERSIONS), "capabilities": CAPABILITIES}
            return {**known, "ttlMs": 0, "cacheScope": "private", "_meta": meta}
        return {} if method == "ping" else None


def _another(number: int) -> dict[str, Any]:
    """A definition of a usual length."""
    properties = {
        "text": {"type": "string", "description": "What is said again, word for word."},
        "customer": {
            "type": "string",
            "description": "The customer's number as it is in the books, C- and six digits.",
        },
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    }
    return {
        "name": f"echo_{number:03}",
        "title": f"Echo {number}",
        "description": f"Say the text again, in the way number {number}. Use it where a customer asks what was said.",
        "inputSchema": {"type": "object", "properties": properties, "required": ["text"]},
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }


async def _reply(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


def over_stdio(upstream: Upstream) -> None:
    """One message a line, answered before the next is read."""
    reader, writer = sys.stdin.buffer, sys.stdout.buffer
    for line in reader:
        answer = upstream.answer(orjson.loads(line))
        if answer is not None:
            writer.write(orjson.dumps(answer) + b"\n")
            writer.flush()


if __name__ == "__main__":
    many = int(sys.argv[sys.argv.index("--tools") + 1]) if "--tools" in sys.argv else 1
    if "--stdio" in sys.argv:
        over_stdio(Upstream(many))
    else:
        import listening

        listening.run(Upstream(many))
