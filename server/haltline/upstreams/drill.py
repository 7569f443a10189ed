"""The upstream that drills call: inside the broker, free, without any effect, and offered to nobody else.

`tick` answers at once; `work` goes on until it is cancelled or its time is over. Tells the drill what reached it, which
is the only witness that counts: what a stopped agent was told is not yet what was not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio

from haltline.policy.drill import DRILL
from haltline.upstreams.model import Caller, UpstreamSpec

if TYPE_CHECKING:
    from haltline.upstreams.model import UpstreamCall

__all__ = ["TICK", "WORK", "DrillUpstream", "Seen"]

TICK, WORK = "tick", "work"
WORK_S = 30.0
"""Longer than a drill waits for it to be cancelled."""
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class Seen:
    """What came of one session."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled_at: float | None = None
        """When its long call was cancelled, on the monotonic clock."""
        self.working = anyio.Event()
        self.ended = anyio.Event()
        """The long call is over, one way or the other."""


class DrillUpstream:
    """Implements `Upstream`. Lives on the event loop."""

    def __init__(self) -> None:
        self.spec = UpstreamSpec(DRILL, python="haltline.upstreams.drill", read_only=True)
        self._seen: dict[str, Seen] = {}

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return MappingProxyType({})

    def watch(self, changed: Callable[[], None]) -> None:
        """What it offers never changes."""

    async def list_tools(self) -> list[Any]:
        return [
            {"name": TICK, "description": "Answers at once and does nothing.", "inputSchema": _NOTHING},
            {"name": WORK, "description": "Does nothing, for a while.", "inputSchema": _NOTHING},
        ]

    def listen(self, session_id: str) -> Seen:
        """From now on, what comes of this session."""
        return self._seen.setdefault(session_id, Seen())

    def unlisten(self, session_id: str) -> None:
        self._seen.pop(session_id, None)

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        call.before_send()
        seen = self._seen.get(call.caller.session_id) or Seen()
        seen.begun += 1
        if call.params.get("name") == WORK:
            await self._work(seen)
        return {"result": {"content": [{"type": "text", "text": "done"}], "isError": False}}

    @staticmethod
    async def _work(seen: Seen) -> None:
        seen.working.set()
        try:
            await anyio.sleep(WORK_S)
        except anyio.get_cancelled_exc_class():
            seen.cancelled_at = time.monotonic()
            raise
        finally:
            seen.ended.set()

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """It holds nothing for anybody."""

    async def aclose(self) -> None:
        """It holds nothing."""
