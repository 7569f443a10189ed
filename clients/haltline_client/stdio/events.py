"""Answers as they arrive: a whole body, or the events of a stream, in bounded memory.

Up to SMALL_BYTES each may wait freely; a few at a time may hold more, up to MAX_ANSWER_BYTES, so that many large answers
wait at the broker instead of here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

__all__ = ["MAX_ANSWER_BYTES", "Event", "Room", "TooLarge", "events", "whole"]

MAX_ANSWER_BYTES = 16 * 1024 * 1024
SMALL_BYTES = 64 * 1024


class TooLarge(Exception):
    """One message is larger than MAX_ANSWER_BYTES."""


class Event(NamedTuple):
    """One event of a stream (HTML Living Standard, server-sent events)."""

    data: bytes
    id: str | None
    retry_ms: int | None


class Room:
    """One answer's place among the large ones; entered by who reads it, left when it has been passed on."""

    def __init__(self, large: asyncio.Semaphore) -> None:
        self._large = large
        self._held = False

    async def grown(self, size: int) -> None:
        if size > MAX_ANSWER_BYTES:
            raise TooLarge
        if size > SMALL_BYTES and not self._held:
            await self._large.acquire()
            self._held = True

    def passed(self) -> None:
        if self._held:
            self._held = False
            self._large.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.passed()


async def whole(chunks: AsyncIterator[bytes], room: Room) -> bytes:
    """A whole body. Raises TooLarge."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        await room.grown(len(body))
    return bytes(body)


async def events(chunks: AsyncIterator[bytes], room: Room) -> AsyncIterator[Event]:
    """The events of a stream that carry data, an id or a delay. Raises TooLarge."""
    buffer, searched = bytearray(), 0
    data: list[bytes] = []
    held = 0
    last_id: str | None = None
    retry_ms: int | None = None
    async for chunk in chunks:
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end]).removesuffix(b"\r")
            del buffer[: end + 1]
            searched = 0
            if not line:
                if data or last_id is not None or retry_ms is not None:
                    yield Event(b"\n".join(data), last_id, retry_ms)
                data, held, last_id, retry_ms = [], 0, None, None
                room.passed()
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
                held += len(value) + 1
            elif field == b"id":
                last_id = value.decode("utf-8", "replace")
            elif field == b"retry" and value.isdigit():
                retry_ms = int(value[:9])
            await room.grown(held)
        searched = len(buffer)
        await room.grown(held + len(buffer))
