"""One MCP `tools/call` over HTTP: a single POST of the 2026-07-28 era, answered with JSON or an event stream.

Owns the connection, its limits and the reading of answers; knows nothing of what the tools mean.
Standard library only: a kill switch must start fast.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from haltline_client.errors import BrokerUnreachable, Refused, RequestFailed, SettingError
from haltline_client.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Wire"]

PROTOCOL_VERSION = "2026-07-28"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
READ_BYTES = 64 * 1024
LOOPBACK = re.compile(r"localhost|([\w-]+\.)+localhost|127(\.\d{1,3}){3}|::1", re.IGNORECASE)

# Doing one of these twice does no harm, so they alone are sent again when a kept connection turns out to be dead.
REPEATABLE = frozenset({"revoke", "halt", "status", "query_audit", "explain_decision"})
REPEATABLE_PREFIXES = ("list_", "show_")


class Wire:
    """A kept-alive connection to one control endpoint. Not for use by two threads at once."""

    def __init__(self, url: str, token: str, timeout_s: float, *, insecure_http: bool) -> None:
        self.url = url
        self._secure, self._host, self._port, self._path = _parse(url, insecure_http=insecure_http)
        if not _sendable(token):
            raise SettingError("the operator credential holds a space or an unprintable character: copy it again")
        self._token = token
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._last_id = 0

    def call(self, tool: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """The structured result of `tool`; raises BrokerUnreachable, Refused or RequestFailed."""
        kept = self._usable()
        try:
            return self._call(tool, arguments)
        except BrokerUnreachable as error:
            broken = isinstance(error.__cause__, (ConnectionError, http.client.HTTPException))
            if not (kept and broken and (tool in REPEATABLE or tool.startswith(REPEATABLE_PREFIXES))):
                raise
        return self._call(tool, arguments)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, tool: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        self._last_id += 1
        deadline = time.monotonic() + self._timeout_s
        response = self._post(tool, arguments)
        try:
            return self._answer(response, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        finally:
            if response.length == 0:
                response.close()
            elif not response.isclosed():
                self.close()

    def _post(self, tool: str, arguments: Mapping[str, object]) -> http.client.HTTPResponse:
        body = json.dumps(_message(self._last_id, tool, arguments)).encode()
        connection = self._connection or self._connect()
        self._connection = connection
        try:
            connection.request("POST", self._path, body, _headers(tool, self._token))
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._lost(error) from error

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.connect()
        except OSError as error:
            reason = "the connection timed out" if isinstance(error, TimeoutError) else (error.strerror or str(error))
            raise BrokerUnreachable(f"no broker answers at {self.url}: {reason}") from error
        return connection

    def _usable(self) -> bool:
        """Whether a kept connection is still open. Readable while nothing was asked means: closed by the other side."""
        sock = self._connection.sock if self._connection else None
        if sock is None or select.select([sock], [], [], 0)[0]:
            self.close()
            return False
        return True

    def _lost(self, error: Exception) -> BrokerUnreachable:
        what = f"no answer within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else "the connection broke"
        return BrokerUnreachable(
            f"{what} ({self.url}); the request may have been carried out, look before repeating it", sent=True
        )

    def _answer(self, response: http.client.HTTPResponse, deadline: float) -> dict[str, Any]:
        if response.status == http.client.UNAUTHORIZED:
            raise Refused(
                "operator.unknown",
                f"{self.url} does not know this operator credential, or it was revoked or rotated",
            )
        kind = response.headers.get_content_type()
        chunks = _chunks(response, deadline)
        if kind == "text/event-stream":
            reply = _from_stream(chunks, self._last_id)
        else:
            reply = _from_json(b"".join(chunks)) if kind == "application/json" else None
        if reply is None:
            raise self._not_mcp(response.status)
        return _structured(reply)

    def _not_mcp(self, status: int) -> Exception:
        if status >= http.client.INTERNAL_SERVER_ERROR:
            return BrokerUnreachable(f"{self.url} answered HTTP {status}", sent=True)
        if status == http.client.FORBIDDEN:
            return Refused("http.forbidden", f"{self.url} refused the request (HTTP 403): is its host name allowed?")
        return RequestFailed(
            "answer.invalid", f"{self.url} did not answer as a control endpoint (HTTP {status}): is this the right URL?"
        )


def _parse(url: str, *, insecure_http: bool) -> tuple[bool, str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query or parts.fragment:
        raise SettingError(f"{url!r} is not a control URL such as http://127.0.0.1:7401")
    secure = parts.scheme == "https"
    if not secure and not insecure_http and not LOOPBACK.fullmatch(host):
        raise SettingError(
            f"{url} would carry the operator credential unencrypted over the network: "
            "use https, a tunnel to the broker's machine, or --insecure-http if the network is trusted"
        )
    path = "/mcp" if parts.path in {"", "/"} else parts.path
    return secure, host, port or (443 if secure else 80), path


def _sendable(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def _message(number: int, tool: str, arguments: Mapping[str, object]) -> dict[str, object]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "haltline-cli", "version": __version__},
    }
    params = {"name": tool, "arguments": dict(arguments), "_meta": meta}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def _headers(tool: str, token: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": PROTOCOL_VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
        "Authorization": f"Bearer {token}",
    }


def _chunks(response: http.client.HTTPResponse, deadline: float) -> Iterator[bytes]:
    """The body as it arrives. The deadline is for the whole answer: a socket's own timeout restarts at every byte."""
    total = 0
    while chunk := response.read1(READ_BYTES):
        total += len(chunk)
        if total > MAX_ANSWER_BYTES:
            raise RequestFailed("answer.too_large", f"the answer is larger than {MAX_ANSWER_BYTES} bytes: ask for less")
        if time.monotonic() > deadline:
            raise TimeoutError
        yield chunk


def _from_json(body: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(body)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) and ("result" in reply or "error" in reply) else None


def _from_stream(chunks: Iterator[bytes], number: int) -> dict[str, Any] | None:
    """The answer to request `number` out of an event stream; progress and log notices before it are passed over."""
    pending = b""
    for chunk in chunks:
        *events, pending = re.split(rb"\r?\n\r?\n", pending + chunk)
        for event in events:
            data = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
            reply = _from_json(b"\n".join(data))
            if reply is not None and reply.get("id") in {number, None}:
                return reply
    return None


def _structured(reply: dict[str, Any]) -> dict[str, Any]:
    if "error" in reply:
        error = reply["error"] if isinstance(reply["error"], dict) else {}
        raise RequestFailed(f"mcp.{error.get('code', 'error')}", str(error.get("message", "the broker gave no reason")))
    result = reply["result"]
    content = result.get("structuredContent") if isinstance(result, dict) else None
    if isinstance(result, dict) and result.get("isError"):
        raise _failure(content, result)
    if not isinstance(content, dict):
        raise RequestFailed("answer.invalid", "the broker's answer has no structured result")
    return content


def _failure(content: object, result: Mapping[str, Any]) -> Refused | RequestFailed:
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, dict):
        code, message = str(error.get("code", "request.failed")), str(error.get("message", ""))
        return Refused(code, message) if code == "operator.forbidden" else RequestFailed(code, message)
    texts = [part.get("text", "") for part in result.get("content") or () if isinstance(part, dict)]
    return RequestFailed("request.invalid", "\n".join(texts) or "the broker gave no reason")
