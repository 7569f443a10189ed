"""Caps as they are asked for, as they are stored, and how several levels fold into the strictest.

Owns both written forms. Knows nothing of usage: what a call does to a cap is decided in `budget`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from haltline.policy.model import CapKind, Caps, Rate
from haltline.policy.money import parse_amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CapLimit", "caps_from_json", "caps_to_json", "effective", "parse_caps", "parse_count", "parse_rate"]

_MONEY: dict[str, str] = {
    "per_call": "per_call_micros",
    "task": "task_micros",
    "hour": "hour_micros",
    "day": "day_micros",
}
_COUNTS = ("calls", "concurrent")
_KEYS = (*_MONEY, *_COUNTS, "rate")
_FIELDS = {field.name for field in fields(Caps)}
_RATE = re.compile(r"([0-9]{1,9})/(second|minute|hour|day|[0-9]{1,5}s)")
_WINDOWS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_MOST = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CapLimit:
    """One cap in force: money in micro-units, or a count; `where` says which level or line set it."""

    kind: CapKind
    limit: int
    where: str
    window_s: int | None = None
    """For a rate: the rolling window."""


def parse_caps(asked: Mapping[str, Any]) -> Caps:
    """The client's form, `{"task": "0.50", "calls": 20, "rate": "5/minute"}`. Raises ValueError naming the key."""
    values: dict[str, Any] = {}
    for key, value in asked.items():
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the caps are {', '.join(_KEYS)}"
            raise ValueError(f"{key}: there is no such cap; {hint}")
        if value is None:
            continue
        try:
            values[_MONEY.get(key, key)] = _parse_one(key, value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return Caps(**values)


def parse_count(value: object) -> int:
    """A whole number of calls. Raises ValueError with a sentence."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a whole number is wanted, such as 20, not {value!r}")  # noqa: TRY004 - as every fault of a written value
    if not 1 <= value <= _MOST:
        raise ValueError(f"{value} is out of range; from 1 to {_MOST}")
    return value


def parse_rate(text: object) -> Rate:
    """`5/minute`: per second, minute, hour, day or a number of seconds (`5/90s`). Raises ValueError with a sentence."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is not a rate; write it as 5/second, 5/minute, 5/hour, 5/day or 5/90s")
    count, window_s = int(found[1]), _WINDOWS_S.get(found[2]) or int(found[2].removesuffix("s"))
    if count < 1:
        raise ValueError("a rate of 0 would refuse every call; leave the tools out instead")
    if not 1 <= window_s <= _WINDOWS_S["day"]:
        raise ValueError(f"a rate's window is from 1 second to a day, not {window_s} seconds")
    return Rate(count, window_s)


def caps_to_json(caps: Caps) -> dict[str, Any]:
    """The stored form: only what is set, money in micro-units, a rate as `[count, window_s]`."""
    stored = {name: getattr(caps, name) for name in sorted(_FIELDS) if getattr(caps, name) is not None}
    if caps.rate is not None:
        stored["rate"] = [caps.rate.count, caps.rate.window_s]
    return stored


def caps_from_json(stored: Mapping[str, Any]) -> Caps:
    """Raises ValueError for what `caps_to_json` never wrote, so that a cap cannot get lost on the way."""
    unknown = set(stored) - _FIELDS
    if unknown:
        raise ValueError(f"stored caps have unknown keys: {', '.join(sorted(unknown))}")
    values = dict(stored)
    if "rate" in values:
        values["rate"] = Rate(*values["rate"])
    return Caps(**values)


def effective(levels: Iterable[tuple[Caps, str | Mapping[str, str]]]) -> tuple[CapLimit, ...]:
    """The strictest limit of each kind over all levels; rates are kept apart by window, for each binds by itself.

    A level is its caps and where they are written: one place, or a place per key. Where two are equally strict the
    first level is named.
    """
    strictest: dict[tuple[CapKind, int | None], CapLimit] = {}
    for caps, where in levels:
        for kind, limit, window_s in _limits(caps):
            place = where if isinstance(where, str) else where.get(kind, "")
            known = strictest.get((kind, window_s))
            if known is None or limit < known.limit:
                strictest[kind, window_s] = CapLimit(kind, limit, place, window_s)
    order = list(CapKind)
    return tuple(sorted(strictest.values(), key=lambda cap: (order.index(cap.kind), cap.window_s or 0)))


def _limits(caps: Caps) -> Iterable[tuple[CapKind, int, int | None]]:
    for key in (*_MONEY, *_COUNTS):
        limit = getattr(caps, _MONEY.get(key, key))
        if limit is not None:
            yield CapKind(key), limit, None
    if caps.rate is not None:
        yield CapKind.RATE, caps.rate.count, caps.rate.window_s


def _parse_one(key: str, value: object) -> int | Rate:
    if key in _MONEY:
        return parse_amount(value)
    return parse_rate(value) if key == "rate" else parse_count(value)
