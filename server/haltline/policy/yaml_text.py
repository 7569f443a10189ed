"""YAML text to plain values and the line each one stands on. Reads no file and knows no meaning of a key.

Stricter than a YAML library by itself: a key given twice is a problem (a second `cap` must never silently replace the
first), so are tags, anchors and a second document; `22:00` and dates stay strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from haltline.errors import ConfigError, Problem

__all__ = ["Document", "Path", "parse_yaml"]

Path = tuple[str | int, ...]

_MAX_CHARACTERS = 1_048_576
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {
    _TAG + name for name in ("null", "bool", "int", "float", "str", "timestamp", "map", "seq", "merge", "value")
}


@dataclass(frozen=True, slots=True)
class Document:
    """The plain content of one file, and the 1-based line of the key or list item at each path."""

    file: str
    content: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of what is at the path, or of the nearest thing around it that is written down."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def problem(self, path: Path, message: str) -> Problem:
        return Problem(self.file, self.line(path), ".".join(map(str, path)), message)


def parse_yaml(text: str, file: str) -> Document:
    """The only document in the text (None for an empty one). Raises ConfigError with every problem of its form."""
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError([Problem(file, None, "", f"longer than {_MAX_CHARACTERS} characters")])
    reading = _Reading(file)
    try:
        yaml = YAML(typ="safe", pure=True)
        # An alias can make a few lines unfold into gigabytes, and says nothing that could not be written out.
        aliases = [event.start_mark.line + 1 for event in yaml.parse(text) if isinstance(event, AliasEvent)]
        reading.problems += [
            Problem(file, line, "", "YAML aliases (*name) are not read: write it out") for line in aliases
        ]
        root = None if aliases else YAML(typ="safe", pure=True).compose(text)
        content = None if root is None else reading.value(root, ())
    except YAMLError as error:
        raise ConfigError([_broken(error, file)]) from error
    except RecursionError as error:
        raise ConfigError([Problem(file, None, "", "nested too deeply")]) from error
    if reading.problems:
        raise ConfigError(reading.problems)
    return Document(file, content, reading.lines)


class _Reading:
    """One walk over the nodes, collecting lines and problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def value(self, node: Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if str(node.tag) not in _PLAIN_TAGS:
            self._problem(node, path, f"the tag {node.tag} is not known here: leave it out")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._problem(key_node, path, "a key must be a single word or a quoted text")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in content:
                first = self.lines[here]
                self._problem(key_node, here, f"given twice (first on line {first}); keep one")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            content[key] = self.value(value_node, here)
        return content

    def _problem(self, node: Node, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, ".".join(map(str, path)), message))


def _scalar(node: Node) -> Any:
    text, kind = str(node.value), str(node.tag).removeprefix(_TAG)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        if kind == "int":
            return int(text.replace("_", ""), 0)
        return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan")) if kind == "float" else text
    except ValueError:
        return text


def _broken(error: YAMLError, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "'\\t'" in said:
        said = "a tab where YAML wants spaces: indent with spaces"
    return Problem(file, None if mark is None else mark.line + 1, "", f"not valid YAML: {said}")
