"""An upstream made with the official SDK whose tools ask the person in front of the host, and the host's model.

asking_server.py stdio ERA     over stdio; ERA: as in `one_era`
asking_server.py http          over HTTP, at 2026-07-28 and no other; it prints its address first
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Annotated, Any

import uvicorn
from mcp import types
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve, Sample
from one_era import serve_stdio
from pydantic import BaseModel

server = MCPServer("asking")


class Person(BaseModel):
    name: str


async def who() -> Elicit[Person]:
    return Elicit("Who is there?", Person)


async def thought() -> Sample:
    words = types.TextContent(type="text", text="Say something.")
    return Sample([types.SamplingMessage(role="user", content=words)], max_tokens=5)


@server.tool()
async def ask(ctx: Context) -> str:
    """Ask who is there, in the middle of the call."""
    answer = await ctx.elicit("Who is there?", Person)
    return answer.data.name if answer.action == "accept" else answer.action


@server.tool()
async def greet(greeting: str, person: Annotated[Person, Resolve(who)]) -> str:
    """Ask who is there, as the era has it."""
    return f"{greeting}, {person.name}"


@server.tool()
async def think(thought: Annotated[types.CreateMessageResult, Resolve(thought)]) -> str:
    """Ask the host's model, as the era has it."""
    return f"It says {getattr(thought.content, 'text', '')}"


class ModernOnly:
    """Answers no handshake."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"mcp-protocol-version") != b"2026-07-28":
            said = {"jsonrpc": "2.0", "id": 0, "error": {"code": -32022, "message": "Unsupported protocol version"}}
            await send(
                {"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": json.dumps(said).encode()})
            return
        await self._app(scope, receive, send)


def main() -> None:
    if sys.argv[1] == "stdio":
        serve_stdio(server, sys.argv[2])
        return
    bound = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    app = ModernOnly(server.streamable_http_app())
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([bound])


if __name__ == "__main__":
    main()
