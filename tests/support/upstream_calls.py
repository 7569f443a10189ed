"""Calling an upstream the way the broker does, with what came beside the answer kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from haltline.upstreams.model import Caller, Upstream, UpstreamCall

__all__ = ["ANN", "BOB", "Sent", "alive", "closing", "text_of"]

ANN = Caller("agent_ann", "session_1")
BOB = Caller("agent_bob", "session_2")


class Sent:
    """One call: how often it was about to be sent, and what it heard."""

    def __init__(self, *, refuse: Exception | None = None) -> None:
        self.asked = 0
        self.heard: list[dict[str, Any]] = []
        self._refuse = refuse

    def before_send(self) -> None:
        self.asked += 1
        if self._refuse is not None:
            raise self._refuse

    async def __call__(
        self,
        upstream: Upstream,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        caller: Caller = ANN,
        meta: dict[str, Any] | None = None,
        deadline_s: float = 30,
        on_notification: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        params: dict[str, Any] = {"name": tool, "arguments": arguments or {}}
        if meta is not None:
            params["_meta"] = meta
        hear = on_notification or self.heard.append
        return await upstream.call(UpstreamCall(caller, params, deadline_s, self.before_send, hear))


@asynccontextmanager
async def closing(upstream: Any) -> AsyncIterator[Any]:
    try:
        yield upstream
    finally:
        await upstream.aclose()


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
