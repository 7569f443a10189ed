"""The handshake era's session: what `initialize` agreed, its id, its standing stream, and how to have it again.

A session that the broker no longer knows is opened again with the host's own `initialize`, as the bytes it was. The host
keeps believing in the old one, so this only counts when the same revision was agreed. What it set for the old one is set
again; through a restart of the broker a session goes on, and the broker remembers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from haltline_client.errors import BrokerUnreachable
from haltline_client.stdio import words
from haltline_client.stdio.endpoint import EVENT_STREAM
from haltline_client.stdio.events import TooLarge, events
from haltline_client.stdio.headers import encoded
from haltline_client.stdio.kept_settings import KeptSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from haltline_client.stdio.endpoint import Endpoint
    from haltline_client.stdio.messages import Message

__all__ = ["Session"]

BACK_OFF_LEAST_S = 0.25
BACK_OFF_FIRST_S = 1.0
BACK_OFF_MOST_S = 30.0


class Session:
    """`arrived` gets each message of the standing stream."""

    def __init__(self, endpoint: Endpoint, arrived: Callable[[bytes], Awaitable[None]]) -> None:
        self.id: str | None = None
        self._endpoint = endpoint
        self._arrived = arrived
        self._version = ""
        self._initialize: Message | None = None
        self._initialized: bytes | None = None
        self._renewing = asyncio.Lock()
        self._standing: asyncio.Task[None] | None = None
        self.kept = KeptSettings()
        self._setting: asyncio.Task[None] | None = None

    def headers(self) -> dict[str, str]:
        """What a message of this session carries; nothing before there is one."""
        headers = {"MCP-Protocol-Version": encoded(self._version)} if self._version else {}
        return {**headers, "Mcp-Session-Id": self.id} if self.id else headers

    def agreed(self, message: Message, result: Any, headers: Mapping[str, str]) -> None:
        """The broker answered `initialize`."""
        self._initialize = message
        self._initialized = None
        self.kept.forget()
        self._take(result, headers)

    async def initialized(self, raw: bytes) -> None:
        """The host has said so; from now on the broker may speak first."""
        self._initialized = raw
        try:
            await self._endpoint.tell(raw, self.headers())
        finally:
            self._listen()

    async def renew(self, used: str | None) -> None:
        """Open it again unless another request already did. Raises BrokerUnreachable or Trouble."""
        async with self._renewing:
            if self.id != used:
                return
            before, message = self._version, self._initialize
            if message is None or message.id is None:
                raise words.ended()
            asked = await self._endpoint.ask(message.raw, message.id, {})
            result = (asked.answer or {}).get("result")
            if not isinstance(result, dict) or result.get("protocolVersion") != before:
                raise words.ended()
            self._take(result, asked.headers)
            if self._initialized is not None:
                await self._endpoint.tell(self._initialized, self.headers())
                self._listen()
            self._set_again()

    async def leave(self) -> None:
        """Stop listening and tell the broker that this session is over."""
        for task in (self._standing, self._setting):
            if task is not None:
                task.cancel()
        if self.id:
            await self._endpoint.tell(b"", self.headers(), verb="DELETE")

    def _take(self, result: Any, headers: Mapping[str, str]) -> None:
        version = result.get("protocolVersion") if isinstance(result, dict) else None
        self._version = version if isinstance(version, str) else ""
        self.id = headers.get("mcp-session-id")

    # the standing stream

    def _listen(self) -> None:
        if self._standing is not None:
            self._standing.cancel()
        self._standing = asyncio.get_running_loop().create_task(self._stand())

    async def _stand(self) -> None:
        """Until the broker says that there is none, or knows this session no more; a request will open that again."""
        wait_s, last_id = BACK_OFF_FIRST_S, ""
        while True:
            resume = {"Last-Event-ID": encoded(last_id)} if last_id else {}
            try:
                async with self._endpoint.exchange("GET", {**self.headers(), **resume}) as reply:
                    offered = reply.headers.get("content-type", "").startswith(EVENT_STREAM)
                    if 400 <= reply.status < 500 or (reply.status == 200 and not offered):
                        return
                    if reply.status == 200:
                        with self._endpoint.room() as room:
                            async for event in events(reply.chunks(), room):
                                wait_s = BACK_OFF_FIRST_S if event.retry_ms is None else event.retry_ms / 1000
                                last_id = event.id if event.id is not None else last_id
                                if event.data:
                                    await self._arrived(event.data)
            except (words.Trouble, TooLarge):
                return
            except BrokerUnreachable:
                pass
            await asyncio.sleep(min(max(wait_s, BACK_OFF_LEAST_S), BACK_OFF_MOST_S))
            wait_s = min(wait_s * 2, BACK_OFF_MOST_S)

    # what the host set

    def _set_again(self) -> None:
        if self._setting is not None:
            self._setting.cancel()
        self._setting = asyncio.get_running_loop().create_task(self._keep_setting()) if self.kept else None

    async def _keep_setting(self) -> None:
        """Until all is set again: upstreams may still be starting. What never is, is not tried for ever."""
        done: set[str] = set()
        wait_s = BACK_OFF_LEAST_S
        while wait_s <= BACK_OFF_MOST_S:
            try:
                for told in await self.kept.set_again(self._endpoint, self.headers(), done):
                    await self._arrived(told)
            except BrokerUnreachable:
                pass
            except (words.Trouble, TooLarge):
                return
            if not self.kept.lack(done):
                return
            await asyncio.sleep(wait_s)
            wait_s *= 2
