"""The broker's end of the drill's clients: starts their process, tells it what to do, waits for what it says.

Knows the lines between the two and nothing of MCP: the SDK's clients are imported in their own process alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from anyio.abc import Process

__all__ = ["Clients", "Gone", "clients"]

LINE_MAX_BYTES = 65_536
END_S = 2.0
_KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "SYSTEMROOT")
"""Of the broker's environment; its secrets and its proxies are not the clients'."""


class Gone(Exception):
    """The process of the clients ended, or said what nobody understands."""


class Clients:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._said: dict[str, dict[str, Any]] = {}
        self._news = anyio.Event()
        self._gone = False

    async def tell(self, what: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(orjson.dumps(what) + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            raise Gone("the drill's clients have ended before their time; see the broker's log") from None

    async def heard(self, said: str) -> dict[str, Any]:
        """Wait until they said this. Raises Gone."""
        while said not in self._said:
            if self._gone:
                raise Gone("the drill's clients have ended before their time; see the broker's log")
            await self._news.wait()
        return self._said[said]

    async def read(self) -> None:
        """Until they end."""
        assert self._process.stdout is not None
        lines = BufferedByteReceiveStream(self._process.stdout)
        try:
            while True:
                line = orjson.loads(await lines.receive_until(b"\n", LINE_MAX_BYTES))
                self._said[line["said"]] = line
                self._tell_news()
        except (
            anyio.EndOfStream,
            anyio.IncompleteRead,
            anyio.DelimiterNotFound,
            anyio.BrokenResourceError,
            ValueError,
        ):
            self._gone = True
            self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = anyio.Event()


@asynccontextmanager
async def clients() -> AsyncIterator[Clients]:
    """A process of clients that waits for its first line; ended with the block."""
    command = [sys.executable, "-m", "haltline.drill.crew"]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    process = await anyio.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, env=environment, start_new_session=True
    )
    try:
        async with anyio.create_task_group() as tasks:
            crew = Clients(process)
            tasks.start_soon(crew.read)
            try:
                yield crew
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            with anyio.move_on_after(END_S):
                await process.wait()
            await process.aclose()
