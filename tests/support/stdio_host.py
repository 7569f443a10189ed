"""A host that launched `haltline stdio`: what it writes and reads, line by line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench import processes

__all__ = ["INITIALIZE", "META", "TOKEN", "Host", "stdio_host"]

TOKEN = "hl_a_0123456789ab_" + "s3cret" * 8
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a host", "version": "1"}},
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "a host", "version": "1"},
}
WITHIN_S = 15
LINE_MAX = 32 * 1024 * 1024


class Host:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        await self.process.stdin.drain()

    async def ask(self, method: str, identifier: Any, params: Any = None, *, modern: bool = False) -> None:
        params = {**(params or {}), **({"_meta": META} if modern else {})}
        await self.send({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})

    async def call(self, tool: str, identifier: Any, arguments: Any = None, *, modern: bool = False) -> None:
        await self.ask("tools/call", identifier, {"name": tool, "arguments": arguments or {}}, modern=modern)

    async def notify(self, method: str, params: Any = None) -> None:
        await self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    async def line(self) -> bytes:
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            return await self.process.stdout.readline()

    async def read(self) -> Any:
        return json.loads(await self.line())

    async def handshake(self) -> Any:
        await self.send(INITIALIZE)
        answer = await self.read()
        await self.notify("notifications/initialized")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self) -> tuple[int, float, str]:
        """Its exit code, the seconds it took from now on, and what it said on standard error."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert self.process.stderr is not None
        async with asyncio.timeout(WITHIN_S):
            code = await self.process.wait()
        took = loop.time() - begun
        return code, took, (await self.process.stderr.read()).decode()


@asynccontextmanager
async def stdio_host(
    url: str, *options: str, token: str | None = TOKEN, folder: Any = None, **more: str
) -> AsyncIterator[Host]:
    environ = processes.environment() | ({"HALTLINE_TOKEN": token} if token else {}) | {"HALTLINE_URL": url, **more}
    async with launched([sys.executable, "-m", "haltline", "stdio", *options], environ, folder=folder) as host:
        yield host


@asynccontextmanager
async def launched(command: Sequence[str], environ: Any, *, folder: Any = None) -> AsyncIterator[Host]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environ, cwd=folder, limit=LINE_MAX
    )
    try:
        yield Host(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process._transport.close()  # before the wait, which else waits for what nobody reads
        await process.wait()
