"""Brings waiting alerts to one channel: in order within a lane, lanes beside each other, retried until taken or parked.

All state is in the rows of `deliveries`; what is in memory is only what is on its way right now, so that a process killed
anywhere sends an alert again rather than losing it. Knows no other channel: a slow one delays nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog

from haltline.alerts.model import Alert, Delivery, Later, Never, Undelivered

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from haltline.alerts.backoff import Backoff
    from haltline.alerts.model import Channel
    from haltline.clock import Clock
    from haltline.store.reader import Reader
    from haltline.store.writer import Tx, Writer

__all__ = ["Courier", "delivery_id"]

_AT_ONCE = 8
"""Lanes served at the same time, so that one agent's slow delivery does not hold up another's."""
AWAY_AFTER = 3
"""So many failures of one delivery, one after the other, are no fault of that alert alone."""
ALL_DUE_EVERY_US = 1_000_000
_SEND_GUARD_S = 120.0
"""Above every channel's own timeout: against one that forgets to have one."""
log = structlog.get_logger(__name__)


def delivery_id(alert_id: str, channel: str) -> str:
    return f"{alert_id}.{channel}"


class Courier:
    """`ended` is called whenever an attempt was recorded."""

    def __init__(
        self,
        channel: Channel,
        writer: Writer,
        reader: Reader,
        clock: Clock,
        backoff: Backoff,
        ended: Callable[[], None],
    ) -> None:
        self.channel = channel
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._backoff = backoff
        self._ended = ended
        self._not_before_us = 0
        """Until when the receiver asked to be left alone."""
        self._all_due_us = 0
        """When all that waited was last made due."""
        self._on_the_way: set[int] = set()
        self._just_ended: set[int] = set()
        """Attempts that ended while the rows were being read: what was read says of them what is no longer so."""
        self._bell = anyio.Event()

    def wake(self) -> None:
        """Look at the rows again, now."""
        self._bell.set()
        self._bell = anyio.Event()

    async def run(self) -> None:
        """Serve the channel until cancelled."""
        waited_until_us = 0
        async with anyio.create_task_group() as tasks:
            while True:
                bell = self._bell
                next_us = await self._start_due(tasks, max(self._clock.now_us(), waited_until_us))
                waited_until_us = await self._rest(bell, next_us)

    async def _rest(self, bell: anyio.Event, next_us: int | None) -> int:
        """Until woken or until then. Returns the time that was waited out: our clock may stand still (R9), waiting does not."""
        if next_us is None:
            await bell.wait()
            return 0
        with anyio.move_on_after(max(0.0, (next_us - self._clock.now_us()) / 1_000_000)):
            await bell.wait()
            return 0
        return next_us

    async def _start_due(self, tasks: TaskGroup, now_us: int) -> int | None:
        """Start what is due and has a place; returns when to look again (None: when woken)."""
        self._just_ended.clear()
        try:
            heads = await self._reader.rows(_HEADS, (self.channel.name, 2 * _AT_ONCE))
        except Exception as error:  # noqa: BLE001  # the boundary: a store that fails stops no courier, the rows stay
            log.warning("alerts_not_read", channel=self.channel.name, error=f"{type(error).__name__}: {error}")
            return now_us + int(self._backoff.store_pause_s * 1_000_000)
        for row in heads:
            if row["id"] in self._on_the_way or row["id"] in self._just_ended:
                continue
            if row["next_us"] > now_us:
                return int(row["next_us"])
            if len(self._on_the_way) >= _AT_ONCE:
                return None
            self._on_the_way.add(row["id"])
            tasks.start_soon(self._attempt, row)
        return None

    async def _attempt(self, row: sqlite3.Row) -> None:
        try:
            outcome = await self._send(row)
            await self._record(row, outcome)
        finally:
            self._on_the_way.discard(row["id"])
            self._just_ended.add(row["id"])
            self.wake()
            self._ended()

    async def _send(self, row: sqlite3.Row) -> Undelivered | None:
        try:
            await self.deliver(
                Delivery(
                    id=delivery_id(row["public_id"], self.channel.name),
                    alert_id=row["public_id"],
                    attempt=row["attempts"] + 1,
                    at_us=row["at_us"],
                    attempted_us=self._clock.now_us(),
                    alert=Alert.from_stored(row["body"]),
                )
            )
        except Undelivered as outcome:
            return outcome
        return None

    async def deliver(self, delivery: Delivery) -> None:
        """One attempt, whatever the rows say. Raises `Undelivered`."""
        try:
            with anyio.fail_after(_SEND_GUARD_S):
                await self.channel.send(delivery)
        except Undelivered:
            raise
        except Exception as error:  # noqa: BLE001  # the boundary: a fault in a channel must not lose the alert
            fault = type(error).__name__
            log.error("alert_channel_failed", channel=self.channel.name, error=fault)  # its text could hold an address
            raise Later(f"the channel failed ({fault})") from None

    async def _record(self, row: sqlite3.Row, outcome: Undelivered | None) -> None:
        """Until it is written: an attempt that is not recorded would be repeated at once, again and again."""
        while True:
            try:
                await self._writer.run(lambda tx: self._end(tx, row, outcome))
            except Exception as error:  # noqa: BLE001  # the boundary: the lane waits until the store works again
                log.warning("alert_not_recorded", channel=self.channel.name, error=f"{type(error).__name__}: {error}")
                await anyio.sleep(self._backoff.store_pause_s)
            else:
                self._tell(row, outcome)
                return

    def _end(self, tx: Tx, row: sqlite3.Row, outcome: Undelivered | None) -> None:
        """From pending to delivered or parked, or to pending at a later time; no other transition exists."""
        attempts, next_us, ended_us = row["attempts"] + 1, row["next_us"], None
        if isinstance(outcome, Later):
            state = "pending"
            next_us = tx.now_us + int(self._backoff.delay_s(attempts, outcome.after_s) * 1_000_000)
            if outcome.after_s is not None:
                self._not_before_us = max(self._not_before_us, next_us)
        else:
            state = "delivered" if outcome is None else "parked"
            ended_us = tx.now_us
        tx.execute(
            "UPDATE deliveries SET state = ?, attempts = ?, next_us = ?, last_error = ?, ended_us = ?"
            " WHERE id = ? AND state = 'pending'",
            (state, attempts, next_us, None if outcome is None else outcome.why, ended_us, row["id"]),
        )
        if outcome is None and row["attempts"] >= AWAY_AFTER:
            self._is_back(tx)

    def _is_back(self, tx: Tx) -> None:
        """The channel was away and takes alerts again: what waits for it need not wait out its own back-off.

        Not before the receiver asked for, and what is to wait for longer than a back-off does waits for that.
        """
        if tx.now_us - self._all_due_us < ALL_DUE_EVERY_US:
            return
        self._all_due_us = tx.now_us
        due_us = max(tx.now_us, self._not_before_us)
        tx.execute(_ALL_DUE, (due_us, due_us, tx.now_us + int(self._backoff.longest_s * 1_000_000), self.channel.name))

    def _tell(self, row: sqlite3.Row, outcome: Undelivered | None) -> None:
        said = log.bind(channel=self.channel.name, alert=row["public_id"], attempt=row["attempts"] + 1)
        if isinstance(outcome, Never):
            said.error("alert_parked", why=outcome.why)
        elif outcome is not None:
            said.warning("alert_not_delivered_yet", why=outcome.why)


_HEADS = """
    SELECT d.id, d.attempts, d.next_us, a.public_id, a.at_us, a.body
    FROM deliveries d JOIN alerts a ON a.id = d.alert_id
    WHERE d.id IN (SELECT min(id) FROM deliveries WHERE channel = ? AND state = 'pending' GROUP BY lane)
    ORDER BY d.next_us, d.id LIMIT ?
"""
_ALL_DUE = """
    UPDATE deliveries SET next_us = ? WHERE next_us > ? AND next_us <= ?
    AND id IN (SELECT min(id) FROM deliveries WHERE channel = ? AND state = 'pending' GROUP BY lane)
"""
