"""What a rule may ask of one argument (`op` and `value`), compiled to a question and a sentence.

Fails closed: a value of another type than the rule speaks of never satisfies it, also not `ne` and `not_in`. Numbers are
compared as decimals, lexically; patterns run in linear time.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args

import jsonschema_rs

from haltline.policy.paths import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WITHOUT_VALUE", "Op", "Question", "compile_op"]

Op = Literal[
    "eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "matches", "starts_with", "under", "absent", "present"
]  # fmt: skip
WITHOUT_VALUE: frozenset[str] = frozenset({"absent", "present"})
_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_LONGEST_PATTERN = 512
_LONGEST_TEXT = 65_536
_WIDEST_BITS = 256


@dataclass(frozen=True, slots=True)
class Question:
    """`holds(value)`, where a missing argument is MISSING, and how the demand reads: `must be at most 25.00`."""

    holds: Callable[[Any], bool]
    demand: str


def compile_op(op: Op, value: Any) -> Question:
    """Raises ValueError with a sentence for a value that does not fit the operator."""
    assert op in get_args(Op)
    if op in _ORDERED:
        return _ordered(op, value)
    if op in {"in", "not_in"}:
        return _among(value, wanted=op == "in")
    if op in {"eq", "ne"}:
        shown = _shown(value)
        if op == "eq":
            return Question(lambda given: _same(given, value), f"must be {shown}")
        return Question(lambda given: _kind(given) == _kind(value) and not _same(given, value), f"must not be {shown}")
    return _TEXT[op](value)


def _absent(_: object) -> Question:
    return Question(lambda given: given is MISSING, "must be left out")


def _present(_: object) -> Question:
    return Question(lambda given: given is not MISSING and given is not None, "must be given")


_ORDERED: dict[str, tuple[Callable[[Decimal, Decimal], bool], str]] = {
    "lt": (Decimal.__lt__, "less than"),
    "le": (Decimal.__le__, "at most"),
    "gt": (Decimal.__gt__, "more than"),
    "ge": (Decimal.__ge__, "at least"),
}


def _ordered(op: str, value: Any) -> Question:
    bound = _decimal(value)
    if bound is None:
        raise ValueError(f'{op} compares numbers; write value as a number in quotes, such as "25.00"')
    compare, words = _ORDERED[op]

    def holds(given: Any) -> bool:
        number = _decimal(given)
        return number is not None and compare(number, bound)

    return Question(holds, f"must be {words} {value}")


def _among(value: Any, *, wanted: bool) -> Question:
    op = "in" if wanted else "not_in"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{op} needs a list of values that is not empty, such as [USD, EUR]")
    listed = ", ".join(map(_shown, value[:10])) + (", …" if len(value) > 10 else "")
    kinds = {_kind(one) for one in value}
    plain = {kind: frozenset(one for one in value if _kind(one) == kind) for kind in kinds - _NESTED}
    nested = [one for one in value if _kind(one) in _NESTED]

    def among(given: Any, kind: str) -> bool:
        return any(_same(given, one) for one in nested) if kind in _NESTED else given in plain[kind]

    if wanted:

        def holds(given: Any) -> bool:
            kind = _kind(given)
            return kind in kinds and among(given, kind)

        return Question(holds, f"must be one of {listed}")

    def differs(given: Any) -> bool:
        kind = _kind(given)
        return kind in kinds and not among(given, kind)

    return Question(differs, f"must not be any of {listed}")


def _matches(value: Any) -> Question:
    pattern = _text("matches", value)
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"a pattern has at most {_LONGEST_PATTERN} characters, this one has {len(pattern)}")
    _linear(pattern)  # by itself first, so that a stray parenthesis cannot open the anchors below
    check = _linear(rf"\A(?:{pattern})\z")
    return Question(
        lambda given: isinstance(given, str) and len(given) <= _LONGEST_TEXT and check(given),
        f"must match {pattern} from start to end",
    )


def _linear(pattern: str) -> Callable[[str], bool]:
    try:
        validator = jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, jsonschema_rs.ValidationError):
        raise ValueError(
            f"{pattern[:80]!r} is not a pattern that can be used; look-around, back-references and very large repeats "
            "are not allowed, since matching must take linear time"
        ) from None

    def holds(text: str) -> bool:
        try:
            return bool(validator.is_valid(text))
        except ValueError:
            return False

    return holds


def _starts_with(value: Any) -> Question:
    prefix = _text("starts_with", value)
    return Question(lambda given: isinstance(given, str) and given.startswith(prefix), f"must start with {prefix!r}")


def _under(value: Any) -> Question:
    folder = _normal(_text("under", value))
    if folder is None or folder == ".":
        raise ValueError(f"under needs a folder such as /srv/data, without .. that leaves it, not {value!r}")
    inside = folder if folder == "/" else f"{folder}/"

    def holds(given: Any) -> bool:
        path = _normal(given) if isinstance(given, str) else None
        return path is not None and (path == folder or path.startswith(inside))

    return Question(holds, f"must be a path under {folder}")


def _normal(path: str) -> str | None:
    """The path without `.`, `..` and doubled slashes; None for one that cannot be judged by its text."""
    if not path or path.startswith("~") or "\\" in path or len(path) > _LONGEST_TEXT or not path.isprintable():
        return None
    normal = posixpath.normpath(path)
    if normal.startswith("//"):
        normal = normal[1:]
    return None if normal == ".." or normal.startswith("../") else normal


_TEXT: dict[str, Callable[[Any], Question]] = {
    "matches": _matches,
    "starts_with": _starts_with,
    "under": _under,
    "absent": _absent,
    "present": _present,
}


def _text(op: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{op} needs a text as its value; put it in quotes")
    return value


def _decimal(value: Any) -> Decimal | None:
    """A JSON number or a decimal in text, exactly; None for anything else."""
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return Decimal(value) if value.bit_length() <= _WIDEST_BITS else None
    number = Decimal(repr(value))
    return number if number.is_finite() else None


_KINDS = {str: "str", bool: "boolean", int: "number", float: "number", list: "list", dict: "dict"}
_NESTED = frozenset({"list", "dict"})


def _kind(value: Any) -> str:
    known = _KINDS.get(type(value))
    if known is not None:
        return known
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, and 1 is 1.0."""
    if _kind(one) != _kind(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _shown(value: Any) -> str:
    return (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
