"""One strict parse of what a caller sends: what is decided on is exactly what is sent on (promises, row 29).

Refuses what two parsers could read differently: duplicate keys, NaN and infinities, numbers beyond a double, lone
surrogates, bad UTF-8, and nesting that a later parser might choke on.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

__all__ = ["MAX_DEPTH", "BadJson", "dumps", "parse"]

MAX_DEPTH = 64


class BadJson(ValueError):
    """A sentence fit for the caller that says what is wrong."""


def parse(body: bytes) -> Any:
    """The value of a JSON text. Raises BadJson."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not valid UTF-8 (byte {error.start})") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise BadJson(f"the body is nested deeper than {MAX_DEPTH} levels")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson(f"the body is not valid JSON: {error.msg} (character {error.pos})") from error
    except BadJson:
        raise
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits
        raise BadJson("the body holds a number that cannot be read exactly") from error
    if _SURROGATE.search(text):
        _check_encodable(value)
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON. Integers beyond 64 bits survive, which the fast writer alone would refuse."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadJson(f"the key {key[:80]!r} appears twice in one object")
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadJson(f"the number {text[:40]} is too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRUCTURE = re.compile(r'"(?:[^"\\]+|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""Strings whole, so that brackets inside them do not count; possessive, so that a hostile text costs linear time."""


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in _STRUCTURE.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return depth
            deepest = max(deepest, depth)
        elif first != '"':
            depth -= 1
    return deepest


def _check_encodable(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadJson("a string holds half of a surrogate pair, which no receiver could read") from error
