"""The effective clock: microseconds since the epoch that never go backward (R9), whatever the wall clock does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["Clock", "iso"]


class Clock:
    """`now_us()` is monotone, also across restarts once `not_before` was told the newest recorded time."""

    def __init__(self, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._wall_us = wall_us
        self._last_us = 0
        self._lock = threading.Lock()

    def now_us(self) -> int:
        with self._lock:
            self._last_us = max(self._last_us, self._wall_us())
            return self._last_us

    def not_before(self, at_us: int) -> None:
        with self._lock:
            self._last_us = max(self._last_us, at_us)


def iso(at_us: int) -> str:
    """`2026-11-23T20:00:00.123456Z`: exact to the microsecond."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
