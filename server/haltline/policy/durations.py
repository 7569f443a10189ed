"""Lengths of time as people write them: `90s`, `30m`, `8h`, `7d`."""

from __future__ import annotations

import re

__all__ = ["parse_duration"]

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 366 * 86_400


def parse_duration(text: object) -> float:
    """`30m` as 1800.0 seconds. Raises ValueError with a sentence."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is not a length of time; write a number and s, m, h or d, such as 30m")
    seconds = int(found[1]) * _UNITS_S[found[2]]
    if not 1 <= seconds <= _LONGEST_S:
        raise ValueError(f"{text} is out of range; from 1s to 366d")
    return float(seconds)
