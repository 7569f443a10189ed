"""One call of one operation as the bytes of an HTTP request.

Owns what may never be steered by arguments: the host, the path outside its parameters, configured headers and query
parameters, line breaks. Sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from haltline.upstreams.address import Address
from haltline.upstreams.messages import dumps
from haltline.upstreams.openapi_styles import Unsendable, cookie_pairs, header_text, path_text, query_pairs

__all__ = ["BODY", "FRAMING", "Body", "Operation", "Parameter", "Target"]

BODY = "body"
MAX_TARGET_BYTES = 16 * 1024
_LOCAL = frozenset({".", ".."})
_IN_PATH = re.compile(r"\{([^{}]*)\}")
_DECODINGS = 4
FRAMING = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade"}
    | {"accept-encoding", "keep-alive", "proxy-connection", "expect"}
)
"""Headers that say how a request is written; nobody else may say it."""
_LINE_BREAK = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`argument` is its name in the tool's arguments, `name` the one that travels."""

    argument: str
    name: str
    place: Literal["path", "query", "header", "cookie"]
    style: str
    explode: bool
    reserved: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What the `body` argument becomes. `encoding`: style and explode of the properties of a form that name one."""

    media_type: str
    kind: Literal["json", "form", "text"]
    encoding: Mapping[str, tuple[str, bool]] = field(default_factory=dict)

    def written(self, value: Any) -> bytes:
        if self.kind == "json":
            return dumps(value)
        if self.kind == "text":
            return (value if isinstance(value, str) else dumps(value).decode()).encode()
        if not isinstance(value, dict):
            raise Unsendable("the body must be an object")
        pairs = [pair for name, one in value.items() if one is not None for pair in self._pairs(name, one)]
        return "&".join(f"{key}={text}" for key, text in pairs).encode("ascii")

    def _pairs(self, name: str, value: Any) -> list[tuple[str, str]]:
        style, explode = self.encoding.get(name, ("form", True))
        if name not in self.encoding and isinstance(value, dict):
            value = dumps(value).decode()  # without a style an object in a form is JSON
        return query_pairs(name, value, style, explode=explode)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document: how it is called, and how it is shown as a tool (`definition`)."""

    name: str
    method: str
    path: str
    fixed_query: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    accept: str
    definition: Mapping[str, Any]


class Target:
    """Where an API is, and what every request to it carries: the configured headers and query parameters."""

    def __init__(self, base_url: str, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        self.address = Address.of(base_url)
        self._root = self.address.target.partition("?")[0].rstrip("/")
        base = urlsplit(base_url).query
        fixed = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items()]
        self._query = ([quote(base, safe="=&%+,;:@/?-._~[]")] if base else []) + fixed
        self._query_names = {name.lower() for name in query}
        self._headers = {name: value for name, value in headers.items() if name.lower() not in FRAMING}
        self._header_names = {name.lower() for name in self._headers}

    def request(self, operation: Operation, arguments: Mapping[str, Any]) -> bytes:
        """The whole request. Raises Unsendable."""
        unknown = (
            set(arguments) - {one.argument for one in operation.parameters} - ({BODY} if operation.body else set())
        )
        if unknown:
            raise Unsendable(f"there is no parameter {min(unknown)[:80]!r}")
        target = self._path(operation, arguments)
        fixed = [operation.fixed_query] if operation.fixed_query else []
        query = self._query + fixed + [f"{key}={text}" for key, text in self._pairs(operation, arguments)]
        if query:
            target += "?" + "&".join(query)
        if len(target) > MAX_TARGET_BYTES:
            raise Unsendable(f"the address would be longer than {MAX_TARGET_BYTES} characters; send less")
        body, headers = self._content(operation, arguments)
        lines = [f"{operation.method} {target} HTTP/1.1", f"Host: {self.address.host_header}"]
        lines += [f"{name}: {value}" for name, value in (headers | self._headers).items()]
        if any(_LINE_BREAK.search(line) for line in lines):
            raise Unsendable("a header may hold no line breaks")
        return "\r\n".join([*lines, "", ""]).encode("utf-8") + body

    def _path(self, operation: Operation, arguments: Mapping[str, Any]) -> str:
        given = {one.name: one for one in operation.parameters if one.place == "path"}

        def written(found: re.Match[str]) -> str:
            one = given[found[1]]
            if arguments.get(one.argument) is None:
                raise Unsendable(f"{one.argument} is missing")
            value = dumps(arguments[one.argument]).decode() if one.as_json else arguments[one.argument]
            text = path_text(one.name, value, one.style, explode=one.explode)
            if _leads_elsewhere(text):
                raise Unsendable(f"{one.argument} may not lead to another path")
            return text

        pieces = _IN_PATH.split(operation.path)
        matches = list(_IN_PATH.finditer(operation.path))
        fixed = [quote(piece, safe="/:@!$&'()*+,;=-._~%") for piece in pieces[::2]]
        path = fixed[0] + "".join(written(match) + text for match, text in zip(matches, fixed[1:], strict=True))
        if not path.startswith("/") or path.startswith("//") or _leads_elsewhere(path):
            raise Unsendable("this would lead to another path")
        return self._root + path

    def _pairs(self, operation: Operation, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
        pairs = []
        for one in operation.parameters:
            value = arguments.get(one.argument)
            if one.place == "query" and value is not None:
                value = dumps(value).decode() if one.as_json else value
                pairs += query_pairs(one.name, value, one.style, explode=one.explode, reserved=one.reserved)
        if any(_plain_key(key) in self._query_names for key, _ in pairs):
            raise Unsendable("a query parameter that is configured may not be given")
        return pairs

    def _content(self, operation: Operation, arguments: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """The body, and the headers that are not configured."""
        headers = {"User-Agent": "haltline", "Accept": operation.accept, "Accept-Encoding": "identity"}
        cookies: list[tuple[str, str]] = []
        for one in operation.parameters:
            value = arguments.get(one.argument)
            if value is None:
                continue
            value = dumps(value).decode() if one.as_json else value
            if one.place == "header":
                headers[one.name] = header_text(value, explode=one.explode)
            elif one.place == "cookie":
                cookies += cookie_pairs(one.name, value, explode=one.explode)
        if cookies:
            headers["Cookie"] = "; ".join(f"{key}={text}" for key, text in cookies)
        body = b""
        if operation.body is not None and BODY in arguments:
            body = operation.body.written(arguments[BODY])
            headers["Content-Type"] = operation.body.media_type
        kept = {name: value for name, value in headers.items() if name.lower() not in self._header_names}
        if body or operation.method in {"POST", "PUT", "PATCH"}:
            kept["Content-Length"] = str(len(body))
        return body, kept


def _plain_key(key: str) -> str:
    """As servers read it that take `key[]` and `key[a]` for `key` too."""
    return unquote(key).lower().partition("[")[0].strip()


def _leads_elsewhere(path: str) -> bool:
    """Whether a part of it is `.` or `..` to whoever decodes it, once or more often, and splits it at a slash of any kind."""
    for _ in range(_DECODINGS):
        parts = path.replace("\\", "/").split("/")
        if any(part.partition(";")[0].strip() in _LOCAL for part in parts):
            return True
        path = unquote(path)
    return False
