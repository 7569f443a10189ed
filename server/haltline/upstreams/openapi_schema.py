"""The schemas of one operation as one self-contained JSON Schema (2020-12): what they refer to moves into `$defs`.

Translates what OpenAPI 3.0 writes differently (`nullable`, boolean `exclusiveMinimum`, `example`) and takes over known
keywords only; documents that say 3.1 and write 3.0 are common, so both are read alike. Bounded in size and depth;
recursive schemas stay recursive.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from haltline.upstreams.openapi_document import MAX_CHAIN, Documents, Unfit

__all__ = ["Schemas", "without_patterns"]

MAX_PARTS = 20_000
MAX_NESTED = 48
MAX_TEXT = 2_000
MAX_EXAMPLE = 200

_ONE = frozenset(
    {"not", "if", "then", "else", "contains", "propertyNames", "items", "additionalProperties"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas"})
_AS_IS = frozenset(
    {"const", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"}
    | {"maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties"}
    | {"maxProperties", "dependentRequired", "format", "contentEncoding", "contentMediaType", "deprecated", "readOnly"}
    | {"writeOnly"}
)
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")


class Schemas:
    """For one operation. `translated` may be asked for several schemas; `definitions` belongs beside them all."""

    def __init__(self, documents: Documents, version: str) -> None:
        self.definitions: dict[str, Any] = {}
        self._documents = documents
        self._old = version == "3.0"
        self._left = MAX_PARTS
        self._names: dict[tuple[str, str], str] = {}
        self._waiting: deque[tuple[str, Any, str]] = deque()
        self._inside: tuple[str, Any] = ("", None)
        """The definition that is being translated: what a dynamic reference in it means."""

    def translated(self, schema: Any, at: str) -> Any:
        """One schema that stands in the document `at`. Raises Unfit."""
        found = self._schema(schema, at, 0)
        while self._waiting:
            name, raw, where = self._waiting.popleft()
            self._inside = (name, raw)
            self.definitions[name] = self._schema(raw, where, 0)
        self._inside = ("", None)
        return found

    def plain_type(self, schema: Any, at: str) -> str | None:
        """The one type that a schema names, through its references."""
        for _ in range(MAX_CHAIN):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            at, _, schema = self._documents.locate(schema["$ref"], at)
        said = schema.get("type") if isinstance(schema, dict) else None
        return said if isinstance(said, str) else None

    def _schema(self, schema: Any, at: str, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Unfit(f"its schemas have more than {MAX_PARTS} parts")
        if depth > MAX_NESTED:
            raise Unfit("its schemas are nested too deeply")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            return {}
        ref = schema.get("$ref")
        if isinstance(ref, str):
            referred = {"$ref": f"#/$defs/{self._definition(ref, at)}"}
            return referred if self._old else {**self._keywords(schema, at, depth), **referred}
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            return self._dynamic(schema)
        found = self._keywords(schema, at, depth)
        return _nullable(found) if schema.get("nullable") is True else found

    def _dynamic(self, schema: dict[str, Any]) -> dict[str, str]:
        """A schema that refers to the one around it, as recursive ones of 2019-09 and 2020-12 do."""
        name, raw = self._inside
        if isinstance(raw, dict):
            anchored = schema.get("$dynamicRef") == f"#{raw.get('$dynamicAnchor')}"
            if anchored or (raw.get("$recursiveAnchor") is True and schema.get("$recursiveRef") == "#"):
                return {"$ref": f"#/$defs/{name}"}
        raise Unfit("its schemas use a $dynamicRef to elsewhere")

    def _definition(self, ref: str, at: str) -> str:
        document, pointer, value = self._documents.locate(ref, at)
        key = (document, pointer)
        if key not in self._names:
            wanted = _OTHER.sub("_", pointer.rpartition("/")[2])[:60] or "schema"
            taken = set(self._names.values())
            name, number = wanted, 2
            while name in taken:
                name, number = f"{wanted}_{number}", number + 1
            self._names[key] = name
            self._waiting.append((name, value, document))
        return self._names[key]

    def _keywords(self, schema: dict[str, Any], at: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in schema.items():
            if key in _ONE:
                if key != "items" or not isinstance(value, list):  # a list there is of an older draft
                    found[key] = self._schema(value, at, depth + 1)
            elif key in _MANY and isinstance(value, list) and value:
                found[key] = [self._schema(one, at, depth + 1) for one in value]
            elif key in _NAMED and isinstance(value, dict):
                found[key] = {name: self._schema(one, at, depth + 1) for name, one in value.items()}
            elif key in _AS_IS:
                found[key] = value
            elif key in {"title", "description"} and isinstance(value, str):
                found[key] = value[:MAX_TEXT]
        _say_type(schema, found)
        _say_required(schema, found)
        _say_examples(schema, found)
        _new_bounds(found)
        return found


def without_patterns(schema: Any) -> Any:
    """The same schema without the regular expressions in it, which may be of a dialect that nobody here reads."""
    if isinstance(schema, list):
        return [without_patterns(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: without_patterns(one) for name, one in value.items()}
        if key in _NAMED | {"$defs"} and isinstance(value, dict)
        else without_patterns(value)
        if key in _ONE | _MANY
        else value
        for key, value in schema.items()
        if key not in {"pattern", "patternProperties"}
    }


def _say_type(schema: dict[str, Any], found: dict[str, Any]) -> None:
    said = schema.get("type")
    types = [one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str) and one in _TYPES]
    if types:
        found["type"] = list(dict.fromkeys(types)) if isinstance(said, list) else types[0]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        found["enum"] = choices


def _say_required(schema: dict[str, Any], found: dict[str, Any]) -> None:
    """What the server alone writes need not be sent."""
    needed, properties = schema.get("required"), schema.get("properties")
    if not isinstance(needed, list):
        return
    known = properties if isinstance(properties, dict) else {}
    names = [one for one in needed if isinstance(one, str)]
    kept = [one for one in names if not (isinstance(known.get(one), dict) and known[one].get("readOnly") is True)]
    if kept:
        found["required"] = list(dict.fromkeys(kept))


def _say_examples(schema: dict[str, Any], found: dict[str, Any]) -> None:
    given = schema.get("examples")
    examples = given if isinstance(given, list) else [schema["example"]] if "example" in schema else []
    short = [one for one in examples[:3] if len(str(one)) <= MAX_EXAMPLE]
    if short:
        found["examples"] = short


def _new_bounds(found: dict[str, Any]) -> None:
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(flag), bool) and found.pop(flag) and bound in found:
            found[flag] = found.pop(bound)


def _nullable(found: dict[str, Any]) -> dict[str, Any]:
    kinds = found.get("type")
    if not isinstance(kinds, str):
        return {"anyOf": [found, {"type": "null"}]} if found else found
    nulled = {**found, "type": [kinds, "null"]}
    if "enum" in found and None not in found["enum"]:
        nulled["enum"] = [*found["enum"], None]
    return nulled
