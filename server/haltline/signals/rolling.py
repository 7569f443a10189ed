"""What happened lately, entry by entry, and the sums of rolling windows over it: asking costs the same however much it is. Pure.

An agent may have thousands of entries, and a broker thousands of agents: numbers stand in arrays, and a window is the place
where it begins.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["Rolling"]

_TIDIED_AT = 1024
"""So many places of entries that are gone are kept before the arrays are moved up."""


@dataclass(slots=True)
class _Window:
    """From the entry at `begin` to the newest, and what they sum up to."""

    length_us: int
    begin: int
    amount: int
    count: int


class Rolling:
    """Entries in the order of time: when (microseconds), an amount and a count. The sums of a window are kept once it is asked for."""

    __slots__ = ("_amounts", "_counts", "_oldest", "_times", "_windows")

    def __init__(self) -> None:
        self._times, self._amounts, self._counts = array("q"), array("q"), array("q")
        self._oldest = 0
        self._windows: dict[float, _Window] = {}

    def __len__(self) -> int:
        return len(self._times) - self._oldest

    def add(self, at_us: int, amount: int, count: int) -> None:
        """An entry no older than those before it."""
        self._times.append(at_us)
        self._amounts.append(amount)
        self._counts.append(count)
        for window in self._windows.values():
            window.amount += amount
            window.count += count

    def newest(self, at_us: int, within_us: int) -> int | None:
        """The place, until anything is let go of, of the newest entry up to `at_us`; None if that is not within so long of it."""
        place = bisect_right(self._times, at_us, self._oldest) - 1
        return place if place >= self._oldest and at_us - self._times[place] < within_us else None

    def change(self, place: int, amount: int, count: int) -> None:
        """Add to the entry there."""
        self._amounts[place] += amount
        self._counts[place] += count
        for window in self._windows.values():
            if place >= window.begin:
                window.amount += amount
                window.count += count

    def let_go(self, until_us: int) -> None:
        """Of all entries up to then."""
        times, begin = self._times, self._oldest
        while begin < len(times) and times[begin] <= until_us:
            begin += 1
        self._begin_at(begin)

    def let_go_of_oldest(self) -> None:
        self._begin_at(self._oldest + 1)

    def sums(self, window_s: float, now_us: int) -> tuple[int, int]:
        """(amount, count) of what is later than `window_s` before now; for a window, now never goes back."""
        window = self._windows.get(window_s)
        if window is None:
            begin = self._oldest
            amount, count = sum(self._amounts[begin:]), sum(self._counts[begin:])
            window = self._windows[window_s] = _Window(int(window_s * 1_000_000), begin, amount, count)
        times, begin, since_us = self._times, window.begin, now_us - window.length_us
        while begin < len(times) and times[begin] <= since_us:
            begin += 1
        self._roll(window, begin)
        return window.amount, window.count

    def most(self, window_s: float, at_us: int) -> int:
        """The greatest amount, at any entry from `at_us` on, of a window that holds that time, or of the last such window."""
        length_us = int(window_s * 1_000_000)
        most, amount, begin = 0, 0, self._oldest
        for place in range(self._oldest, len(self._times)):
            now_us = self._times[place]
            if now_us >= at_us + length_us:
                break
            while begin < place and self._times[begin] <= now_us - length_us:
                amount -= self._amounts[begin]
                begin += 1
            amount += self._amounts[place]
            if now_us >= at_us:
                most = max(most, amount)
        return max(most, amount)

    def _begin_at(self, begin: int) -> None:
        for window in self._windows.values():
            if window.begin < begin:
                self._roll(window, begin)
        self._oldest = begin
        if begin >= _TIDIED_AT and begin * 2 >= len(self._times):
            for numbers in (self._times, self._amounts, self._counts):
                del numbers[:begin]
            for window in self._windows.values():
                window.begin -= begin
            self._oldest = 0

    def _roll(self, window: _Window, begin: int) -> None:
        if begin - window.begin == 1:
            window.amount -= self._amounts[window.begin]
            window.count -= self._counts[window.begin]
        elif begin > window.begin:
            window.amount -= sum(self._amounts[window.begin : begin])
            window.count -= sum(self._counts[window.begin : begin])
        window.begin = begin

    def stored(self) -> list[list[int]]:
        return [numbers[self._oldest :].tolist() for numbers in (self._times, self._amounts, self._counts)]

    @staticmethod
    def loaded(stored: list[list[int]]) -> Rolling:
        found = Rolling()
        found._times, found._amounts, found._counts = (array("q", numbers) for numbers in stored)
        return found
