"""What changed between two definitions of a tool, as lines for a person: member by member, descriptions line by line.

Hidden characters are written out, and where two texts look alike every character beyond ASCII is. Pure.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from haltline.pins.characters import shown
from haltline.pins.lookalikes import skeleton

__all__ = ["LINES_MAX", "diff"]

LINES_MAX = 400
_LINE_MAX_CHARS = 2_000
_CONTEXT = 2
_PAIRS_MAX = 250_000
_LONG_SHOWN = 100
_MISSING = object()


def diff(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """`description:` and below it `- …`, `+ …`; a change deep in a schema is named by its path. At most LINES_MAX lines."""
    lines: list[str] = []
    for path, old, new in _changes(before or {}, after, ""):
        lines += [f"{shown(path)}:", *_both(old, new)]
        if len(lines) > LINES_MAX:
            return [*lines[:LINES_MAX], "… more has changed than is shown here"]
    return lines


def _changes(before: Any, after: Any, path: str) -> list[tuple[str, Any, Any]]:
    """The smallest parts that differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: list[tuple[str, Any, Any]] = []
        for key in [*after, *(key for key in before if key not in after)]:
            here = f"{path}.{key}" if path else key
            found += _changes(before.get(key, _MISSING), after.get(key, _MISSING), here)
        return found
    return [] if _same(before, after) else [(path, before, after)]


def _same(before: Any, after: Any) -> bool:
    """`1` and `true` are equal to Python."""
    return bool(before == after) and json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)


def _both(old: Any, new: Any) -> list[str]:
    before, after = _lines(old), _lines(new)
    alike = [skeleton(line) for line in before] == [skeleton(line) for line in after]
    body = _compared(before, after)
    return [_clipped(f"  {line[:1]} {shown(line[1:], all_foreign=alike)}".rstrip()) for line in body]


def _compared(before: list[str], after: list[str]) -> list[str]:
    """As `difflib` does, in bounded time: of long texts only what follows the first difference, old and then new."""
    if len(before) * len(after) <= _PAIRS_MAX:
        found = [*difflib.unified_diff(before, after, n=_CONTEXT, lineterm="")][2:]
        return [line for line in found if line[:1] != "@"]
    same = next((at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), 0)
    sides = (("-", before[same : same + _LONG_SHOWN]), ("+", after[same : same + _LONG_SHOWN]))
    return [f"{mark}{line}" for mark, lines in sides for line in lines]


def _lines(value: Any) -> list[str]:
    if value is _MISSING:
        return []
    if isinstance(value, str):
        return value.split("\n")
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).split("\n")


def _clipped(line: str) -> str:
    return line if len(line) <= _LINE_MAX_CHARS else f"{line[:_LINE_MAX_CHARS]}… ({len(line)} characters)"
