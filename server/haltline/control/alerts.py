"""Alerts as operators meet them: what was told, who has it in hand, what was given up, and how fast people were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.alerts.episodes import EPISODE_PREFIX
from haltline.alerts.model import Undelivered
from haltline.audit import Kind
from haltline.clock import iso
from haltline.control.reading import moment_us
from haltline.errors import Conflict

if TYPE_CHECKING:
    from haltline.alerts.episodes import Episode
    from haltline.control.desk import Desk, Operator, Request
    from haltline.halts import HaltScope
    from haltline.store.writer import Tx
    from haltline_client import alert_results as a

__all__ = ["AlertDesk"]

LISTED = 50
STATS_SINCE = "28d"


class AlertDesk:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts
        self._outbox = desk.parts.outbox

    async def list_alerts(self, request: Request, *, limit: int = LISTED, live: bool = False) -> a.AlertList:
        """The newest episodes first, and the newest messages with the state of their deliveries."""
        await self._desk.act(request, lambda _, __: None)
        overview = self._outbox.overview
        return {
            "episodes": await overview.episodes(limit, live_only=live),  # type: ignore[typeddict-item]  # as the client names it
            "alerts": await overview.newest(limit),  # type: ignore[typeddict-item]
        }

    async def acknowledge_alert(self, request: Request, *, episode: str, reason: str | None = None) -> a.EpisodeChanged:
        """Somebody has it: no further escalation. Raises NotFound, Conflict where it is past that."""
        why = None if reason is None else self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> a.EpisodeChanged:
            found = self._outbox.episodes.get(tx, episode)
            seq = self._record(tx, operator, request, Kind.ALERT_ACKNOWLEDGED, found, why)
            return _changed(self._outbox.acknowledge(tx, seq, found, operator.actor), operator, tx.now_us)

        return await self._desk.act(request, unit)

    async def resolve_alert(self, request: Request, *, episode: str, reason: str) -> a.EpisodeChanged:
        """It is over. Raises Conflict while what it is about is halted: then a resume ends it (P4)."""
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> a.EpisodeChanged:
            found = self._outbox.episodes.get(tx, episode)
            self._not_halted(tx, found)
            seq = self._record(tx, operator, request, Kind.ALERT_RESOLVED, found, why)
            self._outbox.episodes.acted(tx, found.about, None, operator.actor)
            self._outbox.resolve(tx, seq, [found], operator.actor)
            return _changed(self._outbox.episodes.get(tx, episode), operator, tx.now_us)

        return await self._desk.act(request, unit)

    async def retry_alert(self, request: Request, *, id: str) -> a.Retried:  # noqa: A002 - the tool's own word
        """Queue what was given up again. Raises NotFound where nothing of that id was."""

        def unit(tx: Tx, operator: Operator) -> a.Retried:
            count = self._outbox.retry(tx, id, of_episode=id.startswith(EPISODE_PREFIX))
            body = {"target": self._desk.plain(id), "deliveries": count}
            self._parts.audit.append(tx, self._desk.event(Kind.ALERT_RETRIED, operator, request, body=body))
            return {"id": id, "deliveries": count}

        return await self._desk.act(request, unit)

    async def test_alert_channel(self, request: Request, *, channel: str) -> a.ChannelTried:
        """Send a marked alert now. Whether it was taken is the answer, not an error; an unknown channel is NotFound."""
        await self._desk.act(request, lambda _, __: None)
        took_s, why = 0.0, None
        try:
            took_s = await self._outbox.try_out(channel)
        except Undelivered as outcome:
            why = outcome.why

        def unit(tx: Tx, operator: Operator) -> a.ChannelTried:
            body = {"target": channel, "delivered": why is None, "why": why}
            self._parts.audit.append(tx, self._desk.event(Kind.ALERT_TESTED, operator, request, body=body))
            return {"channel": channel, "delivered": why is None, "why": why, "took_s": took_s}

        return await self._desk.act(request, unit)

    async def alert_stats(self, request: Request, *, since: str = STATS_SINCE) -> a.AlertStats:
        """How long people took, over the episodes that opened since then."""
        since_us = await self._desk.act(request, lambda tx, _: moment_us("since", since, tx.now_us))
        return await self._outbox.overview.stats(since_us)  # type: ignore[return-value]  # as the client names it

    def _not_halted(self, tx: Tx, found: Episode) -> None:
        scope, _, subject = found.about.partition(":")
        if scope == "tool":
            return
        halt = self._parts.halts.get(tx, _scope(scope), subject or scope)
        if halt is not None:
            raise Conflict(f"what {found.public_id} is about is halted ({halt.code}): a resume or a revoke resolves it")

    def _record(self, tx: Tx, operator: Operator, request: Request, kind: Kind, found: Episode, why: str | None) -> int:
        agent = None if found.agent_id is None else self._parts.identity.agent_by_id(tx, found.agent_id)
        body = {
            "target": found.public_id,
            "about": found.about,
            "cause": found.cause,
            "count": found.count,
            "reason": why,
        }
        return self._parts.audit.append(tx, self._desk.event(kind, operator, request, agent=agent, body=body))


def _scope(name: str) -> HaltScope:
    assert name in {"session", "agent", "everything"}
    return name  # type: ignore[return-value]  # one of the three


def _changed(episode: Episode, operator: Operator, now_us: int) -> a.EpisodeChanged:
    def after_s(at_us: int | None) -> float | None:
        return None if at_us is None else (at_us - episode.opened_us) / 1_000_000

    return {
        "episode": episode.public_id,
        "state": episode.state,
        "by": operator.actor,
        "at": iso(now_us),
        "count": episode.count,
        "to_acknowledge_s": after_s(episode.acknowledged_us),
        "to_act_s": after_s(episode.acted_us),
    }
