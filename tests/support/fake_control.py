"""A control endpoint for client tests: a real HTTP server in a thread that speaks one-POST MCP of 2026-07-28.

It checks what a client must send, records it, and answers from a table of prepared results. Knows nothing of brokers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["PERSON", "LOCAL", "Failure", "FakeControl", "RawAnswer", "fake_control"]

PERSON = "hl_o_person_secret"
LOCAL = "hl_o_local_secret"
PERSON_ONLY = {
    "resume", "reissue_agent", "resolve_in_doubt", "import_tools", "reload_policy", "approve_tool",
    "add_operator", "rotate_operator", "revoke_operator",
}  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """An answer with isError and the contract's error object."""

    code: str
    message: str


@dataclass(frozen=True)
class RawAnswer:
    """Bytes as they are, for answers that no broker should give. With `close`, nothing at all is sent back."""

    status: int = 200
    kind: str = "application/json"
    body: bytes = b""
    close: bool = False


Answer = dict[str, Any] | Failure | RawAnswer


@dataclass
class FakeControl:
    url: str = ""
    as_stream: bool = False
    answers: dict[str, Answer | Callable[[dict[str, Any]], Answer]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    connections: list[Any] = field(default_factory=list)

    def answer(self, tool: str, arguments: dict[str, Any], token: str) -> Answer:
        if tool in PERSON_ONLY and token == LOCAL and not arguments.get("preview"):
            return Failure("operator.forbidden", "a person's own operator credential is needed for this")
        prepared = self.answers.get(tool, Failure("request.invalid", f"no answer prepared for {tool}"))
        return prepared(arguments) if callable(prepared) else prepared


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control: FakeControl

    def setup(self) -> None:
        super().setup()
        self.control.connections.append(self.connection)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.control.tokens.append(token)
        if token not in {PERSON, LOCAL}:
            self._send(RawAnswer(401, "text/plain", b"unknown"))
            return
        complaint = _complaint(self.headers, body, self.path)
        if complaint:
            self._send(RawAnswer(400, "text/plain", complaint.encode()))
            return
        tool, arguments = body["params"]["name"], body["params"]["arguments"]
        self.control.calls.append((tool, arguments))
        answer = self.control.answer(tool, arguments, token)
        if isinstance(answer, RawAnswer):
            self._send(answer)
        else:
            self._reply(body["id"], answer)

    def _reply(self, number: int, answer: dict[str, Any] | Failure) -> None:
        failed = isinstance(answer, Failure)
        content = {"error": {"code": answer.code, "message": answer.message}} if isinstance(answer, Failure) else answer
        result = {
            "content": [{"type": "text", "text": json.dumps(content)}],
            "structuredContent": content,
            "isError": failed,
            "resultType": "complete",
        }
        message = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
        if not self.control.as_stream:
            self._send(RawAnswer(body=message))
            return
        notice = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"hm"}}\n\n'
        self._send(RawAnswer(kind="text/event-stream", body=notice + b"event: message\ndata: " + message + b"\n\n"))

    def _send(self, raw: RawAnswer) -> None:
        if raw.close:
            self.close_connection = True
            return
        self.send_response(raw.status)
        self.send_header("Content-Type", raw.kind)
        self.send_header("Content-Length", str(len(raw.body)))
        self.end_headers()
        self.wfile.write(raw.body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read what was sent from `calls`."""


def _complaint(headers: Any, body: dict[str, Any], path: str) -> str:
    meta = body["params"].get("_meta", {})
    expected = {
        "path": (path, "/mcp"),
        "method": (body["method"], "tools/call"),
        "Content-Type": (headers["Content-Type"], "application/json"),
        "Accept": (headers["Accept"], "application/json, text/event-stream"),
        "MCP-Protocol-Version": (headers["MCP-Protocol-Version"], "2026-07-28"),
        "Mcp-Method": (headers["Mcp-Method"], "tools/call"),
        "Mcp-Name": (headers["Mcp-Name"], body["params"]["name"]),
        "version in _meta": (meta.get("io.modelcontextprotocol/protocolVersion"), "2026-07-28"),
        "capabilities in _meta": (meta.get("io.modelcontextprotocol/clientCapabilities"), {}),
        "client in _meta": (meta.get("io.modelcontextprotocol/clientInfo", {}).get("name"), "haltline-cli"),
    }
    return "; ".join(f"{what}: {got!r}" for what, (got, wanted) in expected.items() if got != wanted)


@contextmanager
def fake_control() -> Iterator[FakeControl]:
    """A running endpoint on a free loopback port."""
    control = FakeControl()
    handler = type("Handler", (_Handler,), {"control": control})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    control.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield control
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
