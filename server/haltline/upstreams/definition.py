"""What of a tool's definition is pinned, in one form for all that mean the same, and its digest.

Pinned are the members that a model or a client acts on: name, title, description, both schemas and the annotations. Texts and
numbers count as they were sent. Order never counts among the keys of an object, nor among the values of `required`, `enum`,
`type` and `dependentRequired`, which JSON Schema reads as sets; in every other list it does. A member that is null is not one
that is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from haltline.stored_json import json_text

__all__ = ["PINNED", "canonical", "digest_of", "pinned_part"]

PINNED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
_SCHEMAS = frozenset({"inputSchema", "outputSchema"})
_SETS = frozenset({"required", "enum", "type"})
_LITERALS = frozenset({"default", "const", "examples", "example"})
"""Their content is data: what is called `required` in there is no keyword."""
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
"""Objects whose keys are names, not keywords."""


def pinned_part(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The pinned members that are there, equal for definitions that mean the same."""
    return {
        member: _schema(definition[member]) if member in _SCHEMAS else definition[member]
        for member in PINNED
        if member in definition
    }


def canonical(definition: Mapping[str, Any]) -> str:
    """The pinned members as JSON, keys sorted."""
    return json_text(pinned_part(definition))


def digest_of(definition: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of `canonical`."""
    return hashlib.sha256(canonical(definition).encode()).hexdigest()


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {key: _keyword(key, inside) for key, inside in value.items()}


def _keyword(key: str, value: Any) -> Any:
    if key in _LITERALS:
        return value
    if key in _SETS:
        return _as_set(value) if isinstance(value, list) else _schema(value)
    if key == "dependentRequired" and isinstance(value, Mapping):
        return {name: _as_set(one) if isinstance(one, list) else one for name, one in value.items()}
    if key in _BY_NAME and isinstance(value, Mapping):
        return {name: _as_set(one) if _all_texts(one) else _schema(one) for name, one in value.items()}
    return _schema(value)


def _as_set(values: list[Any]) -> list[Any]:
    return sorted(values, key=json_text)


def _all_texts(value: Any) -> bool:
    """As draft 7's `dependencies` lists the properties that another one needs."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
