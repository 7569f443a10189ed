"""Tells when the machine's clock was set: an event and its alert, once for each step and once when it is right again (R9).

Decides nothing: what a step forward stops, the broker refuses by itself, within the transaction of each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anyio
import structlog

from haltline.alarm import alarm
from haltline.alerts.episodes import CLOCK
from haltline.audit import Event, Kind
from haltline.clock import STEP_MAX_US
from haltline.errors import StoreUnavailable
from haltline.policy.model import Reason

if TYPE_CHECKING:
    from haltline.parts import Parts
    from haltline.store.writer import Tx

__all__ = ["LOOK_EVERY_S", "ClockWatch"]

LOOK_EVERY_S = 1.0
log = structlog.get_logger(__name__)
State = Literal["right", "ahead", "behind"]


class ClockWatch:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._told: State | None = None  # another broker may have told something before it ended

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Tell what has changed since the last look; told again later where it cannot be written."""
        clock = self._parts.clock
        clock.now_us()
        state: State = "ahead" if clock.stepped_us else "behind" if clock.behind_us > STEP_MAX_US else "right"
        if state == self._told:
            return
        by_s = (clock.stepped_us or clock.behind_us) // 1_000_000
        try:
            await self._parts.writer.run(lambda tx: self._tell(tx, state, by_s), urgent=True)
        except StoreUnavailable as error:
            log.error("clock_step_not_recorded", state=state, by_s=by_s, error=str(error))
            return
        self._told = state

    def _tell(self, tx: Tx, state: State, by_s: int) -> None:
        outbox = self._parts.outbox
        before = outbox.episodes.live_about(tx, CLOCK)
        if state == "right" and not before:
            return
        if state == "right":
            seq = self._parts.audit.append(tx, Event(Kind.CLOCK_RIGHTED, "broker", body={}))
            outbox.resolve(tx, seq, before, "broker")
            return
        kind = Kind.CLOCK_STEPPED if state == "ahead" else Kind.CLOCK_SET_BACK
        text = _AHEAD.format(by_s) if state == "ahead" else _BEHIND.format(by_s)
        seq = self._parts.audit.append(tx, Event(kind, "broker", body={"by_s": by_s, "text": text}))
        outbox.resolve(tx, seq, before, "broker")
        alarm(
            tx,
            self._parts,
            kind=kind.value,
            reason=Reason(kind.value, text),
            by="broker",
            event_seq=seq,
            who=None,
            severity="critical" if state == "ahead" else "warning",
        )


_AHEAD = (
    "the machine's clock was set {} s ahead of the time that has passed, so no cap can be judged and every call is refused; "
    "put the clock right, or start the broker anew if it is right now"
)
_BEHIND = (
    "the machine's clock was set {} s back; windows and expiries go on by the time that has passed; if the clock is right now, "
    "start the broker anew: its time then stands until the clock has caught up"
)
