"""The headers that 2026-07-28 wants beside each request, read from its body, and what they take from tool definitions.

After the specification, revision 2026-07-28, basic/transports, "Custom headers". Written out here because importing an
SDK would cost more than the whole start of the bridge.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from haltline_client.stdio.messages import Message

__all__ = ["Tools", "encoded", "routing"]

NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
ANNOTATION = "x-mcp-header"
PRIMITIVE = {"string", "integer", "boolean"}
TOOLS_MAX = 10_000
_SENTINEL = re.compile(r"=\?base64\?.*\?=")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ONE = {
    "items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties",
    "not", "if", "then", "else", "contentSchema",
}  # fmt: skip
_MANY = {"allOf", "anyOf", "oneOf", "prefixItems"}
_NAMED = {"patternProperties", "dependentSchemas", "$defs", "definitions"}
Path = tuple[str, ...]


def encoded(value: str) -> str:
    """As it is where a header can carry it, else in base64 between `=?base64?` and `?=`."""
    plain = value.isascii() and (value.isprintable() or not value) and value == value.strip()
    if plain and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode('ascii')}?="


def routing(message: Message) -> dict[str, str]:
    """`MCP-Protocol-Version`, `Mcp-Method` and, where the method names something, `Mcp-Name`."""
    headers = {"MCP-Protocol-Version": encoded(message.version or ""), "Mcp-Method": encoded(message.method or "")}
    name = message.params.get(NAMED.get(message.method or "", ""))
    return {**headers, "Mcp-Name": encoded(name)} if isinstance(name, str) else headers


class Tools:
    """Which arguments of which tools are mirrored in `Mcp-Param-*`, as the lists that passed by said."""

    def __init__(self) -> None:
        self._mirrored: dict[str, dict[Path, str]] = {}

    def learn(self, result: Mapping[str, Any]) -> None:
        tools = result.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            name = tool.get("name") if isinstance(tool, dict) else None
            if isinstance(name, str) and (name in self._mirrored or len(self._mirrored) < TOOLS_MAX):
                self._mirrored[name] = _mirrored(tool.get("inputSchema"))

    def forget(self) -> None:
        self._mirrored.clear()

    def unknown(self, name: str) -> None:
        """It was asked for and is not listed: not to be asked for at every call."""
        if len(self._mirrored) < TOOLS_MAX:
            self._mirrored.setdefault(name, {})

    def headers(self, name: str, arguments: Mapping[str, Any]) -> dict[str, str] | None:
        """None when this tool was never listed."""
        mirrored = self._mirrored.get(name)
        if mirrored is None:
            return None
        found = {token: _text(_at(arguments, path)) for path, token in mirrored.items()}
        return {f"Mcp-Param-{token}": encoded(text) for token, text in found.items() if text is not None}


def _mirrored(schema: Any) -> dict[Path, str]:
    """Annotated properties by their path; empty when one annotation is invalid, as if there were none."""
    found: dict[Path, str] = {}
    for path, position in _positions(schema):
        if ANNOTATION not in position:
            continue
        token, kind = position[ANNOTATION], position.get("type")
        named = isinstance(token, str) and _TOKEN.fullmatch(token) is not None
        if not path or not named or not isinstance(kind, str) or kind not in PRIMITIVE:
            return {}
        if token.lower() in {other.lower() for other in found.values()}:
            return {}
        found[path] = token
    return found


def _positions(root: Any) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Every schema in a schema; its path of `properties`, None where another keyword led there."""
    waiting: list[tuple[Path | None, Any]] = [((), root)]
    while waiting:
        path, schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        yield path, schema
        for key, value in schema.items():
            if key == "properties" and isinstance(value, dict):
                waiting += [(None if path is None else (*path, name), one) for name, one in value.items()]
            elif key in _ONE:
                waiting.append((None, value))
            elif key in _MANY and isinstance(value, list):
                waiting += [(None, one) for one in value]
            elif key in _NAMED and isinstance(value, dict):
                waiting += [(None, one) for one in value.values()]


def _at(arguments: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key)
    return arguments


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None
