"""Policy files to one merged document: reading, checking each, and refusing what two files both say.

The only part of the policy that touches files. Reports every problem of every file, each with file, line and key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from haltline.errors import ConfigError, Problem
from haltline.policy.complaints import problems_of
from haltline.policy.document import PolicyFile
from haltline.policy.drill import DRILL
from haltline.policy.routes import route_problems
from haltline.policy.yaml_text import Document, parse_yaml

if TYPE_CHECKING:
    from haltline.policy.yaml_text import Path as KeyPath

__all__ = ["Merged", "read_folder"]

_MERGED = ("defaults", "tiers", "scopes", "tools", "rules")
"""Top-level keys whose entries may come from several files; any other stands in one file alone."""
_OPEN_ENDED = {"value", "schema"}
"""Keys under which an empty value is a value: JSON null."""
_MOST_FILES = 200
_MOST_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Merged:
    """All files as one, and where each entry is written."""

    content: PolicyFile
    documents: Mapping[tuple[str, str], Document]
    folder: str

    def where(self, *path: str | int) -> str:
        """`tiers.yaml:14`, the place of an entry or of one of its keys; empty for what no file says."""
        document = self.documents.get(_owner(path))
        if document is None:
            return ""
        return f"{Path(document.file).name}:{document.line(path)}"

    def problem(self, path: KeyPath, message: str) -> Problem:
        document = self.documents.get(_owner(path))
        if document is None:
            return Problem(self.folder, None, ".".join(map(str, path)), message)
        return document.problem(path, message)


def read_folder(folder: Path, channels: Collection[str] | None = None) -> Merged:
    """`channels`: the alert channels there are, where that is known. Every `*.yaml` of the folder, not of folders in it. Raises ConfigError with all problems."""
    problems: list[Problem] = []
    documents: list[Document] = []
    contents: list[PolicyFile] = []
    for path in _files(folder):
        try:
            documents.append(parse_yaml(_read(path), str(path)))
            contents.append(_validate(documents[-1]))
        except ConfigError as error:
            problems += error.problems
    owners, twice = _owners(documents)
    problems += twice
    if not problems:
        merged = Merged(_merge(contents), owners, str(folder))
        problems += [*_unknown_names(merged), *route_problems(merged, channels)]
        if not problems:
            return merged
    raise ConfigError(problems)


def _files(folder: Path) -> list[Path]:
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        message = (
            f"this policy folder cannot be read ({error.strerror}); name another, or write one with: haltline init"
        )
        raise ConfigError([Problem(str(folder), None, "", message)]) from error
    odd = [name for name in names if name.endswith((".yml", ".YAML", ".YML"))]
    if odd:
        message = "policy files end in .yaml, so this one would not be read; rename it"
        raise ConfigError([Problem(str(folder / name), None, "", message) for name in odd])
    found = [folder / name for name in names if name.endswith(".yaml")]
    if not found:
        message = "there is no policy file (*.yaml) in this folder; write the shipped ones with: haltline init"
        raise ConfigError([Problem(str(folder), None, "", message)])
    if len(found) > _MOST_FILES:
        raise ConfigError(
            [Problem(str(folder), None, "", f"more than {_MOST_FILES} policy files; is it the right folder?")]
        )
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ConfigError([Problem(str(path), None, "", f"longer than {_MOST_BYTES} bytes; split it")])
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(str(path), line, "", "not UTF-8 text; save it as UTF-8")]) from error


def _validate(document: Document) -> PolicyFile:
    content = {} if document.content is None else document.content
    if not isinstance(content, dict):
        raise ConfigError([document.problem((), "a policy file is a mapping, such as tiers: with its entries below")])
    # `tools:` with every entry commented out says nothing; anywhere else an empty value is a slip.
    content = {key: value for key, value in content.items() if value is not None or key not in (*_MERGED, "redact")}
    problems = [document.problem(path, "empty; write its value, or leave the line out") for path in _empty(content, ())]
    try:
        checked = PolicyFile.model_validate(content)
    except ValidationError as error:
        empty = {problem.key for problem in problems}
        problems += [one for one in problems_of(error, document, PolicyFile) if one.key not in empty]
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0))
    return checked


def _empty(value: Any, path: KeyPath) -> list[KeyPath]:
    found: list[KeyPath] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _OPEN_ENDED and len(path) >= 4:
                continue
            found += [(*path, key)] if inner is None else _empty(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += [(*path, index)] if inner is None else _empty(inner, (*path, index))
    return found


def _owner(path: KeyPath) -> tuple[str, str]:
    if len(path) > 1 and path[0] in _MERGED:
        return str(path[0]), str(path[1])
    return str(path[0]), ""


def _owners(documents: list[Document]) -> tuple[dict[tuple[str, str], Document], list[Problem]]:
    owners: dict[tuple[str, str], Document] = {}
    problems: list[Problem] = []
    for document in documents:
        content = document.content if isinstance(document.content, dict) else {}
        for key, value in content.items():
            if key == "version" or value is None:
                continue
            named = key in _MERGED and isinstance(value, dict)
            paths: list[KeyPath] = [(key, name) for name in value] if named else [(key,)]
            for path in paths:
                first = owners.setdefault(_owner(path), document)
                if first is not document:
                    place = f"{Path(first.file).name}:{first.line(path)}"
                    problems.append(document.problem(path, f"{path[-1]} is also given in {place}; keep one of the two"))
    return owners, problems


def _merge(files: list[PolicyFile]) -> PolicyFile:
    """One document of all: no entry stands twice, so the order of the files decides nothing."""
    content: dict[str, Any] = {}
    for file in files:
        for key in file.model_fields_set - {"version"}:
            value = getattr(file, key)
            if key == "defaults":
                value = content.get(key, PolicyFile().defaults).model_copy(
                    update={name: getattr(value, name) for name in value.model_fields_set}
                )
            elif key in _MERGED:
                value = {**content.get(key, {}), **value}
            content[key] = value
    return PolicyFile().model_copy(update=content)


def _unknown_names(merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    if DRILL in merged.content.tiers:
        problems.append(merged.problem(("tiers", DRILL), "this name is the built-in tier of drills; choose another"))
    for tier, entry in merged.content.tiers.items():
        for index, scope in enumerate(entry.scopes):
            if scope not in merged.content.scopes:
                near = get_close_matches(scope, merged.content.scopes, n=1)
                hint = f"did you mean {near[0]}?" if near else "write it under scopes:"
                problems.append(
                    merged.problem(("tiers", tier, "scopes", index), f"there is no scope {scope!r}; {hint}")
                )
    for rule, watched in merged.content.rules.items():
        for index, name in enumerate(watched.tiers or ()):
            if name not in merged.content.tiers:
                near = get_close_matches(name, merged.content.tiers, n=1)
                hint = f"did you mean {near[0]}?" if near else "so this rule watches nobody"
                problems.append(merged.problem(("rules", rule, "tiers", index), f"there is no tier {name!r}; {hint}"))
    return problems
