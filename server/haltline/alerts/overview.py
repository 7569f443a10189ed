"""What waits, what was told and how fast people were: everything that is read of alerts, from committed rows.

Reads the tables alerts, deliveries and episodes beside the writer; changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from haltline.alerts.model import Alert
from haltline.clock import iso

if TYPE_CHECKING:
    import sqlite3

    from haltline.clock import Clock
    from haltline.store.reader import Reader

__all__ = ["NEWEST_MAX", "Overview"]

NEWEST_MAX = 1000
_STATS_MAX = 50_000
"""Episodes that statistics are made of: the newest."""
_IN_TIME_S = 300
"""Within five minutes somebody should have seen it."""


class Overview:
    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    async def backlog(self) -> dict[str, Any]:
        """`backlog`: alerts that a channel still has to take; `failed`: those that one never will; both by channel too.

        `oldest_age_s` is how long the oldest of the backlog has waited, 0 for none; `open_episodes` nobody acknowledged yet.
        """
        total = await self._reader.row(_WAITING)
        parked = await self._reader.row(
            "SELECT count(DISTINCT alert_id) AS alerts FROM deliveries WHERE state = 'parked'"
        )
        unseen = await self._reader.row("SELECT count(*) AS episodes FROM episodes WHERE state = 'open'")
        assert total is not None
        assert parked is not None
        assert unseen is not None
        oldest_us = total["oldest_us"]
        return {
            "backlog": total["alerts"],
            "oldest_at": None if oldest_us is None else iso(oldest_us),
            "oldest_age_s": self._age_s(oldest_us),
            "failed": parked["alerts"],
            "open_episodes": unseen["episodes"],
            "channels": [self._channel(row) for row in await self._reader.rows(_BY_CHANNEL)],
        }

    def _channel(self, row: sqlite3.Row) -> dict[str, Any]:
        return {
            "channel": row["channel"],
            "backlog": row["waiting"],
            "oldest_age_s": self._age_s(row["oldest_us"]),
            "failed": row["parked"],
        }

    def _age_s(self, since_us: int | None) -> float:
        return 0.0 if since_us is None else max(0.0, (self._clock.now_us() - since_us) / 1_000_000)

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """The newest messages first, each with how far its deliveries are; at most `NEWEST_MAX`."""
        rows = await self._reader.rows(
            "SELECT id, public_id, at_us, body FROM alerts ORDER BY id DESC LIMIT ?", (max(1, min(limit, NEWEST_MAX)),)
        )
        deliveries = await self._reader.rows(_DELIVERIES, (orjson.dumps([row["id"] for row in rows]).decode(),))
        of_alert: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
        for row in deliveries:
            of_alert[row["alert_id"]].append({key: row[key] for key in ("channel", "state", "attempts", "last_error")})
        return [_message(row, of_alert[row["id"]]) for row in rows]

    async def episodes(self, limit: int, *, live_only: bool) -> list[dict[str, Any]]:
        """The newest episodes first, or only those that are not resolved; at most `NEWEST_MAX`."""
        rows = await self._reader.rows(
            _EPISODES.format(where="WHERE e.state <> 'resolved'" if live_only else ""),
            (max(1, min(limit, NEWEST_MAX)),),
        )
        return [_episode(row) for row in rows]

    async def seen_of_sessions(self) -> list[str]:
        """Episodes about a session that somebody acknowledged and nothing has resolved; the oldest first."""
        rows = await self._reader.rows(
            "SELECT public_id FROM episodes WHERE state <> 'resolved' AND state = 'acknowledged'"
            " AND about >= 'session:' AND about < 'session;' ORDER BY id LIMIT ?",
            (NEWEST_MAX,),
        )
        return [row["public_id"] for row in rows]

    async def stats(self, since_us: int) -> dict[str, Any]:
        """How many episodes there were since then, and how long people took to acknowledge and to act, in seconds."""
        rows = await self._reader.rows(
            "SELECT severity, count, opened_us, acknowledged_us, acted_us, resolved_us, escalations FROM episodes"
            " WHERE opened_us >= ? ORDER BY opened_us DESC LIMIT ?",
            (since_us, _STATS_MAX),
        )
        seen = [_seen_us(row) - row["opened_us"] for row in rows if _seen_us(row)]
        acted = [row["acted_us"] - row["opened_us"] for row in rows if row["acted_us"]]
        return {
            "since": iso(since_us),
            "episodes": len(rows),
            "raised": sum(row["count"] for row in rows),
            "critical": sum(row["severity"] == "critical" for row in rows),
            "acknowledged": len(seen),
            "acknowledged_in_time": sum(one <= _IN_TIME_S * 1_000_000 for one in seen),
            "escalated": sum(row["escalations"] > 0 for row in rows),
            "resolved": sum(row["resolved_us"] is not None for row in rows),
            "unseen": sum(_seen_us(row) == 0 and row["resolved_us"] is None for row in rows),
            "to_acknowledge_s": _spread(seen),
            "to_act_s": _spread(acted),
        }


def _seen_us(row: sqlite3.Row) -> int:
    """When a person showed to have seen it: by saying so, or by acting."""
    return min((row[name] for name in ("acknowledged_us", "acted_us") if row[name]), default=0)


def _spread(values_us: list[int]) -> dict[str, float] | None:
    if not values_us:
        return None
    ordered = sorted(values_us)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1_000_000

    return {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1] / 1_000_000}


def _message(row: sqlite3.Row, deliveries: list[dict[str, Any]]) -> dict[str, Any]:
    alert = Alert.from_stored(row["body"])
    return {
        "id": row["public_id"],
        "at": iso(row["at_us"]),
        "kind": alert.kind,
        "act": alert.act,
        "episode": alert.episode,
        "agent": alert.agent,
        "session": alert.session,
        "summary": alert.summary,
        "deliveries": deliveries,
    }


def _episode(row: sqlite3.Row) -> dict[str, Any]:
    alert = Alert.from_stored(row["body"])
    shown = {"id": row["public_id"], "state": row["state"], "severity": row["severity"], "count": row["count"]}
    times = {name: row[f"{name}_us"] for name in ("acknowledged", "acted", "resolved")}
    return {
        **shown,
        "since": iso(row["opened_us"]),
        "last_at": iso(row["last_us"]),
        "kind": alert.kind,
        "code": alert.code,
        "rule": alert.rule,
        "threshold": alert.threshold,
        "observed": alert.observed,
        "agent": alert.agent,
        "session": alert.session,
        "tool": alert.tool,
        "summary": alert.summary,
        **{f"{name}_at": None if at_us is None else iso(at_us) for name, at_us in times.items()},
        **{f"{name}_by": row[f"{name}_by"] for name in times},
        "escalates_at": None if row["escalates_us"] is None else iso(row["escalates_us"]),
        "escalations": row["escalations"],
        "last_actions": list(alert.last_actions),
        "commands": list(alert.commands),
        "waiting": row["waiting"],
        "failed": row["parked"],
    }


_WAITING = """
    SELECT count(DISTINCT d.alert_id) AS alerts, min(a.at_us) AS oldest_us
    FROM deliveries d JOIN alerts a ON a.id = d.alert_id WHERE d.state = 'pending'
