"""An upstream that does what a test says: answers, fails before or after the first byte, waits, reports progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from haltline.upstreams.model import Caller, NotSent, OutcomeUnknown, UpstreamCall, UpstreamSpec

__all__ = ["ScriptedUpstream", "text_result"]

Script = Callable[[UpstreamCall], Awaitable[dict[str, Any]]]
SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer"}, "recipient": {"type": "string"}}}


def text_result(text: str = "done", **more: Any) -> dict[str, Any]:
    return {"result": {"content": [{"type": "text", "text": text}], **more}}


class ScriptedUpstream:
    """Tools `charge`, `refund`, `look`, `slow`, `unpriced`; what a tool does is `script[name]`, else it answers."""

    def __init__(
        self, name: str = "payments", tools: tuple[str, ...] = ("charge", "refund", "look", "slow", "unpriced")
    ) -> None:
        self.spec = UpstreamSpec(name=name, url="http://127.0.0.1:1/mcp")
        self.tools = [{"name": tool, "description": f"{tool} it", "inputSchema": SCHEMA} for tool in tools]
        self.capabilities: dict[str, Any] = {}
        self.script: dict[str, Script] = {}
        self.sent: list[Mapping[str, Any]] = []
        """What left, in order."""
        self.started = anyio.Event()
        self.release = anyio.Event()
        self.forgotten: list[tuple[Caller, bool]] = []

    async def list_tools(self) -> list[dict[str, Any]]:
        return self.tools

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        script = self.script.get(call.params.get("name", call.method), self._answer)
        return await script(call)

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        self.forgotten.append((caller, session_only))

    async def aclose(self) -> None:
        self.release.set()

    def watch(self, changed: Callable[[], None]) -> None:
        """Its tools never change."""

    # scripts

    def send(self, call: UpstreamCall) -> None:
        call.before_send()
        self.sent.append(call.params)

    async def _answer(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        return text_result()

    async def waiting(self, call: UpstreamCall) -> dict[str, Any]:
        """Sent; answers once released."""
        self.send(call)
        self.started.set()
        await self.release.wait()
        return text_result("late")

    async def waiting_unsent(self, call: UpstreamCall) -> dict[str, Any]:
        """Waits before its first byte."""
        self.started.set()
        await self.release.wait()
        return await self._answer(call)

    async def unsent(self, call: UpstreamCall) -> dict[str, Any]:
        raise NotSent("upstream.unreachable", "payments cannot be reached")

    async def unknown(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        raise OutcomeUnknown("upstream.lost", "the connection broke before an answer came")

    async def broken(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        raise ZeroDivisionError("an internal matter")

    async def broken_unsent(self, call: UpstreamCall) -> dict[str, Any]:
        raise ZeroDivisionError("an internal matter")

    async def tool_error(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        return text_result("no such payee", isError=True)

    async def protocol_error(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        return {"error": {"code": -32602, "message": "bad payee"}}
