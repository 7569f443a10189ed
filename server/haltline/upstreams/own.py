"""Tools of the broker itself, called by agents on the same path as every other tool: identified, decided, recorded.

Owns their definitions and how a call reaches its function; what a function does is that of whoever hands it in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from haltline.errors import HaltlineError
from haltline.upstreams.model import Caller, UpstreamSpec

if TYPE_CHECKING:
    from haltline.upstreams.model import UpstreamCall

__all__ = ["OPEN_SESSION_TOOL", "OwnUpstream"]

Opens = Callable[[Caller, Mapping[str, Any]], Awaitable[dict[str, Any]]]
_NAME = "haltline"
OPEN_SESSION_TOOL: dict[str, Any] = {
    "name": "open_session",
    "title": "Open a session for a sub-agent",
    "description": (
        "Opens a session for a sub-agent, narrower than yours, and returns its credential, this once: give it to the "
        "sub-agent as its bearer token. Whatever it spends counts against your budget too, and it ends when yours ends."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "task": {"type": "string", "minLength": 1, "maxLength": 2000, "description": "What the sub-agent is to do."},
            "budget": {"type": "string", "description": 'What it may spend in all, such as "0.20"; part of what you have left.'},
            "tools": {
                "type": "array",
                "items": {"type": "string"},
                "description": 'Tools or patterns such as "payments__*"; without it, the same as yours.',
            },
            "calls": {"type": "integer", "minimum": 1, "description": "How many calls it may make."},
            "expires_in": {"type": "string", "description": 'How long it lasts, such as "30m"; never longer than yours.'},
        },
        "required": ["task", "budget"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False},
}  # fmt: skip


class OwnUpstream:
    """Implements `Upstream`. `open_session` does the work and returns what the tool answers; its errors are told to the agent."""

    def __init__(self, open_session: Opens) -> None:
        self.spec = UpstreamSpec(_NAME, python="haltline.upstreams.own")
        self._open_session = open_session

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return MappingProxyType({})

    def watch(self, changed: Callable[[], None]) -> None:
        """What it offers never changes."""

    async def list_tools(self) -> list[Any]:
        return [OPEN_SESSION_TOOL]

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        call.before_send()
        arguments = call.params.get("arguments")
        try:
            opened = await self._open_session(call.caller, arguments if isinstance(arguments, dict) else {})
        except HaltlineError as error:
            return {"result": {"content": [_text(f"No session was opened: {error}")], "isError": True}}
        said = (
            f"Session {opened['session']} is open until {opened['expires_at']}. Its credential, shown this once: "
            f"{opened['token']}"
        )
        return {"result": {"content": [_text(said)], "structuredContent": opened, "isError": False}}

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """It holds nothing for anybody."""

    async def aclose(self) -> None:
        """It holds nothing."""


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
