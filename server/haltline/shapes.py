"""The client's result shapes as JSON Schema: one source for what the typed client reads and what a tool promises.

Reads `TypedDict`s alone, of the few forms that `haltline_client.results` uses; anything else is a mistake and raises.
"""

from __future__ import annotations

import types
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from haltline_client import alert_results, cap_results, results, resume_results, status_results

__all__ = ["ERROR", "answer_schema", "schema_of"]

ERROR = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
    "required": ["code", "message"],
}
"""`{"code", "message"}`, under the key `error` of an answer that failed."""

_NAMES = {**vars(alert_results), **vars(cap_results), **vars(resume_results), **vars(status_results), **vars(results)}
"""The modules name each other's types for type checkers only, so they are put together here."""
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    object: {},
    type(None): {"type": "null"},
}


def answer_schema(shape: Any) -> dict[str, Any]:
    """What `structuredContent` holds: the shape, or an error. Its root is a plain object, as clients want it."""
    whole = schema_of(shape)
    return {
        "type": "object",
        "properties": {**whole["properties"], "error": ERROR},
        "anyOf": [{"required": whole["required"]}, {"required": ["error"]}],
    }


def schema_of(shape: Any) -> dict[str, Any]:
    """Raises TypeError for a form that is not known. Unknown keys are allowed: a broker may be newer than its client."""
    if is_typeddict(shape):
        return _object(shape)
    if shape in _PLAIN:
        return dict(_PLAIN[shape])
    origin, inner = get_origin(shape), get_args(shape)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is list:
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    if origin in {Union, types.UnionType}:
        return {"anyOf": [schema_of(one) for one in inner]}
    raise TypeError(f"{shape!r} has no JSON Schema here")


def _object(shape: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, hint in get_type_hints(shape, localns=_NAMES, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        properties[name] = schema_of(get_args(hint)[0] if optional else hint)
        if not optional and shape.__total__:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}
