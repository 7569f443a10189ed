"""An upstream over stdio, made with the official SDK, whose tool asks the person in front of the host."""

from __future__ import annotations

from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

server = MCPServer("asking")


class Person(BaseModel):
    name: str


@server.tool()
async def ask(ctx: Context) -> str:
    """Ask who is there."""
    answer = await ctx.elicit("Who is there?", Person)
    return answer.data.name if answer.action == "accept" else answer.action


if __name__ == "__main__":
    server.run("stdio")
