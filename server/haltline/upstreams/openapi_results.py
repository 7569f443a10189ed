"""What an API answered as the result of a tool: JSON as it is, text as text, an error status as a readable error.

The body stays the API's own words. Nothing of the request, and so no credential, is in a result.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from haltline.upstreams.http_body import HttpAnswer
from haltline.upstreams.messages import BadMessage, read

__all__ = ["HTTP_META", "tool_result"]

HTTP_META = "io.haltline/http"
"""Key in a result's `_meta`: `status`, and what of the headers an agent may need."""
MAX_ERROR_CHARS = 4_000
MAX_CUT_CHARS = 64 * 1024
_SHOWN = ("location", "link", "retry-after", "etag")
_MAX_SHOWN = 2_000
_CHARSET = re.compile(r"charset=\"?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_TEXT_TYPES = ("application/xml", "application/x-www-form-urlencoded", "application/javascript", "application/yaml")


def tool_result(answer: HttpAnswer) -> dict[str, Any]:
    """A `CallToolResult`."""
    meta: dict[str, Any] = {"status": answer.status}
    for name in _SHOWN:
        if answer.header(name):
            meta[name.replace("-", "_")] = answer.header(name)[:_MAX_SHOWN]
    if answer.status >= 300:
        return _result(_error_text(answer), meta, is_error=True)
    if answer.cut:
        return _result(_cut_text(answer), meta)
    if not answer.body:
        place = f", location: {meta['location']}" if "location" in meta else ""
        return _result(f"{_status(answer)}{place}, no content", meta)
    if _is_json(answer):
        try:
            value = read(answer.body)
        except BadMessage as error:
            return _result(f"{_status(answer)}; said to be JSON, but it is {error}:\n{_text(answer)}", meta)
        return _result(_text(answer), meta, structured=value if isinstance(value, dict) else None)
    if not _is_text(answer):
        return _result(_binary(answer, f"{len(answer.body)} bytes"), meta)
    return _result(_text(answer), meta)


def _result(
    text: str, meta: dict[str, Any], *, structured: dict[str, Any] | None = None, is_error: bool = False
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": text}],
        "isError": is_error,
        "_meta": {HTTP_META: meta},
    }
    return result if structured is None else {**result, "structuredContent": structured}


def _error_text(answer: HttpAnswer) -> str:
    if answer.status < 400:
        to = answer.header("location")[:_MAX_SHOWN]
        return f"{_status(answer)}: a redirect{f' to {to}' if to else ''}, and redirects are not followed"
    retry = answer.header("retry-after")[:100]
    head = _status(answer) + (f" (retry after {retry})" if retry else "")
    if not answer.body:
        return head
    if not (_is_json(answer) or _is_text(answer)):
        return f"{head}: {_binary(answer, f'{len(answer.body)} bytes')}"
    text = _text(answer).strip()
    return f"{head}: {text[:MAX_ERROR_CHARS]}" + (" …" if answer.cut or len(text) > MAX_ERROR_CHARS else "")


def _cut_text(answer: HttpAnswer) -> str:
    size = f"more than the {len(answer.body)} bytes that are allowed"
    if not (_is_json(answer) or _is_text(answer)):
        return _binary(answer, size)
    return f"{_status(answer)}; the answer is {size}; it begins:\n{_text(answer)[:MAX_CUT_CHARS]} …"


def _binary(answer: HttpAnswer, size: str) -> str:
    return f"{_status(answer)}; the content is {answer.media_type or 'of no type'}, {size}, and not text: it is not handed on"


def _status(answer: HttpAnswer) -> str:
    try:
        return f"HTTP {answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        return f"HTTP {answer.status}"


def _is_json(answer: HttpAnswer) -> bool:
    return answer.media_type.endswith(("/json", "+json"))


def _is_text(answer: HttpAnswer) -> bool:
    kind = answer.media_type
    if kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+xml", "+yaml")):
        return True
    return not kind and b"\0" not in answer.body


def _text(answer: HttpAnswer) -> str:
    said = _CHARSET.search(answer.header("content-type"))
    name = said[1] if said and not _is_json(answer) else "utf-8"
    try:
        text = answer.body.decode(name, "replace")
    except (LookupError, UnicodeError):
        text = answer.body.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode("utf-8")
