"""The effective clock: microseconds since the epoch that never go backward (R9), whatever the wall clock does.

What passes is measured by a steady clock; the wall clock only says where it began, and corrects it forward within a bound.
Set further forward it is not believed, and says so until it is put right or the broker is started anew. Set back it changes
nothing: a time that stood still would jump, and open every window at once, when the wall is put right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["STEP_MAX_US", "Clock", "iso"]

STEP_MAX_US = 300_000_000
"""How far the wall clock may run ahead of steady time at once: more than any correction of a synchronised machine."""


def _wall_us() -> int:
    return time.time_ns() // 1000


def _steady_us() -> int:
    """Time that also passes while the machine sleeps, so that waking up is no step."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class Clock:
    """`now_us()` is monotone, also across restarts once `not_before` was told the newest recorded time.

    `steady_us` never jumps; a clock with a `wall_us` of its own is taken as steady unless it is given one.
    """

    def __init__(self, wall_us: Callable[[], int] | None = None, steady_us: Callable[[], int] | None = None) -> None:
        self._wall_us = wall_us or _wall_us
        self._steady_us = steady_us or wall_us or _steady_us
        self._lock = threading.Lock()
        self._last_us = 0
        self._offset_us = self._wall_us() - self._steady_us()
        self._ahead_us = 0

    def now_us(self) -> int:
        with self._lock:
            wall_us, steady_us = self._wall_us(), self._steady_us()
            self._ahead_us = wall_us - steady_us - self._offset_us
            if 0 < self._ahead_us <= STEP_MAX_US:
                self._offset_us += self._ahead_us
                self._ahead_us = 0
            self._last_us = max(self._last_us, steady_us + self._offset_us)
            return self._last_us

    def not_before(self, at_us: int) -> None:
        with self._lock:
            self._last_us = max(self._last_us, at_us)

    @property
    def stepped_us(self) -> int:
        """How far the wall clock was set forward beyond what is believed; while not 0, nothing may be dispatched (R9)."""
        return max(self._ahead_us, 0)

    @property
    def behind_us(self) -> int:
        """How far the wall clock was set back behind what has passed: told, and of no consequence."""
        return max(-self._ahead_us, 0)


def iso(at_us: int) -> str:
    """`2026-11-23T20:00:00.123456Z`: exact to the microsecond."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
