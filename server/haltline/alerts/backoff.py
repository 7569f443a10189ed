"""When a delivery that failed is tried again: exponential with full jitter, never before the receiver asked. No clock.

Full jitter (a uniform share of the whole step) spreads the retries of many alerts after an outage
(aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff"]

_LARGEST_EXPONENT = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """`random` gives a share in [0, 1)."""

    random: Callable[[], float] = secrets.SystemRandom().random
    first_s: float = 1.0
    longest_s: float = 60.0
    """A channel that is back is told within a minute; with five an alert would be as late as nobody may be."""
    longest_asked_s: float = 3600.0
    """A receiver's `Retry-After` is honoured up to here: an alert that waits a day is lost."""
    store_pause_s: float = 1.0
    """Between two tries to read or write the rows while the store fails."""

    def delay_s(self, attempts: int, asked_s: float | None) -> float:
        """Seconds after the failure of attempt number `attempts` (from 1)."""
        step_s = min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, _LARGEST_EXPONENT))
        return max(self.random() * step_s, min(asked_s or 0.0, self.longest_asked_s))
