"""A proxy that adds one header to every request: the conformance suite has no way to send a credential.

It changes nothing else, so the server must answer to this proxy's `Host`. Replies pass as the bytes that came; either
side that hangs up ends the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

__all__ = ["adding"]

HEAD_MAX = 256 * 1024
PIECE = 64 * 1024


@asynccontextmanager
async def adding(line: str, listening: socket.socket, port: int) -> AsyncIterator[None]:
    """While the block runs, what comes to `listening` goes to 127.0.0.1:`port` with this header line added."""
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(_carry(reader, writer, line, port))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, sock=listening, limit=HEAD_MAX)
    try:
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, port: int) -> None:
    """One connection of the suite and the one to the server that belongs to it."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    ways = [asyncio.create_task(_requests(reader, back, line)), asyncio.create_task(_replies(there, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for side in (writer, back):
            with suppress(ConnectionError):
                side.close()


async def _requests(reader: asyncio.StreamReader, back: asyncio.StreamWriter, line: str) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            start, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            back.write("\r\n".join([start, line, *lines, "", ""]).encode("latin-1"))
            await _body(reader, back, lines)
            await back.drain()


async def _body(reader: asyncio.StreamReader, back: asyncio.StreamWriter, lines: Iterable[str]) -> None:
    said = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "chunked" in said.get("transfer-encoding", ""):
        size = -1
        while size != 0:
            announced = await reader.readuntil(b"\r\n")
            size = int(announced.split(b";")[0], 16)
            back.write(announced + await reader.readexactly(size + 2))
    elif said.get("content-length", "0") != "0":
        back.write(await reader.readexactly(int(said["content-length"])))


async def _replies(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await there.read(PIECE):
            writer.write(piece)
            await writer.drain()
