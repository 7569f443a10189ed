"""An MCP upstream that sends what `rich_messages` holds, byte for byte as it is there: a bare ASGI application, or a program.

python -m support.rich_upstream (modern|handshake) (json|sse)      prints its port and process id on one line
python -m support.rich_upstream (modern|handshake) stdio           speaks over its standard streams
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from bench import processes
from support.counting_upstream import environment
from support.rich_messages import CAPABILITIES, LISTS, NOTICES, PROMPTS, READ, RESULTS

__all__ = ["rich_upstream"]

INFO = {"name": "rich", "title": None, "version": "1", "x-more": [1, None]}
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"


class RichUpstream:
    def __init__(self, *, handshake: bool, stream: bool) -> None:
        self._handshake = handshake
        self._stream = stream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = json.loads(body) if body else {}
        if scope["method"] != "POST" or "id" not in request:
            await _reply(send, 202 if request else 200 if scope["method"] == "DELETE" else 405, b"", [])
            return
        *notices, answer = self.said(request)
        if self._stream or notices:
            await _events(send, [*notices, answer])
            return
        extra = [(b"mcp-session-id", os.urandom(9).hex().encode())] if request["method"] == "initialize" else []
        await _reply(send, 200, _json(answer), [(b"content-type", b"application/json"), *extra])

    def said(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """What is told, then the answer."""
        params = request.get("params") or {}
        answer = {"jsonrpc": "2.0", "id": request["id"], **self._answer(request["method"], params)}
        if not self._handshake and "result" in answer and params.get("name") != "nothing":
            answer["result"] = {"resultType": "complete", **answer["result"]}
        return [*self._notices(request["method"], params), answer]

    def over_stdio(self) -> None:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if "id" in request:
                for message in self.said(request):
                    sys.stdout.buffer.write(_json(message) + b"\n")
                sys.stdout.buffer.flush()

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "tools/call" and params["name"] == "params":
            return {"result": {"content": [], "structuredContent": params}}
        if method == "tools/call":
            return RESULTS[params["name"]]
        result = self._result(method, params)
        return {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "initialize" and self._handshake:
            told = {"protocolVersion": params["protocolVersion"], "capabilities": CAPABILITIES, "serverInfo": INFO}
            return {**told, "instructions": "Use me."}
        if method == "server/discover" and not self._handshake:
            return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}
        if method in LISTS:
            key, items = LISTS[method]
            return {key: items}
        found: dict[str, Any] | None = {
            "prompts/get": lambda: PROMPTS.get(params["name"]),
            "resources/read": lambda: READ.get(params["uri"]),
            "completion/complete": lambda: {
                "completion": {"values": ["a", "", "é"], "total": 3, "hasMore": None, "x-more": 1.0},
                "_meta": {"asked": params["ref"], "argument": params["argument"]},
            },
            "logging/setLevel": dict,
            "ping": dict,
        }.get(method, lambda: None)()
        return found

    @staticmethod
    def _notices(method: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        if method != "tools/call" or params["name"] != "talks":
            return []
        token = (params.get("_meta") or {}).get("progressToken")
        raw = json.dumps(NOTICES).replace('"TOKEN"', json.dumps(token))
        return [{"jsonrpc": "2.0", **notice} for notice in json.loads(raw)]


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


async def _reply(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    lines = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def _events(send: Any, messages: list[dict[str, Any]]) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for message in messages:
        event = b"event: message\ndata: " + _json(message) + b"\n\n"
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    if sys.argv[2] == "stdio":
        RichUpstream(handshake=sys.argv[1] == "handshake", stream=True).over_stdio()
        return
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], os.getpid(), flush=True)
    app = RichUpstream(handshake=sys.argv[1] == "handshake", stream=sys.argv[2] == "sse")
    config = uvicorn.Config(app, ws="none", lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def rich_upstream(folder: Path, era: str, shape: str) -> Iterator[int]:
    """Its port, while the block runs."""
    log = folder / f"rich-{era}-{shape}.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.rich_upstream", era, shape],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield int(processes.first_line(process, log).split()[0])
    finally:
        processes.end(process)


if __name__ == "__main__":
    main()
