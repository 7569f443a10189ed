"""JSON-RPC 2.0 towards upstreams: writing requests, reading what comes back as plain values, unchanged but bounded.

Knows no transport. What an upstream sends is hostile until it was read here: bad UTF-8, NaN, half surrogate pairs and
nesting that a later reader or writer would choke on are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

import orjson

from haltline.policy.money import Written
from haltline.upstreams.model import Peer
from haltline_client.version import __version__

__all__ = [
    "CLIENT_INFO",
    "HANDSHAKE_VERSION",
    "HANDSHAKE_VERSIONS",
    "LIST_CHANGED",
    "MAX_DEPTH",
    "METHOD_NOT_FOUND",
    "MODERN_VERSION",
    "OWN_META",
    "BadMessage",
    "answer_in",
    "answer_to",
    "dumps",
    "for_handshake",
    "for_modern",
    "initialize_params",
    "notification",
    "progress_token",
    "read",
    "reply_to",
    "request",
]

MAX_DEPTH = 128
"""Far from what any tool answers, well under what writers refuse."""
CLIENT_INFO = {"name": "haltline", "version": __version__}
MODERN_VERSION = "2026-07-28"
HANDSHAKE_VERSION = "2025-11-25"
HANDSHAKE_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
LIST_CHANGED = "notifications/tools/list_changed"
METHOD_NOT_FOUND = -32601
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_INFO_KEY = "io.modelcontextprotocol/clientInfo"
_LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"
OWN_META = {_INFO_KEY: CLIENT_INFO}
"""Of requests that are the broker's own, at 2026-07-28."""
_ENVELOPE = "io.modelcontextprotocol/"
"""Envelope keys of 2026-07-28 in `_meta`; an upstream of the handshake era was told the same at `initialize`."""


class BadMessage(ValueError):
    """Not a message that could be handed on; says why in words fit for an agent."""


def read(data: bytes) -> Any:
    """The value of one JSON text. Raises BadMessage."""
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise BadMessage("not valid UTF-8") from error
    except RecursionError as error:
        raise BadMessage("nested too deeply") from error
    except ValueError as error:
        raise BadMessage("not valid JSON") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise BadMessage("nested too deeply")
    if _SURROGATE.search(text):
        _check_encodable(value)
    return value


def answer_in(message: Mapping[str, Any]) -> dict[str, Any]:
    """A response reduced to `{"result": {…}}` or `{"error": {…}}`. Raises BadMessage."""
    if ("result" in message) == ("error" in message):
        raise BadMessage("neither a result nor an error")
    if "result" in message:
        if not isinstance(message["result"], dict):
            raise BadMessage("a result that is not an object")
        return {"result": message["result"]}
    error = message["error"]
    if not isinstance(error, dict) or type(error.get("code")) is not int or not isinstance(error.get("message"), str):
        raise BadMessage("an error without code and message")
    return {"error": error}


def dumps(value: Any) -> bytes:
    """Compact JSON. Integers beyond 64 bits survive, which the fast writer alone would refuse."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def request(identifier: int, method: str, params: Mapping[str, Any]) -> bytes:
    return dumps({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return dumps(message if params is None else {**message, "params": params})


def reply_to(message: Mapping[str, Any]) -> bytes:
    """What an upstream that asks something of its client is told: a ping is answered, nothing else is offered."""
    head = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "ping":
        return dumps({**head, "result": {}})
    return dumps({**head, "error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}})


def initialize_params(
    capabilities: Mapping[str, Any] | None = None, info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the agent's own client said of itself, so that the upstream meets it and not the broker."""
    return {
        "protocolVersion": HANDSHAKE_VERSION,
        "capabilities": dict(capabilities or {}),
        "clientInfo": dict(info or CLIENT_INFO),
    }


def answer_to(message: Mapping[str, Any], answer: Mapping[str, Any]) -> bytes:
    """A client's answer to what an upstream asked."""
    return dumps({"jsonrpc": "2.0", "id": message["id"], **answer})


def for_handshake(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same params without the envelope keys of the newer era in `_meta`."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or not any(key.startswith(_ENVELOPE) for key in meta):
        return dict(params)
    kept = {key: value for key, value in meta.items() if not key.startswith(_ENVELOPE)}
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return {**rest, "_meta": kept} if kept else rest


def for_modern(params: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
    """The same params in the envelope of 2026-07-28: the upstream meets the agent's client, what it can do, its name and
    the log level that it wants.
    """
    meta = params.get("_meta")
    kept = meta if isinstance(meta, dict) else {}
    stamped = {**kept, _VERSION_KEY: MODERN_VERSION, _CAPABILITIES_KEY: dict(peer.capabilities)}
    if peer.info is not None:
        stamped.setdefault(_INFO_KEY, peer.info)
    if peer.log_level is not None:
        stamped.setdefault(_LOG_LEVEL_KEY, peer.log_level)
    return {**params, "_meta": stamped}


def progress_token(params: Mapping[str, Any]) -> int | str | None:
    """The token under which a caller wants to hear of progress. 0 is one."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, int | str) and not isinstance(token, bool) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text[:40])
    if len(text) > _EXACT_CHARS and Decimal(text) != Decimal(repr(value)):
        return Written(text)  # an amount may be read from it (R7)
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
"""Not the fast reader: that one bends integers beyond 64 bits into floats."""
_EXACT_CHARS = 16
"""Fifteen digits and a point: a double gives back as many as it was read from."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _check_encodable(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadMessage("text with half a surrogate pair") from error
