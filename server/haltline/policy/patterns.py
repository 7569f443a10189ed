"""Tool-name patterns: a name, or a name with `*` for any run of characters (`payments__*`, `*`).

Matching takes time linear in the name for each part of the pattern; nothing else is special. Of several patterns that
match a name, the most specific is the one without `*`, then the longest text before its first `*`, then the most text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["any_of", "check_pattern", "matcher", "matches", "most_specific", "overlap"]

_PATTERN = re.compile(r"[A-Za-z0-9_./*-]+")
_LONGEST = 256
_MOST_STARS = 8


def check_pattern(pattern: object) -> str:
    """The pattern as it is. Raises ValueError with a sentence for one that cannot be used."""
    if not isinstance(pattern, str):
        raise ValueError(f"a tool pattern is text such as payments__*, not {pattern!r}")  # noqa: TRY004 - as every fault of a written value
    if not pattern:
        raise ValueError("a tool pattern is empty; write a tool's name, or * for all")
    if len(pattern) > _LONGEST:
        raise ValueError(f"a tool pattern has at most {_LONGEST} characters, this one has {len(pattern)}")
    if not _PATTERN.fullmatch(pattern):
        odd = next(character for character in pattern if not _PATTERN.fullmatch(character))
        raise ValueError(
            f"{pattern!r}: {odd!r} is not allowed in a tool pattern; letters, digits, _ - . / are, and * for any run of them"
        )
    if "**" in pattern:
        raise ValueError(f"{pattern!r}: write one * instead of several in a row")
    if pattern.count("*") > _MOST_STARS:
        raise ValueError(f"{pattern!r}: a tool pattern has at most {_MOST_STARS} *")
    return pattern


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a tool's name. Raises ValueError for a pattern that cannot be used."""
    return matcher(pattern)(name)


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], bool]:
    """A pattern compiled once. Raises ValueError for one that cannot be used."""
    check_pattern(pattern)
    if pattern == "*":
        return lambda _: True
    head, *rest = pattern.split("*")
    if not rest:
        return pattern.__eq__
    *middle, tail = rest

    def match(name: str) -> bool:
        if len(name) < len(head) + len(tail) or not name.startswith(head) or not name.endswith(tail):
            return False
        at, end = len(head), len(name) - len(tail)
        for part in middle:
            found = name.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return match


@lru_cache(maxsize=4096)
def any_of(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Several patterns as one question; none of them at all matches nothing."""
    checks = {pattern: matcher(pattern) for pattern in patterns}
    if len(checks) == 1:
        return next(iter(checks.values()))
    names = frozenset(pattern for pattern in checks if "*" not in pattern)
    starts = tuple(pattern[:-1] for pattern in checks if pattern.find("*") == len(pattern) - 1)  # asked as one
    wide = tuple(check for pattern, check in checks.items() if "*" in pattern[:-1])
    if not starts and not wide:
        return names.__contains__
    if not wide:
        return lambda name: name in names or name.startswith(starts)
    return lambda name: name in names or name.startswith(starts) or any(check(name) for check in wide)


def _specificity(pattern: str) -> tuple[bool, int, int, str]:
    """A sort key: the higher, the more specific. Equal only for the same pattern."""
    return "*" not in pattern, len(pattern.partition("*")[0]), len(pattern) - pattern.count("*"), pattern


def most_specific(patterns: Iterable[str]) -> list[str]:
    """The patterns, the most specific first."""
    return sorted(patterns, key=_specificity, reverse=True)


def overlap(one: str, other: str) -> bool:
    """Whether there is any name that both patterns match."""
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        a, b = waiting.pop()
        if a == len(one) and b == len(other):
            return True
        for step in _steps(one, other, a, b):
            if step not in reached:
                reached.add(step)
                waiting.append(step)
    return False


def _steps(one: str, other: str, a: int, b: int) -> Iterable[tuple[int, int]]:
    star_a, star_b = a < len(one) and one[a] == "*", b < len(other) and other[b] == "*"
    if star_a:
        yield a + 1, b
    if star_b:
        yield a, b + 1
    if a < len(one) and b < len(other):
        if star_a and not star_b:
            yield a, b + 1
        elif star_b and not star_a:
            yield a + 1, b
        elif one[a] == other[b]:
            yield a + 1, b + 1
