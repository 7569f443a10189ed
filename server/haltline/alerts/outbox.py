"""The outbox: an alert's row commits with the event that caused it, and is delivered from there at least once (P10).

Owns the tables alerts and deliveries: writes them in the causing transaction, for the episode that it belongs to, and runs
one courier per channel. Knows no channel's form and decides nothing about what deserves an alert.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import structlog

from haltline.alerts.backoff import Backoff
from haltline.alerts.courier import Courier, delivery_id
from haltline.alerts.episodes import Episode, Episodes, about
from haltline.alerts.escalation import ESCALATED_AT_ONCE, Escalation, due_us, step
from haltline.alerts.links import links
from haltline.alerts.model import STDERR, Alert, Balance, Delivery
from haltline.alerts.overview import Overview
from haltline.errors import NotFound
from haltline.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from haltline.alerts.model import Act, Channel
    from haltline.clock import Clock
    from haltline.policy.routes import Route, Routing
    from haltline.store.reader import Reader
    from haltline.store.writer import Tx, Writer

__all__ = ["QUIET_S", "Outbox", "Told"]

QUIET_S = 900.0
"""How long a repeat is only counted, where neither policy nor rule says otherwise."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """`alert_id` is None where it was counted alone; `episode` where it belongs to none."""

    alert_id: str | None
    episode: Episode | None


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
        quiet_s: float = QUIET_S,
        console_url: str = "",
        routing: Callable[[], Routing | None] = lambda: None,
    ) -> None:
        self.episodes = Episodes()
        self.overview = Overview(reader, clock)
        self.quiet_s = quiet_s
        self._console_url = console_url
        self._routing = routing
        self._escalation = Escalation(self.escalate, writer, reader, clock)
        self._redact = Redactor().text if redact is None else redact
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._recorded = anyio.Event()
        pace = Backoff() if backoff is None else backoff
        self._couriers = [Courier(one, writer, reader, clock, pace, self._tell_recorded) for one in channels]

    def enqueue(self, tx: Tx, event_seq: int, alert: Alert, *, quiet_s: float | None = None) -> Told:
        """Write an alert and one delivery per channel in the transaction of its cause, or count it in its episode.

        A repeat within the quiet period (`quiet_s`, else the outbox's own) is counted and not told. An alert that names
        who has it in hand is acknowledged by them at once.
        """
        alert = alert.fit(self._redact)
        routing = self._routing()
        route = None if routing is None else routing.first(alert.severity, alert.tier, alert.agent, alert.owner)
        if alert.act == "notice":
            return Told(self._write(tx, event_seq, alert, None, self._names(alert.act, route)), None)
        raised = self.episodes.raised(tx, alert, self._quiet_s(routing) if quiet_s is None else quiet_s)
        if not raised.tells:
            return Told(None, raised.episode)
        reached = None if routing is None else routing.route(raised.episode.route)
        told = self._linked(replace(alert, **_of_episode(raised.episode)), raised.episode.public_id)
        alert_id = self._write(tx, event_seq, told, raised.episode, self._names(alert.act, route, reached))
        episode = raised.episode
        if alert.acted_by is not None and episode.state == "open":
            episode = self.episodes.acknowledge(tx, episode, alert.acted_by)
        elif raised.fresh and route is not None:
            self.episodes.routed(tx, episode, route.name, due_us(tx, route), again=False)
        return Told(alert_id, episode)

    def escalate(self, tx: Tx) -> int:
        """Tell the next route of what nobody acknowledged in time; returns how many episodes went on."""
        due = self.episodes.due(tx, ESCALATED_AT_ONCE)
        for episode in due:
            routing = self._routing()
            before = None if routing is None else routing.route(episode.route)
            route = None if routing is None or before is None else routing.route(before.then)
            row = tx.execute(
                "SELECT event_seq, body FROM alerts WHERE episode_id = ? ORDER BY id DESC LIMIT 1", (episode.id,)
            ).fetchone()
            alert = replace(Alert.from_stored(row[1]), step=step(tx, episode, route), **_of_episode(episode))
            self._write(tx, row[0], alert, episode, self._names("trigger", route))
            name = None if route is None else route.name
            self.episodes.routed(tx, episode, name, None if route is None else due_us(tx, route), again=True)
        return len(due)

    def _quiet_s(self, routing: Routing | None) -> float:
        return self.quiet_s if routing is None or routing.quiet_s is None else routing.quiet_s

    def acknowledge(self, tx: Tx, event_seq: int, episode: Episode, by: str) -> Episode:
        """Somebody has it, and whoever was told is told that. Raises Conflict where it is past that."""
        after = self.episodes.acknowledge(tx, episode, by)
        self._tell_again(tx, event_seq, after, "acknowledge", by)
        return after

    def resolve(self, tx: Tx, event_seq: int, episodes: Iterable[Episode], by: str) -> list[str]:
        """These are over, everywhere where they were told. Returns their ids."""
        done = [self.episodes.resolve(tx, one, by) for one in episodes]
        for one in done:
            self._tell_again(tx, event_seq, one, "resolve", by)
        return [one.public_id for one in done]

    def retry(self, tx: Tx, public_id: str, *, of_episode: bool) -> int:
        """From parked to pending, due now: of one message, or of all of an episode. Raises NotFound where there is none."""
        whose = "(SELECT id FROM episodes WHERE public_id = ?)"
        which = f"episode_id = {whose}" if of_episode else "public_id = ?"
        names = orjson.dumps([one.channel.name for one in self._couriers]).decode()
        cursor = tx.execute(
            "UPDATE deliveries SET state = 'pending', ended_us = NULL, next_us = ? WHERE state = 'parked'"  # noqa: S608 - constants
            f" AND alert_id IN (SELECT id FROM alerts WHERE {which})"
            " AND channel IN (SELECT value FROM json_each(?))",
            (tx.now_us, public_id, names),
        )
        if not cursor.rowcount:
            raise NotFound(
                f"nothing of {public_id} was given up by a channel that is configured; see haltline alerts list"
            )
        tx.after_commit(self.wake)
        return cursor.rowcount

    def _tell_again(self, tx: Tx, event_seq: int, episode: Episode, act: Act, by: str) -> None:
        """To the channels that were told of the episode, as far as they take this."""
        row = tx.execute(
            "SELECT body FROM alerts WHERE episode_id = ? ORDER BY id DESC LIMIT 1", (episode.id,)
        ).fetchone()
        if row is None:
            return
        told = {
            name
            for (name,) in tx.execute(
                "SELECT DISTINCT d.channel FROM deliveries d JOIN alerts a ON a.id = d.alert_id WHERE a.episode_id = ?",
                (episode.id,),
            )
        }
        alert = replace(Alert.from_stored(row[0]), act=act, acted_by=by, step=None, **_of_episode(episode))
        self._write(tx, event_seq, alert, episode, [name for name in self._names(act) if name in told])

    def _names(self, act: Act, *routes: Route | None) -> list[str]:
        """The channels of these routes that take such a message, and standard error; all where no route leads anywhere.

        That a route names none that is still there must not make an alert go nowhere.
        """
        able = [one.channel.name for one in self._couriers if act in one.channel.acts]
        there = {one.channel.name for one in self._couriers}
        wanted = {name for route in routes if route is not None for name in route.channels} & there
        return able if not wanted else [name for name in able if name == STDERR or name in wanted]

    def _linked(self, alert: Alert, episode: str) -> Alert:
        """With what to type to say that one has it, and where to look."""
        commands = alert.commands if alert.acted_by else (*alert.commands, f"haltline alerts ack {episode}")
        return replace(alert, commands=commands, links=links(self._console_url, alert, episode))

    def _write(self, tx: Tx, event_seq: int, alert: Alert, episode: Episode | None, channels: Sequence[str]) -> str:
        public_id = f"alt_{secrets.token_hex(12)}"
        cursor = tx.execute(
            "INSERT INTO alerts (public_id, event_seq, at_us, kind, agent_id, session_id, body, episode_id)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (
                public_id,
                event_seq,
                tx.now_us,
                alert.kind,
                alert.agent_id,
                alert.session,
                alert.stored(),
                None if episode is None else episode.id,
            ),
        )
        lane = about(alert) if episode is None else episode.public_id
        for name in channels:
            tx.execute(
                "INSERT INTO deliveries (alert_id, channel, lane, next_us) VALUES (?,?,?,?)",
                (cursor.lastrowid, name, lane, tx.now_us),
            )
        tx.after_commit(self.wake)
        return public_id

    async def try_out(self, channel: str) -> float:
        """Send one marked alert to a channel, beside everything that waits for it; returns how long it took, in seconds.

        Raises NotFound where there is none of this name, `Undelivered` where it was not taken.
        """
        courier = next((one for one in self._couriers if one.channel.name == channel), None)
        if courier is None:
            names = ", ".join(one.channel.name for one in self._couriers)
            raise NotFound(f"there is no alert channel {channel!r}; there are: {names}")
        now_us = self._clock.now_us()
        public_id = f"alt_{secrets.token_hex(12)}"
        sent = Delivery(delivery_id(public_id, channel), public_id, 1, now_us, now_us, _trial(self._console_url))
        begun_s = anyio.current_time()
        await courier.deliver(sent)
        return anyio.current_time() - begun_s

    def wake(self) -> None:
        """Let every courier look at its rows now. Call on the event loop."""
        self._escalation.wake()
        for courier in self._couriers:
            courier.wake()

    async def run(self) -> None:
        """Deliver until cancelled; what is on its way then is sent again by the next run."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._park_orphans)
            tasks.start_soon(self._escalation.run)
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
        """What waits and since when, in all and by channel; see `Overview.backlog`."""
        return await self.overview.backlog()

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


def _trial(console_url: str) -> Alert:
    """Nobody can take it for a real one, and it shows what a real one would."""
    code, text = "alerts.test", "a test of this channel, asked for by an operator; nothing happened and nobody need act"
    balance = Balance("task", "0.50 USD", "0.47 USD", "0.00 USD", "0.03 USD")
    trial = Alert(
        "alert.tested", code, text, agent="test-agent", severity="info", balances=(balance,), by="haltline", test=True
    )
    return replace(trial, links=links(console_url, trial, "test"))


def _of_episode(episode: Episode) -> dict[str, Any]:
    """What a message says of its episode."""
    return {"episode": episode.public_id, "count": episode.count, "opened_us": episode.opened_us}


_DUE_BY = """
    SELECT count(*) AS due FROM deliveries
    WHERE next_us <= ? AND id IN (SELECT min(id) FROM deliveries WHERE state = 'pending' GROUP BY channel, lane)
"""
_PARK_ORPHANS = """
    UPDATE deliveries SET state = 'parked', last_error = 'no channel of this name is configured any more', ended_us = ?
    WHERE state = 'pending' AND channel NOT IN (SELECT value FROM json_each(?))
"""
