"""A real HTTP listener on a free loopback port, in this process, for as long as the block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from haltline.http_server import Routes, Server, bind
from haltline.setup.listeners import Listener
from haltline.wire.endpoint import Endpoint, Face
from haltline.wire.guard import Guard
from haltline.wire.sessions import SessionIds

__all__ = ["LOOPBACK", "served", "served_face"]

LOOPBACK = Listener(
    host="127.0.0.1", port=0, allowed_hosts=(), allowed_origins=(), tls_cert=None, tls_key=None, behind_proxy=False
)


@asynccontextmanager
async def served(routes: Any, bound: Any = None) -> AsyncIterator[str]:
    """`http://127.0.0.1:PORT` of these routes."""
    bound = bound or bind(LOOPBACK, "agents")
    server = Server(routes, LOOPBACK)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [bound])
        with anyio.fail_after(30):
            while not server.started:
                await anyio.lowlevel.checkpoint()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True


@asynccontextmanager
async def served_face(face: Face, *, key: bytes = bytes(32)) -> AsyncIterator[str]:
    """The MCP URL of a face."""
    bound = bind(LOOPBACK, "agents")
    guard = Guard("127.0.0.1", bound.getsockname()[1], hosts=(), origins=())
    async with served(Routes(guard, {"/mcp": Endpoint(face, SessionIds(key))}), bound) as url:
        yield f"{url}/mcp"
