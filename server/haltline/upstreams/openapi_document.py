"""The text of an OpenAPI document, and of those it refers to, as plain values that are bounded; `$ref`s are followed here.

Reads JSON and YAML from bytes. Fetches nothing, and knows no meaning beyond `openapi:` and `$ref`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urljoin

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import Node

from haltline.upstreams.messages import MAX_DEPTH, BadMessage, read

__all__ = ["MAX_JSON_BYTES", "Documents", "Unfit", "Unreadable", "other_documents", "parse", "version_of"]

MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_YAML_BYTES = 8 * 1024 * 1024
"""YAML takes a second for each third of a MiB."""
MAX_VALUES = 1_000_000
"""With aliases written out: nine lines of YAML can mean more values than there is memory."""
MAX_CHAIN = 16


class Unreadable(ValueError):
    """Not an OpenAPI document that can be used; says why."""


class Unfit(ValueError):
    """One operation that cannot be a tool; says why."""


def parse(data: bytes) -> Any:
    """Plain values with text keys, nested at most as deep as a message may be. Raises Unreadable."""
    if len(data) > MAX_JSON_BYTES:
        raise Unreadable(f"larger than {MAX_JSON_BYTES // 2**20} MiB")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"["}:
        try:
            return read(data.removeprefix(b"\xef\xbb\xbf"))
        except BadMessage as error:
            if "nested" in str(error):
                raise Unreadable(str(error)) from error  # else it may be YAML in braces
    return _parse_yaml(data)


def version_of(root: Any) -> str:
    """`3.0` or `3.1`. Raises Unreadable."""
    if not isinstance(root, dict):
        raise Unreadable("not an OpenAPI document: it is no mapping")
    if "swagger" in root:
        raise Unreadable(f"it is Swagger {str(root['swagger'])[:10]}, not OpenAPI 3.0 or 3.1; convert it first")
    said = str(root.get("openapi", ""))[:10]
    if not said.startswith(("3.0", "3.1")):
        raise Unreadable(f"it says openapi: {said or 'nothing'}; 3.0 and 3.1 are read")
    return said[:3]


@dataclass(frozen=True, slots=True)
class Documents:
    """The document at `home`, and those it may refer to, by their addresses (URLs, or paths beside it)."""

    home: str
    root: Mapping[str, Any]
    others: Mapping[str, Any] = field(default_factory=dict)

    def locate(self, ref: str, at: str) -> tuple[str, str, Any]:
        """(document, pointer, value) of a `$ref` that stands in the document `at`. Raises Unfit."""
        where, _, pointer = ref.partition("#")
        document = _joined(at, where)
        if document != self.home and document not in self.others:
            raise Unfit(f"it refers to another document ({where[:100]}); remote_refs: true would allow that")
        if pointer and not pointer.startswith("/"):
            raise Unfit(f"it refers to an anchor ({ref[:100]})")
        value: Any = self.root if document == self.home else self.others[document]
        for written in pointer.split("/")[1:]:
            step = unquote(written).replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdigit() and len(step) < 9 and int(step) < len(value):
                value = value[int(step)]
            else:
                raise Unfit(f"it refers to {ref[:100]}, which is not there")
        return document, pointer, value

    def follow(self, value: Any, at: str) -> tuple[Mapping[str, Any], str]:
        """An object (parameter, body, path …) with its `$ref`s followed, and the document it stands in. Raises Unfit."""
        for _ in range(MAX_CHAIN):
            if not isinstance(value, dict):
                raise Unfit("a part of it is no mapping")
            ref = value.get("$ref")
            if not isinstance(ref, str):
                return value, at
            at, _, value = self.locate(ref, at)
        raise Unfit("a part of it refers to itself")


def other_documents(value: Any, at: str) -> Iterator[str]:
    """The addresses of the documents that this one refers to."""
    rest = [value]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            ref = node.get("$ref")
            if isinstance(ref, str) and ref[:1] != "#":
                yield _joined(at, ref.partition("#")[0])
            rest += node.values()
        elif isinstance(node, list):
            rest += node


def _joined(at: str, where: str) -> str:
    try:
        return urljoin(at, where) if where else at
    except ValueError as error:
        raise Unfit("it refers to an address that is none") from error


def _parse_yaml(data: bytes) -> Any:
    if len(data) > MAX_YAML_BYTES:
        raise Unreadable(f"neither JSON nor YAML of at most {MAX_YAML_BYTES // 2**20} MiB")
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Composer = _Shallow
        return _Plain().value(yaml.load(data.decode("utf-8-sig")), MAX_DEPTH)
    except UnicodeDecodeError as error:
        raise Unreadable("not valid UTF-8") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).partition("\n")[0]
        place = "" if mark is None else f" (line {mark.line + 1})"
        raise Unreadable(f"neither JSON nor YAML: {str(said)[:200]}{place}") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    except (ValueError, OverflowError, TypeError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"a value in it cannot be read: {str(error)[:100]}") from error


class _Shallow(Composer):
    """Stops where it gets too deep: the scanner's work grows with the square of the depth."""

    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Any:
        self._depth += 1
        if self._depth > 2 * MAX_DEPTH:  # keys count as well as values
            raise Unreadable("nested too deeply")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Plain:
    """A copy in the values of JSON. Aliases are written out, within bounds."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Unreadable(f"with its aliases written out it holds more than {MAX_VALUES} values")
        if depth < 0:
            raise Unreadable("nested too deeply")
        if isinstance(value, dict):
            return {_key(key): self.value(one, depth - 1) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one, depth - 1) for one in value]
        if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124
            return str(value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return value.isoformat() if isinstance(value, dt.date) else str(value)


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
