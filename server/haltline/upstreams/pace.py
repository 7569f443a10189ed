"""How fast and how much of what an upstream sends unasked is taken: a share of the loop's time, and so many messages.

Whoever is over its share is not read for a while: its pipe or connection fills up, and it is the sender who waits, not the
neighbours. Knows no transport and no JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time

__all__ = ["TURN_S", "Pace", "Unasked"]

TURN_S = 0.0005
"""So long what one connection brought may occupy the loop at once: a flood waits its turn like everything else."""
AT_ONCE_S = 0.001
"""Of the loop's time one upstream may have so much without a rest: about a hundred messages."""
SHARE = 0.08
"""And of all time from then on this part. The store's thread needs the interpreter too, and gets it while the loop rests."""
MESSAGES_AT_ONCE = 5_000
MESSAGES_PER_S = 500.0


class Pace:
    """Of one upstream, over all its connections. `now` and `worked` tell seconds: on the wall, and of this thread's work."""

    def __init__(self, now: Callable[[], float] = monotonic, worked: Callable[[], float] = thread_time) -> None:
        self._now = now
        self.worked = worked
        self._spare_s = AT_ONCE_S
        self._seen = now()

    def rest_s(self, begun: float) -> float:
        """How long its next turn has to wait, after one that begun at `worked`; 0: not at all."""
        now = self._now()
        self._spare_s = min(self._spare_s + SHARE * (now - self._seen), AT_ONCE_S) - (self.worked() - begun)
        self._seen = now
        return max(-self._spare_s / SHARE, 0.0)


class Unasked:
    """Counts messages that answer nothing: of one call, or of one program."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._left = float(MESSAGES_AT_ONCE)
        self._seen = now()

    def too_many(self) -> bool:
        """One more has come; whether it is one more than is put up with."""
        now = self._now()
        self._left = min(self._left + MESSAGES_PER_S * (now - self._seen), MESSAGES_AT_ONCE) - 1
        self._seen = now
        return self._left < 0
