"""The outbox: an alert's row commits with the event that caused it, and is delivered from there at least once (P10).

Owns the tables alerts and deliveries: writes them in the causing transaction, says what waits, and runs one courier per
channel. Knows no channel's form and decides nothing about what deserves an alert.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import structlog

from haltline.alerts.backoff import Backoff
from haltline.alerts.courier import Courier
from haltline.alerts.model import Alert
from haltline.clock import iso
from haltline.redact import Redactor

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from haltline.alerts.model import Channel
    from haltline.clock import Clock
    from haltline.store.reader import Reader
    from haltline.store.writer import Tx, Writer

__all__ = ["NEWEST_MAX", "Outbox"]

NEWEST_MAX = 1000
log = structlog.get_logger(__name__)


class Outbox:
    """`enqueue` in a transaction, `run` in the background. `redact` is what every text of an alert goes through."""

    def __init__(
        self,
        channels: Sequence[Channel],
        writer: Writer,
        reader: Reader,
        clock: Clock,
        *,
        redact: Callable[[str], str] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._redact = Redactor().text if redact is None else redact
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._recorded = anyio.Event()
        pace = Backoff() if backoff is None else backoff
        self._couriers = [Courier(one, writer, reader, clock, pace, self._tell_recorded) for one in channels]

    def enqueue(self, tx: Tx, event_seq: int, alert: Alert) -> str:
        """Write the alert and one delivery per channel in the transaction of its cause; returns the alert's id."""
        public_id = f"alt_{secrets.token_hex(12)}"
        alert = alert.fit(self._redact)
        cursor = tx.execute(
            "INSERT INTO alerts (public_id, event_seq, at_us, kind, agent_id, session_id, body) VALUES (?,?,?,?,?,?,?)",
            (public_id, event_seq, tx.now_us, alert.kind, alert.agent_id, alert.session, alert.stored()),
        )
        alert_row, lane = cursor.lastrowid, alert.agent_id or ""
        for courier in self._couriers:
            tx.execute(
                "INSERT INTO deliveries (alert_id, channel, lane, next_us) VALUES (?,?,?,?)",
                (alert_row, courier.channel.name, lane, tx.now_us),
            )
        tx.after_commit(self.wake)
        return public_id

    def wake(self) -> None:
        """Let every courier look at its rows now. Call on the event loop."""
        for courier in self._couriers:
            courier.wake()

    async def run(self) -> None:
        """Deliver until cancelled; what is on its way then is sent again by the next run."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._park_orphans)
            for courier in self._couriers:
                tasks.start_soon(courier.run)

    async def flush(self, timeout_s: float) -> bool:
        """While `run` runs: wait until nothing more can be delivered within this time. True when nothing waits at all."""
        deadline_us = self._clock.now_us() + int(timeout_s * 1_000_000)
        with anyio.move_on_after(timeout_s):
            while True:
                recorded = self._recorded
                row = await self._reader.row(_DUE_BY, (deadline_us,))
                if row is None or not row["due"]:
                    break
                await recorded.wait()
        return bool((await self.backlog())["backlog"] == 0)

    async def aclose(self) -> None:
        """Close the channels, after `run` ended."""
        for courier in self._couriers:
            await courier.channel.aclose()

    async def backlog(self) -> dict[str, Any]:
        """`{"backlog", "oldest_at", "failed"}`: alerts that a channel still has to take, and those that one never will."""
        waiting = await self._reader.row(_WAITING)
        parked = await self._reader.row(
            "SELECT count(DISTINCT alert_id) AS alerts FROM deliveries WHERE state = 'parked'"
        )
        assert waiting is not None
        assert parked is not None
        oldest_us = waiting["oldest_us"]
        return {
            "backlog": waiting["alerts"],
            "oldest_at": None if oldest_us is None else iso(oldest_us),
            "failed": parked["alerts"],
        }

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """The newest alerts first, each with how far its deliveries are; at most `NEWEST_MAX`."""
        rows = await self._reader.rows(
            "SELECT id, public_id, at_us, body FROM alerts ORDER BY id DESC LIMIT ?", (max(1, min(limit, NEWEST_MAX)),)
        )
        deliveries = await self._reader.rows(_DELIVERIES, (orjson.dumps([row["id"] for row in rows]).decode(),))
        of_alert: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
        for row in deliveries:
            of_alert[row["alert_id"]].append({key: row[key] for key in ("channel", "state", "attempts", "last_error")})
        return [_shown(row, of_alert[row["id"]]) for row in rows]

    def _tell_recorded(self) -> None:
        self._recorded.set()
        self._recorded = anyio.Event()

    async def _park_orphans(self) -> None:
        """What waits for a channel that is configured no more would wait for ever."""
        names = orjson.dumps([courier.channel.name for courier in self._couriers]).decode()
        try:
            parked = await self._writer.run(lambda tx: tx.execute(_PARK_ORPHANS, (tx.now_us, names)).rowcount)
        except Exception as error:  # noqa: BLE001  # the boundary: they stay in the backlog, where they are seen
            log.warning("alerts_not_parked", error=f"{type(error).__name__}: {error}")
            return
        if parked:
            log.error("alerts_parked", count=parked, why="their channel is configured no more")
            self._tell_recorded()


def _shown(row: sqlite3.Row, deliveries: list[dict[str, Any]]) -> dict[str, Any]:
    alert = Alert.from_stored(row["body"])
    return {
        "id": row["public_id"],
        "at": iso(row["at_us"]),
        "kind": alert.kind,
        "agent": alert.agent,
        "session": alert.session,
        "summary": alert.summary,
        "deliveries": deliveries,
    }


_DUE_BY = """
    SELECT count(*) AS due FROM deliveries
    WHERE next_us <= ? AND id IN (SELECT min(id) FROM deliveries WHERE state = 'pending' GROUP BY channel, lane)
"""
_WAITING = """
    SELECT count(DISTINCT d.alert_id) AS alerts, min(a.at_us) AS oldest_us
    FROM deliveries d JOIN alerts a ON a.id = d.alert_id WHERE d.state = 'pending'
"""
_DELIVERIES = """
    SELECT alert_id, channel, state, attempts, last_error FROM deliveries
    WHERE alert_id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
_PARK_ORPHANS = """
    UPDATE deliveries SET state = 'parked', last_error = 'no channel of this name is configured any more', ended_us = ?
    WHERE state = 'pending' AND channel NOT IN (SELECT value FROM json_each(?))
"""
