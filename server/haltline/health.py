"""Whether calls would be admitted now, and if not why: what `/readyz`, `status` and the log say alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haltline.calls.recovery import Unrecorded
    from haltline.clock import Clock
    from haltline.policy_source import PolicySource
    from haltline.store.writer import Writer

__all__ = ["Health"]


class Health:
    """Reads, never acts. `draining` is set once the broker has been told to stop."""

    def __init__(
        self, clock: Clock, writer: Writer, policies: PolicySource, unrecorded: Unrecorded, *, started_us: int
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._policies = policies
        self._unrecorded = unrecorded
        self.started_us = started_us
        self.draining = False

    @property
    def problem(self) -> str | None:
        """Why calls are refused, as a sentence; None when they are admitted."""
        if self.draining:
            return "the broker is shutting down"
        if self._unrecorded.waiting:
            return (
                f"{self._unrecorded.waiting} outcomes could not be recorded yet; nothing is dispatched until they are"
            )
        if self._clock.stepped_us:
            ahead_s = self._clock.stepped_us // 1_000_000
            return f"the machine's clock was set {ahead_s} s ahead of time; put it right, or start the broker anew"
        if self._writer.failure is not None:
            return f"the last commit failed: {self._writer.failure}"
        if self._policies.current is None:
            return "the policy cannot be read; run: haltline policy check"
        return None
