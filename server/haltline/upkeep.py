"""What nobody asks for and must be done all the same: episodes of sessions that have ended, and alerts that are old.

An episode is only ended by itself once somebody has seen it: an open one goes on being told. What is let go is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog

from haltline.alerts.retention import drop, old
from haltline.audit import Event, Kind
from haltline.clock import iso
from haltline.errors import NotFound

if TYPE_CHECKING:
    from haltline.alerts.episodes import Episode
    from haltline.parts import Parts
    from haltline.store.writer import Tx

__all__ = ["Upkeep"]

LOOK_EVERY_S = 60.0
PRUNE_EVERY_S = 3_600.0
ENDED_AT_ONCE = 100
ENDED = "broker: its session has ended"
log = structlog.get_logger(__name__)


class Upkeep:
    """`keep_s`: how long alerts are kept once they are resolved and delivered."""

    def __init__(self, parts: Parts, keep_s: float) -> None:
        self._parts = parts
        self._keep_us = int(keep_s * 1_000_000)

    async def run(self) -> None:
        """Until cancelled."""
        pruned_s = -PRUNE_EVERY_S
        while True:
            try:
                await self.end_episodes()
                if anyio.current_time() - pruned_s >= PRUNE_EVERY_S:
                    await self.prune()
                    pruned_s = anyio.current_time()
            except Exception as error:  # noqa: BLE001 - the boundary: a store that fails stops no upkeep, it is tried again
                log.warning("upkeep_failed", error=f"{type(error).__name__}: {error}")
            await anyio.sleep(LOOK_EVERY_S)

    async def end_episodes(self) -> int:
        """Resolve what is about sessions that have ended, by their expiry or by a stop above them; returns how many.

        No resume can come for those. Nothing of a session is lifted by it, and what nobody acknowledged stays open.
        """
        waiting = await self._parts.outbox.overview.seen_of_sessions()
        if not waiting:
            return 0
        return await self._parts.writer.run(lambda tx: self._end(tx, waiting))

    def _end(self, tx: Tx, waiting: list[str]) -> int:
        ended = 0
        for public_id in waiting:
            episode = self._parts.outbox.episodes.get(tx, public_id)
            if ended < ENDED_AT_ONCE and episode.state == "acknowledged" and self._is_over(tx, episode):
                ended += 1
                body = {
                    "target": episode.public_id,
                    "about": episode.about,
                    "cause": episode.cause,
                    "count": episode.count,
                    "reason": "its session has ended, so that no resume can come",
                }
                seq = self._parts.audit.append(tx, Event(Kind.ALERT_RESOLVED, "broker", body=body))
                self._parts.outbox.resolve(tx, seq, [episode], ENDED)
        return ended

    def _is_over(self, tx: Tx, episode: Episode) -> bool:
        try:
            return self._parts.identity.session(tx, episode.about.partition(":")[2]).life(tx.now_us) != "open"
        except NotFound:
            return True

    async def prune(self) -> tuple[int, int]:
        """Let go of what is older than it is kept; returns how many messages and episodes."""
        before_us = self._parts.clock.now_us() - self._keep_us
        alerts = episodes = 0
        while ids := await old(self._parts.reader, before_us):
            gone = await self._parts.writer.run(lambda tx, ids=ids: drop(tx, ids, before_us))  # type: ignore[misc]
            if not gone[0]:
                break
            alerts, episodes = alerts + gone[0], episodes + gone[1]
        if alerts:
            body = {"alerts": alerts, "episodes": episodes, "before": iso(before_us)}
            await self._parts.writer.run(
                lambda tx: self._parts.audit.append(tx, Event(Kind.ALERT_PRUNED, "broker", body=body))
            )
            log.info("alerts_pruned", **body)
        return alerts, episodes
