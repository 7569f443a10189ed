"""Serving an official SDK's server over standard streams in one protocol era alone: by itself it serves both."""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.runner import _serve_modern_stream, serve_loop
from mcp.server.stdio import stdio_server

__all__ = ["serve_stdio"]


def serve_stdio(server: MCPServer, era: str) -> None:
    """`era`: `both`, `handshake` or `modern`. Until its standard input ends."""
    if era == "both":
        server.run("stdio")
    else:
        anyio.run(_serve, server, era == "modern")


async def _serve(server: MCPServer, modern: bool) -> None:
    low: Any = server._lowlevel_server
    async with stdio_server() as (read, write), low.lifespan(low) as state:
        if modern:
            await _serve_modern_stream(low, read, write, lifespan_state=state, raise_exceptions=False)
        else:
            options = low.create_initialization_options()
            await serve_loop(low, read, write, lifespan_state=state, init_options=options)
