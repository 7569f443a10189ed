"""What pydantic found wrong with a document, as problems with a file, a line, a key and what to do.

An unknown key is answered with the key that was probably meant. Never quotes a value: it may be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from haltline.errors import Problem
    from haltline.policy.yaml_text import Document, Path

__all__ = ["did_you_mean", "problems_of"]

_WORDED = {
    "missing": "missing; it is required",
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_too_short": "must not be empty",
}


def problems_of(error: ValidationError, document: Document, model: type[BaseModel], under: Path = ()) -> list[Problem]:
    """Every complaint about what stands at path `under` of the document, in the order of the lines."""
    found = []
    for detail in error.errors(include_url=False, include_input=False):
        loc = tuple(detail["loc"])
        written = _written(document, under, loc)
        if detail["type"] == "missing":
            written = (*written, loc[-1])
        found.append(document.problem((*under, *written), _sentence(detail, model, loc)))
    return sorted(found, key=lambda problem: problem.line or 0)


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """`; did you mean 'price'?`, or the known keys when none is near."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(sorted(known))}"


def _sentence(detail: ErrorDetails, model: type[BaseModel], loc: Path) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return "unknown key" + did_you_mean(str(loc[-1]), _keys(model, loc[:-1]))
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        about = detail["ctx"]
        known = [one.strip("' ") for one in about.get("expected_tags", "").split(",") if one]
        near = did_you_mean(str(about.get("tag", "")), known) if known else ""
        return f"{about['discriminator']} must name a known one{near}"
    said = detail["msg"]
    return _WORDED.get(kind, re.sub(r"^(Input|String|List|Dictionary) should ", "must ", said))


def _written(document: Document, under: Path, loc: Path) -> Path:
    """The part of pydantic's path that is in the file: it also names the arms of unions and functions."""
    path: Path = ()
    for step in loc:
        if (*under, *path, step) in document.lines:
            path = (*path, step)
    return path


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that the model, or the one inside it at the path, knows."""
    here: Any = model
    for step in path:
        for inner in _models(here):
            field = next((f for name, f in inner.model_fields.items() if step in {name, f.alias}), None)
            if field is not None:
                here = field.annotation
                break
    return sorted({f.alias or name for inner in _models(here) for name, f in inner.model_fields.items()})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)
