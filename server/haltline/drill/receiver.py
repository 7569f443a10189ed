"""The drill's test channel: a real HTTP receiver on loopback, that takes an alert and keeps it. Knows no alerts' form."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

__all__ = ["Receiver", "receiving"]

HEAD_MAX_BYTES = 16_384
BODY_MAX_BYTES = 262_144
_TAKEN = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


class Receiver:
    def __init__(self) -> None:
        self.url = ""
        self._bodies: list[bytes] = []
        self._news = anyio.Event()

    async def body_with(self, *wanted: bytes) -> bytes:
        """Wait for a delivery that names all of these."""
        while True:
            for body in self._bodies:
                if all(one in body for one in wanted):
                    return body
            await self._news.wait()

    async def take(self, stream: SocketStream) -> None:
        async with stream:
            buffered = BufferedByteReceiveStream(stream)
            try:
                head = await buffered.receive_until(b"\r\n\r\n", HEAD_MAX_BYTES)
                self._bodies.append(await buffered.receive_exactly(_length(head)))
                await stream.send(_TAKEN)
            except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, ValueError):
                return
            self._news.set()
            self._news = anyio.Event()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and 0 <= int(value) <= BODY_MAX_BYTES:
            return int(value)
    raise ValueError("no length")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A running receiver on a free port of this machine."""
    receiver = Receiver()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django
    receiver.url = f"http://127.0.0.1:{port}/alerts"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, receiver.take)
        try:
            yield receiver
        finally:
            tasks.cancel_scope.cancel()
