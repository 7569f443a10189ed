"""A server as the SDK makes it, in its default mode: what its official client is compared with."""

from __future__ import annotations

import listening
from mcp.server.mcpserver import MCPServer

server = MCPServer("sdk", log_level="ERROR")


@server.tool()
def echo(text: str) -> str:
    """Say the text again."""
    return text


if __name__ == "__main__":
    listening.run(server.streamable_http_app(), lifespan="on")
