"""One HTTP request exactly as written, hostile or broken as it may be, over a connection of its own."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["RawAnswer", "raw_request"]

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """`status` 0: the connection was closed without an answer."""

    status: int
    head: bytes
    body: bytes

    @property
    def json(self) -> Any:
        """The body, or the data of its only event; None where that is not JSON."""
        data = self.body.partition(b"data: ")[2] if self.body.startswith(b"event:") else self.body
        try:
            return json.loads(data)
        except ValueError:
            return None


def raw_request(
    port: int, method: str, path: str, lines: Sequence[bytes], body: bytes = b"", *, host: bytes | None = None
) -> RawAnswer:
    """`lines` are whole header lines. `host`: another than the right one; empty for none at all."""
    right = b"127.0.0.1:%d" % port
    head = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    if host != b"":
        head.append(b"Host: " + (right if host is None else host))
    head += [b"Connection: close", *lines]
    if body:
        head.append(b"Content-Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.sendall(b"\r\n".join([*head, b"", b""]) + body)
            answer = _all(connection)
        except ConnectionError:
            return RawAnswer(0, b"", b"")
    start, _, rest = answer.partition(b"\r\n\r\n")
    status = start.split(b" ", 2)[1] if start.startswith(b"HTTP/1.1 ") else b"0"
    if b"transfer-encoding: chunked" in start.lower():
        rest = rest.partition(b"\r\n")[2]
    return RawAnswer(int(status), start, rest)


def _all(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(65_536):
        chunks.append(chunk)
    return b"".join(chunks)
