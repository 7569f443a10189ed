"""After a change of the policy's time zone: the hours of the week of what was before it are counted again, beside the calls.

Reads committed events in small steps, as many of them as leave the machine to others; only the sum is brought into the
writer. Until then a rule that needs those hours is learning (R28); nothing else depends on the zone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
import structlog

from haltline.errors import StoreUnavailable
from haltline.signals.state import AgentSignals
from haltline.signals.table import folded

if TYPE_CHECKING:
    from haltline.signals.table import Signals
    from haltline.store.reader import Reader
    from haltline.store.writer import Writer

__all__ = ["Recount"]

LOOK_EVERY_S = 1.0
EVENTS_A_STEP = 200
log = structlog.get_logger(__name__)


class Recount:
    """`zone` gives that of the policy in force."""

    def __init__(self, signals: Signals, writer: Writer, reader: Reader, zone: Callable[[], str]) -> None:
        self._signals = signals
        self._writer = writer
        self._reader = reader
        self._zone = zone
        self._done_for: str | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except (StoreUnavailable, TimeoutError) as error:
                log.error("hours_not_counted", error=str(error))

    async def look(self) -> None:
        """Whatever there is to count again; at once where the zone is still the same."""
        zone = self._zone()
        if zone == self._done_for:
            return
        while await self._writer.run(self._signals.save):
            pass
        agents = await self._writer.run(self._signals.in_other_zones)
        for agent_id in agents:
            await self._agent(agent_id, zone)
        if agents:
            log.info("hours_counted_again", time_zone=zone, agents=len(agents))
        self._done_for = zone

    async def _agent(self, agent_id: str, zone: str) -> None:
        up_to = await self._writer.run(lambda tx: self._signals.agent(tx, agent_id).week_after)
        past = AgentSignals()
        while past.seq < up_to:
            rows = await self._reader.rows(
                "SELECT body FROM events WHERE agent_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (agent_id, past.seq, up_to, EVENTS_A_STEP),
            )
            if not rows:
                break
            begun = time.perf_counter()
            await anyio.to_thread.run_sync(partial(folded, [row["body"] for row in rows], past, zone))
            await anyio.sleep(time.perf_counter() - begun)
        await self._writer.run(lambda tx: self._signals.counted(tx, agent_id, zone, up_to, past.week))
