"""A real store with outboxes on it, a clock that is moved by hand, and channels written for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from haltline.alerts.backoff import Backoff
from haltline.alerts.model import Alert, Balance, Channel, Delivery
from haltline.alerts.outbox import Outbox
from haltline.audit import Audit, Event, Kind
from haltline.clock import Clock
from haltline.redact import Redactor
from haltline.store.database import connect_writer
from haltline.store.reader import Reader
from haltline.store.writer import Tx, Writer

__all__ = ["START_US", "ListChannel", "PostOffice", "an_alert", "post_office"]

START_US = 1_800_000_000_000_000
FIRST_RETRY_S = 100.0
"""Long against everything real: a retry happens only where a test moves the clock."""


def an_alert(agent: str = "booking-7", number: int = 1, **other: object) -> Alert:
    fields: dict[str, object] = {
        "kind": "session.halted",
        "code": "budget.task_exceeded",
        "text": f"task cap 0.50 USD, spent 0.47, this call 0.05 (number {number})",
        "agent": agent,
        "agent_id": f"agt_{agent}",
        "session": f"ses_{agent}",
        "task": "book the hotel",
        "by": "cap task",
        "threshold": "0.50 USD",
        "observed": "0.52 USD",
        "last_actions": tuple(f"14:02:0{i}Z payments__charge succeeded 0.05 USD" for i in range(5)),
        "balances": (
            Balance("day", "5.00 USD", "0.47 USD", "0.00 USD", "4.53 USD"),
            Balance("task", "0.50 USD", "0.47 USD", "0.00 USD", "0.03 USD"),
        ),
        "commands": (f"haltline resume ses_{agent} --reason '...'", f"haltline revoke {agent} --reason '...'"),
    }
    return Alert(**{**fields, **other})  # type: ignore[arg-type]


class ListChannel:
    """Takes everything, or fails as told: `fail` may raise `Later`, `Never` or anything."""

    kind = "list"
    acts = frozenset({"trigger", "acknowledge", "resolve", "notice"})

    def __init__(self, name: str = "list", fail: Callable[[Delivery], None] = lambda _: None) -> None:
        self.name = name
        self.taken: list[Delivery] = []
        self.tried: list[Delivery] = []
        self.fail = fail
        self._arrived = anyio.Event()

    async def send(self, delivery: Delivery) -> None:
        self.tried.append(delivery)
        self.fail(delivery)
        self.taken.append(delivery)
        self._arrived.set()
        self._arrived = anyio.Event()

    async def got(self, count: int) -> None:
        """Wait until it has taken so many."""
        with anyio.fail_after(20):
            while len(self.taken) < count:
                await self._arrived.wait()

    async def aclose(self) -> None: ...


class PostOffice:
    """One broker's store. Opening a second on the same file is what a restart after `kill -9` finds."""

    def __init__(self, file: Path, now_us: int = START_US) -> None:
        self.now_us = now_us
        self.clock = Clock(lambda: self.now_us)
        self.writer = Writer(lambda: connect_writer(file), self.clock.now_us)
        self.reader = Reader(file)
        self.audit = Audit(Redactor())
        self.writer.start()

    def outbox(self, *channels: Channel, quiet_s: float = 0, **more: Any) -> Outbox:
        """Every repeat is told, unless `quiet_s` says otherwise."""
        pace = Backoff(lambda: 0.9, FIRST_RETRY_S, 3000.0)
        return Outbox(channels, self.writer, self.reader, self.clock, backoff=pace, quiet_s=quiet_s, **more)

    def event(self, tx: Tx, kind: Kind = Kind.SESSION_HALTED, agent_id: str | None = None) -> int:
        return self.audit.append(tx, Event(kind, "broker", agent_id=agent_id))

    def halted(self, tx: Tx, outbox: Outbox, alert: Alert) -> str:
        """The event and its alert, in one unit; the alert's id, empty where it was counted alone."""
        return outbox.enqueue(tx, self.event(tx, agent_id=alert.agent_id), alert).alert_id or ""

    async def put(self, outbox: Outbox, *alerts: Alert) -> Sequence[str]:
        return [await self.writer.run(lambda tx, one=one: self.halted(tx, outbox, one)) for one in alerts]

    async def advance(self, outbox: Outbox, seconds: float) -> None:
        """Move the clock, let everything that is due then happen."""
        self.now_us += int(seconds * 1_000_000)
        outbox.wake()
        await self.done(outbox)

    @staticmethod
    async def done(outbox: Outbox) -> bool:
        """Wait until nothing more is due now."""
        with anyio.fail_after(30):
            return await outbox.flush(9)

    @asynccontextmanager
    async def running(self, outbox: Outbox) -> AsyncIterator[Outbox]:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outbox.run)
                yield outbox
                tasks.cancel_scope.cancel()
        finally:
            await outbox.aclose()

    async def aclose(self) -> None:
        await self.reader.aclose()
        await self.writer.aclose()


@asynccontextmanager
async def post_office(file: Path, now_us: int = START_US) -> AsyncIterator[PostOffice]:
    office = PostOffice(file, now_us)
    try:
        yield office
    finally:
        await office.aclose()
