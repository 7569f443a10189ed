"""Sums by buckets of time, as many as are kept, the oldest given up for the newest: an addition costs the same at any age. Pure."""

from __future__ import annotations

from array import array
from typing import Any

__all__ = ["Buckets"]


class Buckets:
    """Numbers of buckets count from the epoch. What is older than the oldest that is kept is not counted."""

    __slots__ = ("_kept", "_newest", "_sums")

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._newest = 0
        self._sums = array("q", bytes(8 * kept))

    def add(self, number: int, change: int) -> None:
        if number > self._newest:
            self._go_on(number)
        elif number <= self._newest - self._kept:
            return
        self._sums[number % self._kept] += change

    def between(self, first: int, last: int) -> array[int]:
        """The sums from the first bucket up to, not including, the last; those that are not kept are left out."""
        first = max(first, self._newest - self._kept + 1)
        count = min(last, self._newest + 1) - first
        if count <= 0:
            return array("q")
        start = first % self._kept
        found = self._sums[start : start + count]
        return found + self._sums[: count - len(found)] if len(found) < count else found

    def _go_on(self, number: int) -> None:
        if number - self._newest >= self._kept:
            self._sums = array("q", bytes(8 * self._kept))
        else:
            for one in range(self._newest + 1, number + 1):
                self._sums[one % self._kept] = 0
        self._newest = number

    def stored(self) -> list[Any]:
        return [self._newest, self._sums.tolist()]

    def load(self, stored: list[Any]) -> Buckets:
        self._newest = stored[0]
        self._sums = array("q", stored[1])
        return self
