"""Headers of 2026-07-28 against the body. What plainly agrees is let through; whatever else is judged by the SDK's own rules.

The SDK's package costs half a second and a quarter of the broker's memory, so it is imported when something first needs
judging. A header that says something else than the body is refused, for something in front may have routed on it (row 30).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio

from haltline.wire.eras import CLIENT_CAPABILITIES, HEADER_MISMATCH, MODERN_VERSIONS, NAMED, PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Mismatch", "declares_headers", "mismatch", "mismatch_of_arguments", "plainly_agree", "rules"]

_RULES = "mcp.shared.inbound"
_ROUTING = frozenset({b"mcp-protocol-version", b"mcp-method", b"mcp-name"})
_VERSION, _METHOD, _NAME = "mcp-protocol-version", "mcp-method", "mcp-name"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a request is refused before it is read further: a JSON-RPC error."""

    code: int
    message: str
    data: Any = None


def plainly_agree(
    raw: Iterable[tuple[bytes, bytes]], headers: Mapping[str, str], method: str, params: Mapping[str, Any]
) -> bool:
    """Whether version, method and name are there once each, unencoded, and as in the body. False: for `mismatch` to say.

    `raw`: the header lines, their names in lower case; `headers`: the same, folded.
    """
    meta = params.get("_meta")
    if type(meta) is not dict or CLIENT_CAPABILITIES not in meta:
        return False
    version = headers.get(_VERSION)
    if version not in MODERN_VERSIONS or meta.get(PROTOCOL_VERSION) != version or headers.get(_METHOD) != method:
        return False
    routing = [name for name, _ in raw if name in _ROUTING]
    if len(routing) != len(set(routing)):
        return False
    if method not in NAMED:
        return True
    name, said = headers.get(_NAME), params.get(NAMED[method])
    return type(said) is str and name == said and not said.startswith("=?")


def declares_headers(schema: bytes) -> bool:
    """Whether an input schema, as JSON, may declare arguments that travel in headers too."""
    return b"x-mcp-header" in schema


async def rules() -> None:
    """Have the SDK's rules at hand; nobody else waits while they are imported."""
    if _RULES not in sys.modules:
        await anyio.to_thread.run_sync(import_module, _RULES)


def mismatch(lines: Iterable[tuple[str, str]], headers: Mapping[str, str], body: Mapping[str, Any]) -> Mismatch | None:
    """Version, method and name: once each in the headers, and as in the body."""
    from mcp.shared.inbound import (  # noqa: PLC0415 - see rules
        InboundLadderRejection,
        classify_inbound_request,
        find_duplicated_routing_header,
    )

    duplicated = find_duplicated_routing_header(lines)
    if duplicated is not None:
        return Mismatch(HEADER_MISMATCH, f"{duplicated} header appears more than once")
    verdict = classify_inbound_request(body, headers=headers)
    if isinstance(verdict, InboundLadderRejection):
        return Mismatch(verdict.code, verdict.message, verdict.data)
    return None


def mismatch_of_arguments(schema: Any, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> Mismatch | None:
    """`Mcp-Param-*` headers, where the tool's input schema validly declares them."""
    from mcp.shared.inbound import (  # noqa: PLC0415 - see rules
        find_invalid_x_mcp_header,
        validate_mcp_param_headers,
        x_mcp_header_map,
    )

    if find_invalid_x_mcp_header(schema) is not None or not x_mcp_header_map(schema):
        return None
    verdict = validate_mcp_param_headers(schema, arguments, headers)
    return None if verdict is None else Mismatch(verdict.code, verdict.message, verdict.data)
