"""How a value is written in a path, a query, a header or a cookie: the `style` and `explode` of OpenAPI 3 (RFC 6570).

Pure text. Everything outside RFC 3986's unreserved characters is percent-encoded, but in headers, where a control character
is refused instead.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

__all__ = ["STYLES", "Unsendable", "cookie_pairs", "header_text", "path_text", "query_pairs"]

STYLES = {
    "path": frozenset({"simple", "label", "matrix"}),
    "query": frozenset({"form", "spaceDelimited", "pipeDelimited", "deepObject"}),
    "header": frozenset({"simple"}),
    "cookie": frozenset({"form"}),
}
_BETWEEN = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}
_RESERVED = ":/?@!$'()*,;[]"
"""What `allowReserved` leaves as it is. `&`, `=`, `+` and `#` never are: one value stays one value."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Pair = tuple[str, str]


class Unsendable(ValueError):
    """Arguments that cannot be written into a request; says why, without their values."""


def query_pairs(name: str, value: Any, style: str, *, explode: bool, reserved: bool = False) -> list[Pair]:
    """The pairs of a query or a form, encoded: `[("id", "3"), ("id", "4")]`."""
    safe = _RESERVED if reserved else ""
    key = _encoded(name)
    if isinstance(value, dict):
        if style == "deepObject":
            return _deep(key, value, safe)
        if explode and style == "form":
            return [(_encoded(one), _encoded(_text(inner), safe)) for one, inner in value.items()]
        flat = [part for one, inner in value.items() for part in (one, _text(inner))]
        return [(key, _BETWEEN[style].join(_encoded(part, safe) for part in flat))]
    if isinstance(value, list):
        if style == "deepObject":
            return _deep(key, value, safe)
        if explode:
            return [(key, _encoded(_text(one), safe)) for one in value]
        return [(key, _BETWEEN[style].join(_encoded(_text(one), safe) for one in value))]
    return [(key, _encoded(_text(value), safe))]


def path_text(name: str, value: Any, style: str, *, explode: bool) -> str:
    """What stands in a path in the place of `{name}`."""
    key = _encoded(name)
    if isinstance(value, dict):
        pairs = [(_segment(one), _segment(_text(inner))) for one, inner in value.items()]
        parts = [f"{one}={inner}" for one, inner in pairs] if explode else [part for pair in pairs for part in pair]
    elif isinstance(value, list):
        parts = [_segment(_text(one)) for one in value]
    else:
        parts = [_segment(_text(value))]
    if not parts:
        raise Unsendable("a value in the path may not be empty")
    if style == "simple":
        return ",".join(parts)
    if style == "label":
        return "." + (".".join(parts) if explode else ",".join(parts))
    if not explode or not isinstance(value, dict | list):
        return f";{key}=" + ",".join(parts)
    return "".join(f";{part}" if isinstance(value, dict) else f";{key}={part}" for part in parts)


def header_text(value: Any, *, explode: bool) -> str:
    if isinstance(value, dict):
        pairs = [(one, _text(inner)) for one, inner in value.items()]
        text = (
            ",".join(f"{one}={inner}" for one, inner in pairs)
            if explode
            else ",".join(x for pair in pairs for x in pair)
        )
    else:
        text = ",".join(_text(one) for one in value) if isinstance(value, list) else _text(value)
    if _CONTROL.search(text):
        raise Unsendable("a header may hold no line breaks or other control characters")
    return text


def cookie_pairs(name: str, value: Any, *, explode: bool) -> list[Pair]:
    return query_pairs(name, value, "form", explode=explode)


def _deep(key: str, value: Any, safe: str) -> list[Pair]:
    """`filter[from][year]=2026`; the members of a list by their index."""
    if isinstance(value, dict):
        return [pair for one, inner in value.items() for pair in _deep(f"{key}[{_encoded(one)}]", inner, safe)]
    if isinstance(value, list):
        return [pair for index, inner in enumerate(value) for pair in _deep(f"{key}[{index}]", inner, safe)]
    return [(key, _encoded(_text(value), safe))]


def _text(value: Any) -> str:
    """A single value; what is nested where the style has no way to write it is JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _encoded(text: str, safe: str = "") -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError as error:
        raise Unsendable("a text holds half a surrogate pair") from error


def _segment(text: str) -> str:
    """One value within a path, which may not lead elsewhere, however often somebody decodes it on the way."""
    if not text:
        raise Unsendable("a value in the path may not be empty")
    return quote(text, safe="")
