"""The demonstration's agents: real MCP clients of the official SDK, each with its own credential.

Owns connecting in either protocol era and reading an answer as a model would. Knows no broker internals: a refusal is
recognised by the first line of its text.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Agent", "Answer", "Era", "connected"]

Era = Literal["auto", "legacy"]
"""How a client finds the protocol: the SDK's default (2026-07-28 where it is spoken), or the older handshake."""

TIMEOUT_S = 60.0
REFUSED = re.compile(r"(?:Halted|Denied|Unknown) \[(?P<code>[a-z_.]+)\]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call. `code` is that of a refusal; `text` is what the model reads."""

    ok: bool
    text: str
    code: str | None = None
    data: dict[str, Any] | None = None
    retryable: bool = False


class _Told:
    """Notices of progress, as the SDK hands them out."""

    def __init__(self, hear: Callable[[float], None]) -> None:
        self._hear = hear

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        del total, message
        self._hear(progress)


class Agent:
    """One agent at work in one session."""

    def __init__(self, handle: str, session: str, client: Client) -> None:
        self.handle = handle
        self.session = session
        self._client = client

    @property
    def era(self) -> str:
        return self._client.protocol_version

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Answer:
        """Call a tool; an error of the protocol is an answer too. `progress` hears how far the tool says it is."""
        told_to = None if progress is None else _Told(progress)
        try:
            result = await self._client.call_tool(tool, arguments or {}, progress_callback=told_to)
        except MCPError as error:
            return Answer(ok=False, text=error.message, code=f"mcp.{error.code}")
        text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        if not result.is_error:
            return Answer(ok=True, text=text, data=result.structured_content)
        refused = REFUSED.match(text)
        return Answer(ok=False, text=text, code=refused["code"] if refused else None, retryable="may retry" in text)


@asynccontextmanager
async def connected(handle: str, session: str, url: str, token: str, era: Era) -> AsyncIterator[Agent]:
    """An agent connected to `url` with its credential."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http,
        Client(streamable_http_client(url, http_client=http), mode=era, cache=None) as client,
    ):
        yield Agent(handle, session, client)
