"""Small HTTP pieces over plain ASGI: headers, bounded bodies, one-shot replies. Knows no JSON-RPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

__all__ = [
    "BODY_TIMEOUT_S",
    "LINE",
    "BadRequest",
    "Line",
    "Receive",
    "Scope",
    "Send",
    "accepts",
    "fold",
    "read_body",
    "send_reply",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

LINE = "haltline.line"
"""Where a request's scope has its `Line`."""
WHOLE = "haltline.whole"
"""There where its body has arrived to the end."""
BODY_TIMEOUT_S = 30.0
JSON = b"application/json"
STREAM = b"text/event-stream"


class BadRequest(Exception):
    """A request that gets `status` and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Line:
    """A client's connection, for whoever wants to know that it was closed; a task that waits for it costs more than most calls."""

    __slots__ = ("_closed", "_told")

    def __init__(self) -> None:
        self._closed = False
        self._told: set[Callable[[], None]] = set()

    def tell(self, told: Callable[[], None]) -> None:
        """Call it when the connection is closed, now if it is already. It must not fail."""
        if self._closed:
            told()
        else:
            self._told.add(told)

    def tell_no_more(self, told: Callable[[], None]) -> None:
        self._told.discard(told)

    def close(self) -> None:
        self._closed = True
        for told in tuple(self._told):
            told()
        self._told.clear()


def fold(headers: Headers) -> dict[str, str]:
    """Lower-case names to values; of a repeated header the first counts (routing headers are refused when repeated)."""
    folded: dict[str, str] = {}
    for name, value in headers:
        folded.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return folded


@lru_cache(maxsize=64)
def accepts(header: str) -> tuple[bool, bool]:
    """Whether an Accept header takes (JSON, an event stream). RFC 9110: an absent header takes anything."""
    kinds = {part.split(";")[0].strip().lower() for part in header.split(",")} if header else {"*/*"}
    anything = "*/*" in kinds
    return anything or bool({"application/json", "application/*"} & kinds), anything or bool(
        {"text/event-stream", "text/*"} & kinds
    )


async def read_body(
    scope: Scope, receive: Receive, *, max_bytes: int, declared: str | None, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """The whole body. Raises BadRequest when it is too large, too slow or broken off."""
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise BadRequest(413, f"the body is larger than {max_bytes} bytes")
    if WHOLE in scope:  # as most are when their task begins: nothing is waited for
        return await _whole(receive, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _whole(receive, max_bytes)
    except TimeoutError as error:
        raise BadRequest(408, f"the body did not arrive within {timeout_s:g} s") from error


async def _whole(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest(400, "the body broke off")
        chunk = message.get("body", b"")
        total += len(chunk)
        if total > max_bytes:
            raise BadRequest(413, f"the body is larger than {max_bytes} bytes")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


async def send_reply(
    send: Send, status: int, body: bytes = b"", *, kind: bytes = b"text/plain; charset=utf-8", headers: Headers = ()
) -> None:
    """A whole reply at once."""
    lines = [(b"content-length", str(len(body)).encode()), *headers]
    if body:
        lines.append((b"content-type", kind))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
