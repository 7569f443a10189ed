"""JSON as it is stored: keys sorted, written once, of whatever value; and read back exactly.

Fast where orjson can, complete where it will not: what has no JSON (NaN, half a surrogate pair, endless depth) is noted in
its place, for a record that cannot be written would stop what it is to record.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["json_bytes", "json_text", "loads"]

_DEPTH_MAX = 200
"""orjson's own limit is 254."""
_INTEGER_BITS_MAX = 10_000
_LONG_INTEGER = re.compile(rb"[0-9]{17}")
_SURROGATES = re.compile("[\ud800-\udfff]")


def json_text(value: Any) -> str:
    """Always returns JSON that `loads` reads and UTF-8 can carry."""
    return json_bytes(value).decode()


def json_bytes(value: Any) -> bytes:
    """The same in UTF-8."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError):
        return _complete(value).encode()  # long integers, lone surrogates, depth


def _complete(value: Any) -> str:
    try:
        return _dumps(value)
    except (TypeError, ValueError, RecursionError):
        return _dumps(_plain(value, _DEPTH_MAX))


def loads(data: bytes | str) -> Any:
    """The value, its integers exact whatever their length. Raises ValueError or RecursionError."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if _LONG_INTEGER.search(raw) is None:
        return orjson.loads(raw)
    return json.loads(raw)


def _dumps(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_noted)
    return _SURROGATES.sub("\ufffd", text)


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping | list | tuple):
        if depth == 0:
            return f"[deeper than {_DEPTH_MAX} levels]"
        if isinstance(value, Mapping):
            return {str(key): _plain(one, depth - 1) for key, one in value.items()}
        return [_plain(one, depth - 1) for one in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if value.bit_length() <= _INTEGER_BITS_MAX else f"[integer of {value.bit_length()} bits]"
        case float():
            return value if math.isfinite(value) else f"[{value}]"
        case _:
            return _noted(value)


def _noted(value: object) -> Any:
    return dict(value) if isinstance(value, Mapping) else f"[{type(value).__name__}]"
