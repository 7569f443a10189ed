"""An upstream made with the official SDK that tells of changes, in both eras: `telling_server.py stdio [ERA] | http`.

`touch` says that a resource changed to everybody who subscribed to it, `touch_mine` only to the caller's own session. Over
HTTP it prints its address first. ERA: as in `one_era`.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import uvicorn
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams
from one_era import serve_stdio

server = MCPServer("telling")
subscribed: dict[str, list[Any]] = {}


@server.resource("note://one")
def one() -> str:
    """A resource."""
    return "one"


@server.resource("note://two")
def two() -> str:
    """Another."""
    return "two"


@server.prompt()
def greeting() -> str:
    """A prompt."""
    return "hello"


@server.tool()
async def touch(uri: str, ctx: Context) -> str:
    """It changed, for all."""
    await ctx.notify_resource_updated(uri)
    for session in list(subscribed.get(uri, ())):
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            await session.send_resource_updated(uri)
    return "touched"


@server.tool()
async def touch_mine(uri: str, ctx: Context) -> str:
    """It changed, for the caller alone."""
    await ctx.session.send_resource_updated(uri)
    return "touched"


@server.tool()
async def subscribers(uri: str) -> int:
    """How many sessions hear of it."""
    return len(subscribed.get(uri, ()))


@server.tool()
async def grow(ctx: Context) -> str:
    """One tool more, and prompts and resources that changed."""
    server.add_tool(subscribers, name=f"subscribers_{len(await server.list_tools())}")
    await ctx.notify_tools_changed()
    await ctx.notify_prompts_changed()
    await ctx.notify_resources_changed()
    await ctx.session.send_tool_list_changed()
    await ctx.session.send_prompt_list_changed()
    return "grown"


@server.tool()
async def announce(ctx: Context) -> str:
    """Says that tools changed although they did not."""
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "announced"


async def subscribe(ctx: Any, params: SubscribeRequestParams) -> EmptyResult:
    sessions = subscribed.setdefault(str(params.uri), [])
    if ctx.session not in sessions:
        sessions.append(ctx.session)
    return EmptyResult()


async def unsubscribe(ctx: Any, params: UnsubscribeRequestParams) -> EmptyResult:
    sessions = subscribed.get(str(params.uri), [])
    sessions[:] = [session for session in sessions if session is not ctx.session]
    return EmptyResult()


def main() -> None:
    low = server._lowlevel_server
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
    announced = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    low.create_initialization_options = partial(low.create_initialization_options, announced)  # type: ignore[method-assign]
    if sys.argv[1] == "stdio":
        serve_stdio(server, [*sys.argv, "both"][2])
        return
    bound = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error")).run([bound])


if __name__ == "__main__":
    main()
