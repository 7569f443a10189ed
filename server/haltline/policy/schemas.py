"""JSON Schema checks of a call's arguments: a tool's own inputSchema, and the schemas of policy rules.

Nothing is ever fetched: a `$ref` that leaves the document makes the schema unusable. Messages name keys and what was
expected, never the value, which may be a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema_rs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["InputSchemas", "compile_schema"]

_MOST_REMEMBERED = 4096
_LONGEST = 300


def compile_schema(schema: Mapping[str, Any] | bool) -> Callable[[Mapping[str, Any]], str | None]:
    """A check that answers None, or what is wrong. Raises ValueError with a sentence for a schema that cannot be used.

    The dialect is the schema's own `$schema`, 2020-12 where it has none (MCP, tools). Backtracking of patterns is bounded.
    """
    plain = schema if isinstance(schema, bool) else dict(schema)
    try:
        validator = jsonschema_rs.validator_for(plain, retriever=_refuse, mask="value")
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(f"not a usable JSON Schema: {_unusable(error)}") from None

    def check(arguments: Mapping[str, Any]) -> str | None:
        instance = arguments if isinstance(arguments, dict) else dict(arguments)
        try:
            if validator.is_valid(instance):
                return None
            error = next(iter(validator.iter_errors(instance)))
        except (ValueError, OverflowError) as unfit:
            return f"the arguments cannot be checked: {_first_line(unfit)}"
        path = ".".join(map(str, error.instance_path))
        return _cut(f"{path}: {error.message}" if path else error.message)

    return check


class InputSchemas:
    """The tools' own schemas, each compiled at its first call and remembered as long as the catalog shows that object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], str | None]]] = {}

    def problem(self, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with the arguments, or with the schema itself: what cannot be checked is not let through (P6)."""
        known = self._known.get(id(schema))
        if known is None or known[0] is not schema:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = self._known[id(schema)] = (schema, _compile_input(schema))
        return known[1](arguments)


def _compile_input(schema: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str | None]:
    try:
        return compile_schema(schema)
    except ValueError as error:
        why = str(error).removeprefix("not a usable JSON Schema: ")
        said = f"the tool's inputSchema cannot be used, so no call of it can be checked ({why})"
        return lambda _: said


def _refuse(uri: str) -> None:
    raise ValueError(f"{uri} is not part of the schema, and nothing is fetched")


def _unusable(error: BaseException) -> str:
    path = ".".join(map(str, getattr(error, "instance_path", ())))
    said = _first_line(error).partition("retrieving it failed: ValueError: ")[2] or _first_line(error)
    return f"{path}: {said}" if path else said


def _first_line(error: BaseException) -> str:
    return _cut(str(error).partition("\n")[0])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
