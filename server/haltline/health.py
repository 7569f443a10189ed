"""Whether calls would be admitted now, and if not why: what `/readyz`, `status` and the log say alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haltline.calls.recovery import Unrecorded
    from haltline.clock import Clock
    from haltline.halts import Halts
    from haltline.policy_source import PolicySource
    from haltline.store.writer import Writer

__all__ = ["Health", "Problem"]


STUCK_S = 10.0
"""A commit takes milliseconds; one that takes longer than this hangs: at a disk, or at a lock of another program."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why calls are refused: `short` for whoever may ask without a credential, `text` for operators."""

    short: str
    text: str


class Health:
    """Reads, never acts. `draining` is set once the broker has been told to stop."""

    def __init__(
        self,
        clock: Clock,
        writer: Writer,
        policies: PolicySource,
        unrecorded: Unrecorded,
        halts: Halts,
        *,
        started_us: int,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._policies = policies
        self._unrecorded = unrecorded
        self._halts = halts
        self._stuck_s = stuck_s
        self.started_us = started_us
        self.draining = False

    @property
    def problem(self) -> str | None:
        """Why calls are refused, as a sentence; None when they are admitted."""
        found = self.found
        return None if found is None else found.text

    @property
    def found(self) -> Problem | None:
        """A fault, or else a halt of everything."""
        return self.fault or self._halted()

    def answer(self) -> tuple[int, str]:
        """To `/readyz`: whoever asks is not known, so that the reason is in words of ours alone."""
        found = self.found
        return (200, "ready") if found is None else (503, f"not ready: {found.short}")

    @property
    def fault(self) -> Problem | None:
        """What is broken, so that nothing can be admitted, whatever people have halted."""
        if self.draining:
            return Problem("shutting down", "the broker is shutting down")
        waiting = self._unrecorded.waiting
        if waiting:
            text = f"{waiting} outcomes could not be recorded yet; nothing is dispatched until they are"
            return Problem("outcomes are not recorded", text)
        if self._clock.stepped_us:
            ahead_s = self._clock.stepped_us // 1_000_000
            text = f"the machine's clock was set {ahead_s} s ahead of time; put it right, or start the broker anew"
            return Problem("the clock was set", text)
        return self._of_store() or self._of_policy()

    def _of_store(self) -> Problem | None:
        short = "the store cannot be written"
        if self._writer.failure is not None:
            return Problem(short, f"the last commit failed: {self._writer.failure}")
        if self._writer.ended:
            return Problem(short, "the writer of the store has ended; start the broker anew, and see its log")
        busy_s = self._writer.busy_s
        if busy_s > self._stuck_s:
            text = (
                f"a commit has not ended for {busy_s:.0f} s; look at the disk, and at what else has the database open"
            )
            return Problem(short, text)
        return None

    def _of_policy(self) -> Problem | None:
        if self._policies.current is None:
            return Problem("no policy is in force", "the policy cannot be read; run: haltline policy check")
        return None

    def _halted(self) -> Problem | None:
        halt = self._halts.of_everything
        if halt is None:
            return None
        text = f'everything is halted, by {halt.by}: {halt.text}; haltline resume everything --reason "..." lifts it'
        return Problem("everything is halted", text)
