"""What one would write with the SDK: its low-level `Server` in front, one connected `Client` behind, and no governance.

In its faster mode: JSON answers, and schemas looked up where the server would list tools for each call. usage: passthrough.py URL-OF-THE-UPSTREAM
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp import Client
from mcp.server.lowlevel import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import mcp_types as types


class Passthrough:
    """The client of the upstream, connected for as long as the application lives."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self._schemas: dict[str, Mapping[str, Any]] = {}

    async def list_tools(self, context: Any, params: Any) -> types.ListToolsResult:
        del context, params
        return await self._client.list_tools()

    async def call_tool(self, context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        del context
        return await self._client.call_tool(params.name, params.arguments)

    def app(self) -> Any:
        server = Server(
            "passthrough",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            get_tool_input_schema=self._schemas.get,
        )
        app = server.streamable_http_app(json_response=True)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def connected(app: Any) -> AsyncIterator[Any]:
            async with self._client, inner(app) as state:
                listed = await self._client.list_tools()
                self._schemas |= {tool.name: tool.input_schema for tool in listed.tools}
                yield state

        app.router.lifespan_context = connected
        return app


if __name__ == "__main__":
    import listening

    listening.run(Passthrough(sys.argv[1]).app(), lifespan="on")
