"""The host's side: lines from standard input, lines to standard output, each in a thread of its own.

Threads, because a file, a console and the pipes of Windows cannot be waited for by an event loop. One line is written at
a time and at most a few chunks are read ahead, so a slow host slows the bridge down instead of filling its memory.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["MAX_LINE_BYTES", "HostGone", "Pipes", "TooLong", "take_standard_streams"]

MAX_LINE_BYTES = 4 * 1024 * 1024
"""What the broker takes as one body."""
READ_BYTES = 64 * 1024
CHUNKS_AHEAD = 4


class HostGone(Exception):
    """Nobody reads the answers any more."""


class TooLong:
    """Stands for a line that was longer than MAX_LINE_BYTES and has been passed over."""


def take_standard_streams() -> tuple[int, int]:
    """Descriptors of the host's streams. Whatever else prints from now on goes to standard error."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - exists there alone

        msvcrt.setmode(0, os.O_BINARY)
        msvcrt.setmode(1, os.O_BINARY)
    taken = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    if os.name != "nt":
        for one in taken:
            os.set_blocking(one, True)  # a host may share a description that it made non-blocking
    return taken


class Pipes:
    """To be made inside a running event loop."""

    def __init__(self, reads: int, writes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(CHUNKS_AHEAD)
        self._out: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._turn = asyncio.Lock()
        for target, fd in ((self._read, reads), (self._write, writes)):
            threading.Thread(target=target, args=(fd,), daemon=True).start()

    async def lines(self) -> AsyncIterator[bytes | TooLong]:
        """Until the host closes its end. Empty lines are passed over."""
        buffer, searched, skipping = bytearray(), 0, False
        while chunk := await self._chunks.get():
            buffer += chunk
            while (end := buffer.find(b"\n", searched)) >= 0:
                line = bytes(buffer[:end]).strip()
                del buffer[: end + 1]
                searched = 0
                if skipping or len(line) > MAX_LINE_BYTES:
                    skipping = False
                    yield TooLong()
                elif line:
                    yield line
            if len(buffer) > MAX_LINE_BYTES:
                skipping = True
            if skipping:
                buffer.clear()
            searched = len(buffer)

    async def write(self, line: bytes) -> None:
        """Returns when the host has taken it. A line that was begun is written whole, also when the writer is cancelled.

        Raises HostGone.
        """
        await self._turn.acquire()
        await asyncio.shield(self._loop.create_task(self._written(line)))

    async def _written(self, line: bytes) -> None:
        try:
            done: asyncio.Future[None] = self._loop.create_future()
            self._out.put((line + b"\n", done))
            await done
        finally:
            self._turn.release()

    def _read(self, fd: int) -> None:
        chunk = b"."
        while chunk:
            try:
                chunk = os.read(fd, READ_BYTES)
            except OSError:
                chunk = b""
            with suppress(RuntimeError):  # the loop has ended
                asyncio.run_coroutine_threadsafe(self._chunks.put(chunk), self._loop).result()

    def _write(self, fd: int) -> None:
        while True:
            line, done = self._out.get()
            view, gone = memoryview(line), None
            try:
                while view:
                    view = view[os.write(fd, view) :]
            except OSError:
                gone = HostGone()
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, done, gone)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
