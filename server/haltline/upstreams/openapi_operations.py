"""Which operations of a document become tools, under which names, with which schemas; and which do not, and why.

Pure: documents in, operations out. What a document says about side effects becomes hints; nothing here is believed where
money or scope is concerned.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from haltline.upstreams.openapi_document import Documents, Unfit, version_of
from haltline.upstreams.openapi_parts import Context, input_of
from haltline.upstreams.openapi_request import Operation

__all__ = ["DESTINATION", "Api", "Filters", "compile_api"]

DESTINATION = "io.haltline/destination"
"""Key in a tool's `_meta`: the host that its calls go to."""
MAX_OPERATIONS = 5_000
MAX_NAME = 64
MAX_DESCRIPTION = 4_000
_METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")
_IN_PATH = re.compile(r"\{([^{}]*)\}")
_QUERY = re.compile(r"[A-Za-z0-9_.~=&-]*")
_HINTS: Mapping[str, Mapping[str, bool]] = {
    "get": {"readOnlyHint": True},
    "head": {"readOnlyHint": True},
    "options": {"readOnlyHint": True},
    "put": {"readOnlyHint": False, "idempotentHint": True},
    "delete": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
}


@dataclass(frozen=True, slots=True)
class Filters:
    """Patterns of operationIds (`get*`) or of method and path (`GET /contacts/*`). An empty `include` means all."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def take(self, found: _Found) -> bool:
        return (not self.include or self._any(self.include, found)) and not self._any(self.exclude, found)

    def idle(self, every: Sequence[_Found]) -> list[str]:
        """Patterns that match nothing: most often written wrong."""
        return [one for one in (*self.include, *self.exclude) if not any(self._any([one], found) for found in every)]

    @staticmethod
    def _any(patterns: Sequence[str], found: _Found) -> bool:
        ids = (found.operation_id, _mapped(found.operation_id))
        return any(
            fnmatchcase(found.label, pattern)
            if " " in pattern
            else any(fnmatchcase(one, pattern) for one in ids if one)
            for pattern in patterns
        )


@dataclass(frozen=True, slots=True)
class Api:
    """A document compiled. `refused`: each operation that is no tool, with the reason. `idle`: filters without effect."""

    operations: Mapping[str, Operation]
    refused: tuple[tuple[str, str], ...]
    idle: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    method: str
    path: str
    operation_id: str
    raw: Mapping[str, Any]
    item: Mapping[str, Any]
    item_at: str

    @property
    def place(self) -> tuple[str, str]:
        """Its path, and a query that is written into it, as some do to tell two operations apart."""
        path, _, query = self.path.partition("?")
        return path, query

    @property
    def label(self) -> str:
        return f"{self.method.upper()} {self.path}"


def compile_api(documents: Documents, filters: Filters, *, taken: frozenset[str], destination: str) -> Api:
    """`taken`: lower-case names of headers (`header:…`) and query parameters (`query:…`) that configuration sends.

    Raises Unreadable where the document as a whole cannot be used.
    """
    context = Context(documents, version_of(documents.root), taken)
    refused: list[tuple[str, str]] = []
    every = list(_found(context, refused))
    wanted = [found for found in every if filters.take(found)]
    names = _names(every)
    operations: dict[str, Operation] = {}
    for found in wanted[:MAX_OPERATIONS]:
        try:
            name = names[found.label]
            operations[name] = _operation(context, found, name, destination)
        except Unfit as error:
            refused.append((found.label, str(error)))
    refused += [(found.label, f"more than {MAX_OPERATIONS} operations") for found in wanted[MAX_OPERATIONS:]]
    return Api(operations, tuple(refused), tuple(filters.idle(every)))


def _found(context: Context, refused: list[tuple[str, str]]) -> Iterator[_Found]:
    """Every operation, in the order of paths and methods, so that nothing depends on how the document is sorted."""
    said = context.documents.root.get("paths")
    paths: dict[str, Any] = said if isinstance(said, dict) else {}
    for path in sorted(paths):
        if path.startswith("x-"):
            continue
        try:
            item, at = context.documents.follow(paths[path], context.documents.home)
        except Unfit as error:
            refused.append((path[:200], str(error)))
            continue
        for method in _METHODS:
            raw = item.get(method)
            if isinstance(raw, dict):
                known_as = raw.get("operationId")
                yield _Found(method, path, known_as if isinstance(known_as, str) else "", raw, item, at)
        if isinstance(item.get("trace"), dict):
            refused.append((f"TRACE {path}"[:200], "TRACE is not offered: it would show the credentials"))


def _names(every: Sequence[_Found]) -> dict[str, str]:
    """A name for each operation. It depends on the operation itself, and on others only where two would have the same.

    An operationId that needs no change keeps its name; of others that come to the same, each ends in eight hex digits of
    the SHA-256 of its method and path.
    """
    wanted = {found.label: _mapped(found.operation_id) or _mapped(found.label) for found in every}
    ids = Counter(found.operation_id for found in every)
    exact = {
        found.label for found in every if found.operation_id == wanted[found.label] and ids[found.operation_id] == 1
    }
    count = Counter(wanted.values())
    kept = {wanted[label] for label in exact}
    names = {}
    for label, name in wanted.items():
        alone = count[name] == 1 or (label in exact and name in kept)
        names[label] = name if alone and len(name) <= MAX_NAME else _marked(name, label)
    return names


def _mapped(text: str) -> str:
    """`Contacts: list {id}` as `Contacts_list_id`."""
    return _OTHER.sub("_", text).strip("_")


def _marked(name: str, label: str) -> str:
    return f"{name[: MAX_NAME - 9]}_{hashlib.sha256(label.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _operation(context: Context, found: _Found, name: str, destination: str) -> Operation:
    _check_place(context, found)
    given = input_of(context, found.raw, found.item, found.item_at)
    path, fixed_query = found.place
    in_path = set(_IN_PATH.findall(path))
    known = {one.name for one in given.parameters if one.place == "path"}
    if in_path - known:
        raise Unfit(f"no parameter describes {{{min(in_path - known)[:80]}}} of its path")
    summary = _text(found.raw.get("summary")) or _text(found.item.get("summary"))
    definition: dict[str, Any] = {
        "name": name,
        **({"title": summary[:200]} if summary else {}),
        "description": _description(found, summary, destination),
        "inputSchema": given.schema,
        "annotations": {**_HINTS.get(found.method, {"readOnlyHint": False}), "openWorldHint": True},
        "_meta": {DESTINATION: destination},
    }
    parameters = tuple(one for one in given.parameters if one.place != "path" or one.name in in_path)
    return Operation(name, found.method.upper(), path, fixed_query, parameters, given.body, given.accept, definition)


def _check_place(context: Context, found: _Found) -> None:
    """Its path must be one, and at the same server as all others."""
    if not found.path.startswith("/") or found.path.startswith("//"):
        raise Unfit("its path does not begin with one /")
    path, query = found.place
    if any(mark in path for mark in "#\\") or not path.isprintable() or " " in path or not _QUERY.fullmatch(query):
        raise Unfit("its path holds what no path may")
    if any(part in {".", ".."} for part in path.split("/")):
        raise Unfit("its path leads upward")
    own = found.raw.get("servers") or found.item.get("servers")
    if own and own != context.documents.root.get("servers"):
        raise Unfit("it is at a server of its own")


def _description(found: _Found, summary: str, destination: str) -> str:
    """The document's words, and what the call is: a description is pinned, so another path or host is another tool."""
    text = "\n\n".join(dict.fromkeys(one for one in (summary, _text(found.raw.get("description"))) if one))
    if found.raw.get("deprecated") is True:
        text = f"Deprecated. {text}"
    if len(text) > MAX_DESCRIPTION:
        text = f"{text[: MAX_DESCRIPTION - 1]}…"
    return f"{text}\n\n{found.label} at {destination}".strip()


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
