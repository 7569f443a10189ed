"""How one request is written in each protocol era of MCP over HTTP. Sends nothing and keeps no connection.

2026-07-28 is stateless: the envelope travels in `_meta` and is mirrored in headers. Before it, a session was opened with a
handshake, and its id and version travel in headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from haltline.upstreams.messages import MODERN_VERSION, dumps, for_handshake, for_modern, notification, request
from haltline.upstreams.model import NOBODY, Peer

__all__ = ["Handshake", "Modern", "Speaker", "param_header_map"]

_NAMED = {"prompts/get": "name", "resources/read": "uri"}
"""Methods beside tools/call whose `Mcp-Name` mirrors a parameter."""


@dataclass(frozen=True, slots=True)
class Modern:
    """Writes requests of 2026-07-28. `param_headers`: by tool, which arguments its schema wants mirrored in headers."""

    param_headers: Mapping[str, Mapping[tuple[str, ...], str]] = field(default_factory=dict)

    def request(
        self, identifier: int, method: str, params: Mapping[str, Any], peer: Peer = NOBODY
    ) -> tuple[dict[str, str], bytes]:
        """Headers and body. The upstream meets the agent's client: its capabilities, its name, its log level."""
        headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": method}
        if method == "tools/call":
            headers |= self._tool_headers(params)
        elif method in _NAMED:
            headers["Mcp-Name"] = _header_value(str(params.get(_NAMED[method])))
        return headers, request(identifier, method, for_modern(params, peer))

    def _tool_headers(self, params: Mapping[str, Any]) -> dict[str, str]:
        name, arguments = str(params.get("name")), params.get("arguments")
        wanted = self.param_headers.get(name)
        if not wanted:
            return {"Mcp-Name": _header_value(name)}
        from mcp.shared.inbound import mcp_param_headers  # noqa: PLC0415 - slow to import, rare

        mirrored = mcp_param_headers(wanted, arguments) if isinstance(arguments, Mapping) else {}
        return {"Mcp-Name": _header_value(name), **mirrored}


@dataclass(frozen=True, slots=True, eq=False)
class Handshake:
    """One session with an upstream of the handshake era."""

    version: str
    session_id: str | None
    log_level: list[str] = field(default_factory=list)
    """The level last asked for in it, if any."""

    @property
    def headers(self) -> dict[str, str]:
        mine = {"MCP-Protocol-Version": self.version}
        return mine if self.session_id is None else {**mine, "Mcp-Session-Id": self.session_id}

    def request(
        self, identifier: int, method: str, params: Mapping[str, Any], peer: Peer = NOBODY
    ) -> tuple[dict[str, str], bytes]:
        del peer  # it was introduced at `initialize`
        return self.headers, request(identifier, method, for_handshake(params))

    def cancelled(self, identifier: int) -> bytes:
        return notification("notifications/cancelled", {"requestId": identifier, "reason": "no longer wanted"})


Speaker = Modern | Handshake


def _header_value(text: str) -> str:
    if text.isascii() and text.isprintable() and text == text.strip() and text[:2] != "=?":
        return text
    from mcp.shared.inbound import encode_header_value  # noqa: PLC0415 - slow to import, rare

    return encode_header_value(text)


def param_header_map(tools: list[Any]) -> dict[str, dict[tuple[str, ...], str]]:
    """By tool, the arguments that its input schema declares as headers (`x-mcp-header`), where it does so validly."""
    found: dict[str, dict[tuple[str, ...], str]] = {}
    for tool in tools:
        schema = tool.get("inputSchema") if isinstance(tool, dict) else None
        if schema is None or b"x-mcp-header" not in dumps(schema):
            continue
        from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map  # noqa: PLC0415 - slow, and rare

        if find_invalid_x_mcp_header(schema) is None:
            found[str(tool.get("name"))] = x_mcp_header_map(schema)
    return found
