"""`${VAR}` in settings, and settings that name a file which holds the secret. Knows no key of any file.

`${VAR}` and `${env:VAR}` (as some hosts write it) must be set, `${VAR:-text}` falls back to the text, `$${` is a literal
`${`. Nothing here ever quotes a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Report", "env_lines", "expanded", "header_lines", "refers", "secret_text"]

Report = Callable[[tuple[str | int, ...], str], None]
"""Takes the path of a key and what is wrong with it."""

_REFERENCE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<inside>[^}]*)\}")
_INSIDE = re.compile(r"(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_BYTES = 65_536


def expanded(value: Any, environ: Mapping[str, str], report: Report, path: tuple[str | int, ...] = ()) -> Any:
    """The same value with every reference in its texts replaced; what cannot be is reported and left."""
    if isinstance(value, dict):
        return {key: expanded(item, environ, report, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, environ, report, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "${"
        inside = _INSIDE.fullmatch(found["inside"])
        if inside is None:
            report(path, f"{found[0]} cannot be filled in here; use ${{NAME}} and set NAME in the broker's environment")
            return found[0]
        text = environ.get(inside["name"])
        if inside["default"] is not None:
            return text or str(inside["default"]).removeprefix(":-")
        if text is None:
            report(path, f"the environment variable {inside['name']} is not set")
            return found[0]
        return text

    return _REFERENCE.sub(replace, value)


def refers(text: str) -> bool:
    """Whether a text, as it stands in the file, takes something from the environment."""
    return any(found["escaped"] is None for found in _REFERENCE.finditer(text))


def secret_text(file: Path) -> str:
    """The content of a secret's file without its last line end. Raises ValueError with a sentence."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text") from error
    if len(text) > _MAX_BYTES:
        raise ValueError(f"{file} is longer than {_MAX_BYTES} bytes")
    text = text.rstrip("\r\n")
    if not text:
        raise ValueError(f"{file} is empty")
    return text


def header_lines(file: Path) -> dict[str, str]:
    """`Name: value` on each line; `#` begins a comment line. Raises ValueError with a sentence."""
    return _pairs(file, ":", _HEADER_NAME, "Name: value")


def env_lines(file: Path) -> dict[str, str]:
    """`NAME=value` on each line; `#` begins a comment line. Raises ValueError with a sentence."""
    return _pairs(file, "=", _ENV_NAME, "NAME=value")


def _pairs(file: Path, separator: str, name: re.Pattern[str], shape: str) -> dict[str, str]:
    pairs = {}
    for number, line in enumerate(secret_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, found, value = line.partition(separator)
        if not found or not name.fullmatch(key.strip()):
            raise ValueError(f"{file}:{number}: not of the form {shape}")
        pairs[key.strip()] = value.strip()
    return pairs
