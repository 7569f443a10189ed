"""MCP clients that know no types: what was sent back comes back as it was, every message of a reply in its order."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping
from typing import Any

__all__ = ["HttpClient", "StdioClient"]

INFO = {"name": "raw", "version": "1", "x-more": None}
MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"
TIMEOUT_S = 30.0
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
Messages = list[dict[str, Any]]


class HttpClient:
    """`modern`: 2026-07-28, else the handshake. `capabilities` are declared as given."""

    def __init__(
        self, port: int, *, modern: bool, token: str | None = None, capabilities: Mapping[str, Any] | None = None
    ) -> None:
        self.modern = modern
        self._capabilities = dict(capabilities or {})
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        if modern:
            self._headers["MCP-Protocol-Version"] = MODERN

    def open(self) -> dict[str, Any]:
        """What the server says of itself."""
        if self.modern:
            return self.ask("server/discover")[-1]
        told = {"protocolVersion": HANDSHAKE, "capabilities": self._capabilities, "clientInfo": INFO}
        answer = self.ask("initialize", told)[-1]
        self._headers["MCP-Protocol-Version"] = HANDSHAKE
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, {})
        return answer

    def ask(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        identifier: Any = 0,
        meta: Any = None,
        last_only: bool = False,
    ) -> Messages:
        """Everything that was said in reply: notifications, then the answer. `last_only`: nothing but the answer."""
        sent = dict(params or {})
        kept = dict(meta or {})
        extra = {}
        if self.modern:
            kept |= _envelope(self._capabilities)
            extra["Mcp-Method"] = method
            if method in NAMED:
                extra["Mcp-Name"] = str(sent[NAMED[method]])
        if kept:
            sent["_meta"] = kept
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": identifier, "method": method}
        return self._post({**message, "params": sent} if sent else message, extra, last_only=last_only)

    def _post(self, message: Mapping[str, Any], extra: Mapping[str, str], *, last_only: bool = False) -> Messages:
        self._connection.request("POST", "/mcp", json.dumps(message).encode(), {**self._headers, **extra})
        reply = self._connection.getresponse()
        body = reply.read()
        if reply.headers.get("Mcp-Session-Id"):
            self._headers["Mcp-Session-Id"] = reply.headers["Mcp-Session-Id"]
        if not body:
            return []
        if reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            told = [line[5:] for line in body.split(b"\n") if line.startswith(b"data:") and line[5:].strip()]
            return [json.loads(one) for one in (told[-1:] if last_only else told)]
        return [json.loads(body)]

    def close(self) -> None:
        self._connection.close()


def _envelope(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": dict(capabilities),
        "io.modelcontextprotocol/clientInfo": INFO,
        "io.modelcontextprotocol/logLevel": "debug",
    }


class StdioClient:
    """One program, one question at a time. `modern` and `capabilities`: as of `HttpClient`."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        *,
        modern: bool = False,
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        self._modern = modern
        self._capabilities = dict(capabilities or {})
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )

    def open(self) -> dict[str, Any]:
        if self._modern:
            return self.ask("server/discover")[-1]
        told = {"protocolVersion": HANDSHAKE, "capabilities": self._capabilities, "clientInfo": INFO}
        answer = self.ask("initialize", told)[-1]
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def ask(
        self, method: str, params: Mapping[str, Any] | None = None, *, identifier: Any = 0, meta: Any = None
    ) -> Messages:
        kept = {**(meta or {}), **(_envelope(self._capabilities) if self._modern else {})}
        sent = {**(params or {}), **({"_meta": kept} if kept else {})}
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": identifier, "method": method}
        self._write({**message, "params": sent} if sent else message)
        heard: Messages = []
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            heard.append(json.loads(line))
            if "method" not in heard[-1] and heard[-1].get("id") == identifier:
                return heard
        raise EOFError(method)

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
