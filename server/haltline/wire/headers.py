"""Headers of 2026-07-28 against the body: the SDK's own rules, imported when first needed or by `warm_up`.

A header that says something else than the body is refused, for something in front may have routed on it (row 30).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.wire.eras import HEADER_MISMATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Mismatch", "mirrored", "mismatch", "mismatch_of_arguments", "warm_up"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a request is refused before it is read further: a JSON-RPC error."""

    code: int
    message: str
    data: Any = None


def warm_up() -> None:
    """Import the rules now, so that no request waits for it."""
    import mcp.shared.inbound  # noqa: F401, PLC0415 - half a second


def mismatch(lines: Iterable[tuple[str, str]], headers: Mapping[str, str], body: Mapping[str, Any]) -> Mismatch | None:
    """Version, method and name: once each in the headers, and as in the body."""
    from mcp.shared.inbound import (  # noqa: PLC0415 - see warm_up
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
    """`Mcp-Param-*` headers, as the tool's input schema declares them."""
    from mcp.shared.inbound import validate_mcp_param_headers  # noqa: PLC0415 - see warm_up

    verdict = validate_mcp_param_headers(schema, arguments, headers)
    return None if verdict is None else Mismatch(verdict.code, verdict.message, verdict.data)


def mirrored(schema: Any) -> bool:
    """Whether an input schema validly declares arguments that travel in headers too."""
    from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map  # noqa: PLC0415 - see warm_up

    return find_invalid_x_mcp_header(schema) is None and bool(x_mcp_header_map(schema))
