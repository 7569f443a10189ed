"""What nobody acknowledges in time goes to the next route. The deadlines are rows, so that a restart forgets none.

Says when, and what is said of it; the outbox writes it. Knows no channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline.alerts.episodes import Episode
    from haltline.clock import Clock
    from haltline.policy.routes import Route
    from haltline.store.reader import Reader
    from haltline.store.writer import Tx, Writer

__all__ = ["ESCALATED_AT_ONCE", "Escalation", "due_us", "step"]

ESCALATED_AT_ONCE = 50
_STORE_PAUSE_S = 1.0
log = structlog.get_logger(__name__)


def due_us(tx: Tx, route: Route) -> int | None:
    """When it goes on from this route; None where it ends here."""
    return None if route.then is None else tx.now_us + int(route.after_s * 1_000_000)


def step(tx: Tx, episode: Episode, route: Route | None) -> str:
    """`not acknowledged within 5 min, so it goes to managers too`."""
    minutes = max(0, tx.now_us - episode.opened_us) / 60_000_000
    to = "every channel, for its next route is gone" if route is None else route.name
    return f"not acknowledged within {minutes:.3g} min, so it goes to {to}"


class Escalation:
    def __init__(self, escalate: Callable[[Tx], int], writer: Writer, reader: Reader, clock: Clock) -> None:
        self._escalate = escalate
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._bell = anyio.Event()

    def wake(self) -> None:
        """Look at the deadlines again, now."""
        self._bell.set()
        self._bell = anyio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            bell = self._bell
            try:
                wait_s = await self._look()
            except Exception as error:  # noqa: BLE001  # the boundary: a store that fails stops nothing, the deadlines stay
                log.warning("alerts_not_escalated", error=f"{type(error).__name__}: {error}")
                wait_s = _STORE_PAUSE_S
            with anyio.move_on_after(wait_s):
                await bell.wait()

    async def _look(self) -> float | None:
        """Escalate what is due; returns how long until the next, None where there is none."""
        while True:
            row = await self._reader.row(
                "SELECT min(escalates_us) AS next_us FROM episodes WHERE escalates_us IS NOT NULL"
            )
            if row is None or row["next_us"] is None:
                return None
            left_s = (int(row["next_us"]) - self._clock.now_us()) / 1_000_000
            if left_s > 0:
                return left_s
            count = await self._writer.run(self._escalate)
            log.warning("alerts_escalated", count=count)
            if not count:
                return _STORE_PAUSE_S