"""
_BY_CHANNEL = """
    SELECT channel, sum(waits) AS waiting, min(oldest_us) AS oldest_us, sum(parks) AS parked FROM (
        SELECT d.channel, count(*) AS waits, min(a.at_us) AS oldest_us, 0 AS parks
        FROM deliveries d JOIN alerts a ON a.id = d.alert_id WHERE d.state = 'pending' GROUP BY d.channel
        UNION ALL
        SELECT channel, 0, NULL, count(*) FROM deliveries WHERE state = 'parked' GROUP BY channel
    ) GROUP BY channel ORDER BY channel
"""
_DELIVERIES = """
    SELECT alert_id, channel, state, attempts, last_error FROM deliveries
    WHERE alert_id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
_EPISODES = """
    SELECT e.*, (SELECT body FROM alerts a WHERE a.episode_id = e.id ORDER BY a.id LIMIT 1) AS body,
        (SELECT count(*) FROM deliveries d JOIN alerts a ON a.id = d.alert_id
            WHERE a.episode_id = e.id AND d.state = 'pending') AS waiting,
        (SELECT count(*) FROM deliveries d JOIN alerts a ON a.id = d.alert_id
            WHERE a.episode_id = e.id AND d.state = 'parked') AS parked
    FROM episodes e {where} ORDER BY e.id DESC LIMIT ?
"""
