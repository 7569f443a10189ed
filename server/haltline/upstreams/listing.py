"""Reading a whole list of tools, page by page and bounded, from an upstream of either kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from haltline.upstreams.messages import METHOD_NOT_FOUND, dumps
from haltline.upstreams.model import OutcomeUnknown

__all__ = ["MAX_BYTES", "MAX_PAGES", "MAX_TOOLS", "all_tools"]

MAX_PAGES = 100
MAX_TOOLS = 2_000
MAX_BYTES = 16 * 1024 * 1024


async def all_tools(name: str, ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> list[Any]:
    """All pages. `ask` sends `tools/list` with these params. Raises UpstreamError, also where a bound is passed."""
    tools: list[Any] = []
    size = 0
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        answer = await ask({} if cursor is None else {"cursor": cursor})
        error = answer.get("error")
        if error is not None:
            if error.get("code") == METHOD_NOT_FOUND and cursor is None:
                return []  # it has no tools
            raise _unusable(name, f"it answered with error {error.get('code')}", str(error.get("message"))[:500])
        page, following = answer["result"].get("tools"), answer["result"].get("nextCursor")
        if not isinstance(page, list):
            raise _unusable(name, "it holds no list")
        tools += page
        size += len(dumps(page))
        if len(tools) > MAX_TOOLS or size > MAX_BYTES:
            raise _unusable(name, f"it is longer than {MAX_TOOLS} tools or {MAX_BYTES} bytes")
        if not isinstance(following, str):
            return tools
        if following == cursor:
            raise _unusable(name, "it goes round in circles")
        cursor = following
    raise _unusable(name, f"it has more than {MAX_PAGES} pages")


def _unusable(name: str, why: str, detail: str | None = None) -> OutcomeUnknown:
    return OutcomeUnknown("upstream.malformed", f"the list of tools of {name} cannot be used: {why}", detail)
