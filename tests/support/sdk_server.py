"""An upstream made with the official SDK, as a process of its own: `sdk_server.py stdio [ERA] | http | http-json`.

Over HTTP it prints its address first. ERA: as in `one_era`.
"""

from __future__ import annotations

import socket
import sys
from typing import Annotated

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from one_era import serve_stdio
from pydantic import BaseModel, Field

server = MCPServer("sdk")
cancelled: list[str] = []


class Sum(BaseModel):
    total: int


@server.tool()
async def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
async def add(a: int, b: int) -> Sum:
    """Structured content."""
    return Sum(total=a + b)


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Tell the progress of each step."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
    return "counted"


@server.tool()
async def region(name: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
    """An argument that is mirrored in a header."""
    return name


@server.tool()
async def fail() -> str:
    """Always fails."""
    raise ValueError("no")


@server.tool()
async def wait(name: str) -> str:
    """For ever."""
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        cancelled.append(name)
        raise
    return ""


@server.tool()
async def were_cancelled() -> list[str]:
    """Names of waits that were cancelled."""
    return cancelled


@server.tool()
async def grow(ctx: Context) -> str:
    """One tool more."""
    server.add_tool(echo, name=f"echo_{len(await server.list_tools())}")
    await ctx.notify_tools_changed()  # to who listens in the newer era
    await ctx.session.send_tool_list_changed()  # to the stream of this session in the older
    return "grown"


def main() -> None:
    if sys.argv[1] == "stdio":
        serve_stdio(server, [*sys.argv, "both"][2])
        return
    bound = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    app = server.streamable_http_app(json_response=sys.argv[1] == "http-json")
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([bound])


if __name__ == "__main__":
    main()
