"""Whom or what a call reaches, as the tool's configuration names it: `args.recipient`, `host(args.url)`, `root(args.path)`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from haltline.policy.paths import find, parse_path

__all__ = ["argument_of", "check_destination", "destination_of", "missing_from"]

_WRITTEN = re.compile(r"(?:(host|root)\((.+)\)|(.+))", re.DOTALL)
_LONGEST = 200
_UNNAMED = "none named"
_OPEN = ("patternProperties", "additionalProperties", "$ref", "allOf", "anyOf", "oneOf", "if")
"""Where one of these stands, an argument may come from elsewhere."""


def check_destination(text: object) -> str:
    """Raises ValueError with a sentence."""
    if isinstance(text, str):
        destination_of(text)
        return text
    raise ValueError(f"{text!r:.80} is no destination; write the argument that names it, such as args.recipient")


def argument_of(text: str) -> str:
    """The argument that it is read from."""
    return str(parse_path(_parts(text)[1])[0])


def destination_of(text: str) -> Callable[[Mapping[str, Any]], str]:
    """From a call's arguments to a name; several are joined. Arguments that name nobody reach `none named`.

    So what is declared or known is no way round for a call that says it elsewhere, in another form, or behind many others.
    """
    form, written = _parts(text)
    path, shaped = parse_path(written), _FORMS[form]

    def read(arguments: Mapping[str, Any]) -> str:
        found = (shaped(str(one)) for one in find(arguments, path) if isinstance(one, (str, int)))
        names = ", ".join(dict.fromkeys(found))
        if len(names) <= _LONGEST:
            return names or _UNNAMED
        return f"{names[: _LONGEST - 20]}, … {sha256(names.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"

    return read


def missing_from(schema: Mapping[str, Any] | None, text: str) -> str | None:
    """What of the path a tool's inputSchema does not have; None where it has all of it, or does not say."""
    here: Any = schema
    done: list[str] = []
    for step in parse_path(_parts(text)[1]):
        if not isinstance(here, Mapping):
            return None
        if not isinstance(step, str):  # an entry of a list, or each
            here = here.get("items")
            continue
        done.append(step)
        known = here.get("properties")
        if not isinstance(known, Mapping) or any(here.get(key) not in (None, False) for key in _OPEN):
            return None
        if step not in known:
            return ".".join(done)
        here = known[step]
    return None


def _parts(text: str) -> tuple[str, str]:
    found = _WRITTEN.fullmatch(text)
    return ("", text) if found is None else (found[1] or "", found[2] or found[3])


def _plain(value: str) -> str:
    return _host(value) if "://" in value[:32] else value.strip()


def _host(value: str) -> str:
    try:
        return (urlsplit(value if "//" in value else f"//{value}").hostname or value).rstrip(".")
    except ValueError:
        return value


def _root(value: str) -> str:
    """The first folder of a path: `/srv/data/x` is below `/srv`."""
    first = next((part for part in value.split("/") if part), "")
    return f"/{first}" if value.startswith("/") else first


_FORMS: dict[str, Callable[[str], str]] = {"": _plain, "host": _host, "root": _root}
