"""`upstreams:` of haltline.yaml, which may hold a pasted `mcpServers` object, as `UpstreamSpec`s.

Owns how names are written here (`[a-z0-9-]`, a pasted name is mapped) and what of other hosts' keys is honoured. Starts
and calls nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from haltline.errors import Problem
from haltline.policy.complaints import problems_of
from haltline.policy.yaml_text import Document
from haltline.setup.addresses import web_address
from haltline.setup.references import env_lines, header_lines
from haltline.setup.settings_credentials import credentials
from haltline.setup.settings_file import HOST_KEYS, SYNONYMS, UpstreamEntry
from haltline.upstreams.model import OpenApiSource, UpstreamSpec

__all__ = ["unpasted", "upstream_name", "upstream_specs"]

_PASTED = "mcpServers"
_NAME_MAX = 32
_LINE_BREAK = re.compile(r"[\r\n\0]")


def upstream_name(written: str) -> str:
    """`Brave Search` as `brave-search`: lower case, every run of other characters one `-`."""
    return re.sub(r"[^a-z0-9]+", "-", written.lower()).strip("-")


def unpasted(document: Document) -> Document:
    """The same document with `mcpServers` taken out from between, host-specific keys dropped, synonyms renamed."""
    content = document.content
    upstreams = content.get("upstreams") if isinstance(content, dict) else None
    if not isinstance(upstreams, dict):
        return document
    pasted = set(upstreams) == {_PASTED} and isinstance(upstreams[_PASTED], dict)
    entries = {name: _plain(entry) for name, entry in (upstreams[_PASTED] if pasted else upstreams).items()}
    skipped = 2 if pasted else 1
    lines = dict(document.lines)
    for path, line in document.lines.items():
        if path[0:1] == ("upstreams",) and len(path) > skipped:
            name, *rest = path[skipped:]
            lines["upstreams", name, *(SYNONYMS.get(str(key), key) for key in rest[:1]), *rest[1:]] = line
    return Document(document.file, {**content, "upstreams": entries}, lines)


def upstream_specs(
    entries: Mapping[str, Any], document: Document, folder: Path, problems: list[Problem]
) -> tuple[UpstreamSpec, ...]:
    """The specs in the order written; what is wrong is added to `problems`."""
    specs: dict[str, UpstreamSpec] = {}
    for written, entry in entries.items():
        here = ("upstreams", written)
        name = upstream_name(written)
        wrong = _wrong_name(written, name, specs)
        if wrong:
            problems.append(document.problem(here, wrong))
        try:
            parsed = UpstreamEntry.model_validate(entry)
        except ValidationError as error:
            problems += problems_of(error, document, UpstreamEntry, here)
            continue
        spec = _spec(name, parsed, folder, partial(_add, problems, document, here))
        if parsed.credentials is not None and not parsed.disabled:
            block = document.content["upstreams"][written].get("credentials")
            program = parsed.command is not None
            report = partial(_add_at, problems, document, here)
            given = credentials(parsed.credentials, block, program=program, folder=folder, report=report)
            spec = replace(spec, credentials=given)
        specs[name] = spec
    return tuple(specs.values())


def _add(problems: list[Problem], document: Document, here: tuple[str | int, ...], key: str, message: str) -> None:
    problems.append(document.problem((*here, key), message))


def _add_at(
    problems: list[Problem], document: Document, here: tuple[str | int, ...], path: tuple[str, ...], message: str
) -> None:
    problems.append(document.problem((*here, *path), message))


def _plain(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    kept = {key: value for key, value in entry.items() if key not in HOST_KEYS}
    return {(SYNONYMS[key] if SYNONYMS.get(key, key) not in kept else key): value for key, value in kept.items()}


def _wrong_name(written: str, name: str, taken: Mapping[str, UpstreamSpec]) -> str | None:
    if not name or len(name) > _NAME_MAX:
        return f"an upstream's name needs 1 to {_NAME_MAX} letters, digits or -; rename it"
    if name in taken:
        said = "" if written == name else f" ({written!r} is written {name!r} here)"
        return f"a second upstream named {name!r}{said}; rename one"
    return None


def _spec(name: str, entry: UpstreamEntry, folder: Path, report: Callable[[str, str], None]) -> UpstreamSpec:
    env, headers = dict(entry.env), dict(entry.headers)
    if not entry.disabled:
        env = _from_file(entry.env_file, "env_file", env_lines, folder, report) | env
        headers = _from_file(entry.headers_file, "headers_file", header_lines, folder, report) | headers
        wrong = None if entry.url is None else web_address(entry.url)
        if wrong:
            report("url", wrong)
        if any(_LINE_BREAK.search(text) for pair in headers.items() for text in pair):
            report("headers", "a header holds a line break; take it out")
    return UpstreamSpec(
        name=name,
        command=entry.command,
        args=tuple(entry.args),
        env=env,
        cwd=str(folder / Path(entry.cwd).expanduser()) if entry.cwd else None,
        url=entry.url,
        headers=headers,
        python=_file_or_module(entry.python, folder),
        entry_point=entry.entry_point,
        openapi=_openapi(entry, folder, report),
        prefix=entry.prefix,
        isolation=entry.isolation,
        timeout_s=entry.timeout_s,
        connect_timeout_s=entry.connect_timeout_s,
        max_result_bytes=entry.max_result_bytes,
        max_concurrent=entry.max_concurrent,
        price=entry.price,
        read_only=entry.read_only,
        disabled=entry.disabled,
    )


def _openapi(entry: UpstreamEntry, folder: Path, report: Callable[[str, str], None]) -> OpenApiSource | None:
    if entry.openapi is None:
        return None
    remote = "://" in entry.openapi
    for key, url in (("openapi", entry.openapi if remote else None), ("base_url", entry.base_url)):
        wrong = None if url is None or entry.disabled else web_address(url)
        if wrong:
            report(key, wrong)
    return OpenApiSource(
        document=entry.openapi if remote else str(folder / Path(entry.openapi).expanduser()),
        base_url=entry.base_url,
        query=entry.query,
        include=tuple(entry.operations.include),
        exclude=tuple(entry.operations.exclude),
        allow_private=entry.allow_private,
        remote_refs=entry.remote_refs,
    )


def _file_or_module(written: str | None, folder: Path) -> str | None:
    return str(folder / Path(written).expanduser()) if written and written.endswith(".py") else written


def _from_file(
    written: str | None,
    key: str,
    read: Callable[[Path], dict[str, str]],
    folder: Path,
    report: Callable[[str, str], None],
) -> dict[str, str]:
    if written is None:
        return {}
    try:
        return read(folder / Path(written).expanduser())
    except ValueError as error:
        report(key, str(error))
        return {}
