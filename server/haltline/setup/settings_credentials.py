"""`credentials:` of an upstream: who is given which headers, or which environment, by reference alone.

    credentials:
      agents: {billing: {headers: {Authorization: "Bearer ${BILLING_TOKEN}"}}}
      tiers: {production: {headers_file: secrets/production.headers}}
      default: {headers: {Authorization: "Bearer ${SHARED_TOKEN}"}}
      listing: {headers: {Authorization: "Bearer ${READER_TOKEN}"}}

A value that holds no reference is refused: a secret has no place in haltline.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from haltline.setup.references import env_lines, header_lines, refers
from haltline.upstreams.credentials import Credential, Credentials

__all__ = ["CredentialsEntry", "credentials"]

Report = Callable[[tuple[str, ...], str], None]
"""Takes the path of a key below the upstream's entry, and what is wrong with it."""
MOST = 200
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class CredentialEntry(BaseModel):
    model_config = _STRICT

    headers: dict[str, str] = Field(default_factory=dict)
    headers_file: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    env_file: str | None = None

    @model_validator(mode="after")
    def _something(self) -> CredentialEntry:
        if not (self.headers or self.headers_file or self.env or self.env_file):
            raise ValueError("needs headers or headers_file (for a url), or env or env_file (for a command)")
        return self


class CredentialsEntry(BaseModel):
    """Handles of agents and names of tiers are free; one that nobody has is used by nobody."""

    model_config = _STRICT

    agents: dict[str, CredentialEntry] = Field(default_factory=dict, max_length=MOST)
    tiers: dict[str, CredentialEntry] = Field(default_factory=dict, max_length=MOST)
    default: CredentialEntry | None = None
    listing: CredentialEntry | None = None

    @model_validator(mode="after")
    def _somebody(self) -> CredentialsEntry:
        if not (self.agents or self.tiers or self.default):
            raise ValueError("gives nobody a credential: name agents, tiers or a default, or leave it out")
        return self


def credentials(entry: CredentialsEntry, written: Any, *, program: bool, folder: Path, report: Report) -> Credentials:
    """`written`: the same block as it stands in the file, before references were filled in. Reads the files it names."""
    found: dict[str, Credential] = {}
    for name, path, one in _each(entry):
        key = ("credentials", *path)
        _check(one, _at(written, path), key, program=program, report=report)
        read = _Reading(folder, key, report)
        found[name] = Credential(
            name,
            headers=read.file(one.headers_file, "headers_file", header_lines) | one.headers,
            env=read.file(one.env_file, "env_file", env_lines) | one.env,
        )
    return Credentials(
        agents={name: found[f"agent {name}"] for name in entry.agents},
        tiers={name: found[f"tier {name}"] for name in entry.tiers},
        default=found.get("default"),
        listing=found.get("listing"),
    )


def _each(entry: CredentialsEntry) -> Iterator[tuple[str, tuple[str, ...], CredentialEntry]]:
    for handle, one in entry.agents.items():
        yield f"agent {handle}", ("agents", handle), one
    for tier, one in entry.tiers.items():
        yield f"tier {tier}", ("tiers", tier), one
    for name, single in (("default", entry.default), ("listing", entry.listing)):
        if single is not None:
            yield name, (name,), single


def _check(one: CredentialEntry, written: Any, key: tuple[str, ...], *, program: bool, report: Report) -> None:
    if program and (one.headers or one.headers_file):
        report(key, "a program gets its credential through env or env_file; headers go with url")
    if not program and (one.env or one.env_file):
        report(key, "a server gets its credential through headers or headers_file; env goes with command")
    for block in ("headers", "env"):
        for name, text in _mapping(_at(written, (block,))).items():
            if isinstance(text, str) and not refers(text):
                report((*key, block, name), f"must refer to where the secret is: ${{NAME}}, or use {block}_file")
        if any(character in text for pair in getattr(one, block).items() for text in pair for character in "\r\n\0"):
            report((*key, block), "holds a line break; take it out")


class _Reading:
    def __init__(self, folder: Path, key: tuple[str, ...], report: Report) -> None:
        self._folder = folder
        self._key = key
        self._report = report

    def file(self, written: str | None, key: str, read: Callable[[Path], dict[str, str]]) -> dict[str, str]:
        if written is None:
            return {}
        try:
            return read(self._folder / Path(written).expanduser())
        except ValueError as error:
            self._report((*self._key, key), str(error))
            return {}


def _at(written: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        written = _mapping(written).get(key)
    return written


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
