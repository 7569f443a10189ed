"""Upstreams that say which credential they were given: an HTTP server of either era that writes down every request, and a program.

`python -m support.who_upstream` is the program: its tool `who` answers with `WHO_TOKEN` of its environment and its process id. What it lists may be in a file, `WHO_DEFINITIONS`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Heard", "WhoServer", "who_server"]

TOOLS = [{"name": "who", "description": "Who calls.", "inputSchema": {"type": "object"}}]
MODERN = "2026-07-28"


@dataclass(frozen=True)
class Heard:
    """One request as it came in. `connection`: the port of the other side."""

    method: str
    authorization: str | None
    session: str | None
    connection: int
    mark: str | None


@dataclass
class WhoServer:
    """`refuse`: credentials that are answered with 401."""

    url: str = ""
    modern: bool = True
    heard: list[Heard] = field(default_factory=list)
    refuse: set[str | None] = field(default_factory=set)
    sessions: dict[str, str | None] = field(default_factory=dict)

    def calls(self) -> list[Heard]:
        return [one for one in self.heard if one.method == "tools/call"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    who: WhoServer

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, session = message["method"], self.headers["Mcp-Session-Id"]
        authorization = self.headers["Authorization"]
        mark = message.get("params", {}).get("arguments", {}).get("mark")
        self.who.heard.append(Heard(method, authorization, session, self.client_address[1], mark))
        if authorization in self.who.refuse:
            self._send(401, None, {})
        elif session is not None and self.who.sessions.get(session) != authorization:
            self._send(403, None, {})
        elif "id" not in message:
            self._send(202, None, {})
        else:
            answer, headers = self._answer(method, authorization)
            self._send(200, {"jsonrpc": "2.0", "id": message["id"], **answer}, headers)

    def do_GET(self) -> None:
        self._send(405, None, {})

    def do_DELETE(self) -> None:
        self.who.heard.append(
            Heard("DELETE", self.headers["Authorization"], self.headers["Mcp-Session-Id"], self.client_address[1], None)
        )
        self._send(200, None, {})

    def _answer(self, method: str, authorization: str | None) -> tuple[dict[str, Any], dict[str, str]]:
        if method == "server/discover" and self.who.modern:
            info = {"name": "who", "version": "1"}
            return {"result": {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "serverInfo": info}}, {}
        if method == "initialize":
            identifier = f"session-{len(self.who.sessions)}"
            self.who.sessions[identifier] = authorization
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "w", "version": "1"},
            }
            return {"result": result}, {"Mcp-Session-Id": identifier}
        if method == "tools/list":
            return {"result": {"tools": TOOLS}}, {}
        if method == "tools/call":
            return {"result": {"content": [{"type": "text", "text": str(authorization)}]}}, {}
        return {"error": {"code": -32601, "message": "Method not found"}}, {}

    def _send(self, status: int, body: dict[str, Any] | None, headers: dict[str, str]) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read what was heard."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broker that hangs up is no matter."""


@contextmanager
def who_server(*, modern: bool) -> Iterator[WhoServer]:
    who = WhoServer(modern=modern)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"who": who}))
    who.url = f"http://127.0.0.1:{server.server_address[1]}/mcp"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield who
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        if message["method"] == "initialize":
            result: dict[str, Any] = {
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "w", "version": "1"},
            }  # fmt: skip
        elif message["method"] == "tools/list":
            file = os.environ.get("WHO_DEFINITIONS")
            result = {"tools": TOOLS if file is None else json.loads(Path(file).read_text("utf-8"))}
        else:
            said = f"{os.environ.get('WHO_TOKEN')} {os.getpid()} {os.environ.get('COMMON')}"
            result = {"content": [{"type": "text", "text": said}]}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)


if __name__ == "__main__":
    main()
