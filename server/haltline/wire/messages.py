"""JSON-RPC 2.0 messages as plain dictionaries: reading their shape, and making answers.

Codes are those of JSON-RPC and of the MCP revision 2026-07-28; none is invented here. Knows no transport.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haltline.wire.eras import (
    HTTP_STATUS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
)

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "Answer",
    "Message",
    "Unauthorized",
    "error",
    "http_status",
    "read",
    "result",
]

Answer = dict[str, Any]
"""`{"result": …}` or `{"error": {"code", "message", "data"?}}`, without envelope and id."""


@dataclass(frozen=True, slots=True)
class Message:
    """One inbound message. `method` is None for a response; `id` is None for a notification."""

    id: int | str | None
    method: str | None
    params: dict[str, Any]
    answer: Answer | None = None
    """What a response says, `{"result"}` or `{"error"}`."""


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """A token that is nobody's (any more): HTTP 401. `code` is one of `credential.*`."""

    code: str
    text: str


def result(value: dict[str, Any]) -> Answer:
    return {"result": value}


def error(code: int, message: str, data: Any = None) -> Answer:
    described = {"code": code, "message": message}
    return {"error": described if data is None else {**described, "data": data}}


def http_status(answer: Answer) -> int:
    """The HTTP status that goes with an answer at 2026-07-28; before it an answer is always 200."""
    error = answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return HTTP_STATUS.get(code, 200) if isinstance(code, int) else 200


def read(value: Any) -> Message | str:
    """The message in a parsed body, or a sentence that says why it is none."""
    if isinstance(value, list):
        return "batches are not accepted: send one message a request"
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return 'the body must be one JSON-RPC object with "jsonrpc": "2.0"'
    identifier, method, params = value.get("id"), value.get("method"), value.get("params")
    if "id" in value and (isinstance(identifier, bool) or not isinstance(identifier, int | str)):
        return '"id" must be a string or an integer'
    if params is not None and not isinstance(params, dict):
        return '"params" must be an object'
    if method is None and identifier is not None and ("result" in value or "error" in value):
        said = {key: value[key] for key in ("result", "error") if key in value}
        return Message(identifier, None, {}, said)
    if not isinstance(method, str):
        return '"method" must be a string'
    return Message(identifier, method, params or {})
