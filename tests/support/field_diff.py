"""Two values of JSON compared field by field: where they differ, by path. 1, 1.0 and true are three values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Difference", "differences"]

SHOWN = 120


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """`path` such as `tools[name=echo].title`."""

    path: str
    direct: Any
    brokered: Any

    def __str__(self) -> str:
        return f"{self.path}: {repr(self.direct)[:SHOWN]} → {repr(self.brokered)[:SHOWN]}"


def differences(direct: Any, brokered: Any, path: str = "") -> Iterator[Difference]:
    if type(direct) is not type(brokered):
        yield Difference(path, direct, brokered)
    elif isinstance(direct, dict):
        for key in [*direct, *(key for key in brokered if key not in direct)]:
            here = f"{path}.{key}" if path else key
            yield from differences(direct.get(key, ABSENT), brokered.get(key, ABSENT), here)
    elif isinstance(direct, list):
        if len(direct) != len(brokered):
            yield Difference(f"{path}.length", len(direct), len(brokered))
        for number, (one, other) in enumerate(zip(direct, brokered, strict=False)):
            yield from differences(one, other, f"{path}[{number}]")
    elif direct != brokered:
        yield Difference(path, direct, brokered)
