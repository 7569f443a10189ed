"""A broker's parts around a real SQLite file and a real policy, with scripted upstreams: whole calls without a process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio

from haltline.alerts.outbox import Outbox
from haltline.audit import Audit
from haltline.broker import Broker
from haltline.calls.admission import Doorman
from haltline.calls.recovery import Unrecorded, record_late
from haltline.calls.replays import Replays
from haltline.calls.rounds import Rounds
from haltline.calls.running import Running, RunningCalls
from haltline.clock import Clock
from haltline.halts import Halts
from haltline.health import Health
from haltline.identity import Identity
from haltline.ledger import Ledger
from haltline.parts import Parts
from haltline.pins.table import Pins
from haltline.policy.policy import ToolDefaults
from haltline.policy_source import PolicySource
from haltline.quarantine import Quarantine
from haltline.redact import Redactor
from haltline.signals.table import Signals
from haltline.store.database import connect_writer
from haltline.store.reader import Reader
from haltline.store.writer import Tx, Writer
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.model import NOBODY
from support.scripted import ScriptedUpstream

__all__ = ["POLICY", "Request", "SetClock", "StepClock", "World", "send", "world"]

POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  experimental:
    tools: ["payments__*"]
    caps: {task: "0.50", day: "5.00"}
    halts_on: {single_charge: "1.00"}
  roomy:
    tools: ["*"]
    caps: {task: "1000.00", day: "10000.00"}
tools:
  payments__charge: {price: "0.05"}
  payments__refund: {price: "0.05", charge_on_error: false}
  payments__look: {price: "0.00", read_only: true}
  payments__slow: {price: "0.10"}
"""
NOON_US = 1_790_000_000_000_000
"""In September 2026."""


class SetClock(Clock):
    """Stands still until it is moved."""

    def __init__(self, now_us: int = NOON_US) -> None:
        self.at_us = now_us
        super().__init__(lambda: self.at_us)

    def forward(self, seconds: float) -> None:
        self.at_us += int(seconds * 1_000_000)


class StepClock(SetClock):
    """One whose wall clock can be set, while time passes as `forward` says."""

    def __init__(self, now_us: int = NOON_US) -> None:
        self.at_us = now_us
        self.wrong_us = 0
        Clock.__init__(self, lambda: self.at_us + self.wrong_us, lambda: self.at_us)

    def step(self, seconds: float) -> None:
        self.wrong_us += int(seconds * 1_000_000)


class Request:
    """One call as a face hands it over; `delivered` is what reached the caller."""

    def __init__(self, token: str | None, tool: str, arguments: dict[str, Any] | None = None, *, key: str = "") -> None:
        self.token = token
        self.session_key = key
        self.source = "127.0.0.1"
        self.tool = tool
        self.arguments = arguments or {}
        self.method = "tools/call"
        self.peer = NOBODY
        self.target: Any = None
        self.params: dict[str, Any] = {"name": tool, "arguments": self.arguments}
        self.delivered: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []
        self.running: Running | None = None
        self.slow_reader: anyio.Event | None = None

    def attach(self, running: Running) -> None:
        self.running = running

    def notify(self, message: dict[str, Any]) -> None:
        if self.running is not None:
            self.running.outputs += 1
        self.notices.append(message)

    async def drain(self) -> None:
        if self.slow_reader is not None:
            await self.slow_reader.wait()

    async def respond(self, answer: dict[str, Any]) -> None:
        self.delivered.append(answer)


class World:
    """Everything a test needs to open sessions, call tools and look at the records."""

    def __init__(
        self, parts: Parts, broker: Broker, doorman: Doorman, clock: SetClock, upstreams: Sequence[ScriptedUpstream]
    ) -> None:
        self.parts = parts
        self.broker = broker
        self.doorman = doorman
        self.clock = clock
        self.upstream = upstreams[0]
        self.unrecorded = broker._unrecorded

    async def run(self, unit: Callable[[Tx], Any]) -> Any:
        return await self.parts.writer.run(unit)

    async def agent(self, handle: str = "booking-7", tier: str = "experimental", **more: Any) -> Any:
        return await self.run(lambda tx: self.parts.identity.add_agent(tx, handle=handle, tier=tier, **more))

    async def session(self, agent: Any, *, task: str = "a task", lasts_s: float = 3600, **more: Any) -> tuple[str, str]:
        """(session id, token)"""

        def open_it(tx: Tx) -> tuple[str, str]:
            session = self.parts.identity.open_session(
                tx, agent, task=task, expires_us=tx.now_us + int(lasts_s * 1e6), opened_by="test", **more
            )
            return session.id, self.parts.identity.issue_session_credential(tx, session)

        return await self.run(open_it)

    async def call(
        self, token: str | None, tool: str = "payments__charge", arguments: dict[str, Any] | None = None, **more: Any
    ) -> Any:
        """What the caller got: the delivered answer, else what the broker returned."""
        request = Request(token, tool, arguments, **more)
        returned = await self.send(request)
        return request.delivered[0] if request.delivered else returned

    async def send(self, request: Request) -> Any:
        return await send(self.parts, self.broker, request)

    async def events(self, kind: str = "") -> list[dict[str, Any]]:
        rows = await self.parts.reader.rows("SELECT body FROM events WHERE kind LIKE ? ORDER BY seq", (f"{kind}%",))
        return [json.loads(row["body"]) for row in rows]

    async def holds(self) -> list[tuple[Any, ...]]:
        """(tool, state, amount, charged) in the order of admission."""
        rows = await self.parts.reader.rows(
            "SELECT tool, state, amount_micros, charged_micros FROM holds ORDER BY rowid"
        )
        return [tuple(row) for row in rows]

    async def halts(self) -> list[Any]:
        return await self.run(self.parts.halts.all_set)


async def send(parts: Parts, broker: Broker, request: Request) -> Any:
    """As the gateway does: the target from the catalogue, its own name in the params."""
    request.target = parts.catalog.tool(request.tool)
    if request.target is not None:
        request.params = {**request.params, "name": request.target.own_name}
    return await broker.call(request)


@asynccontextmanager
async def world(
    folder: Path,
    *,
    policy: str = POLICY,
    upstreams: Sequence[ScriptedUpstream] = (),
    clock: SetClock | None = None,
    connect: Callable[[Path], Any] = connect_writer,
    grace_s: float = 900,
    defaults: Mapping[str, ToolDefaults] = MappingProxyType({}),
) -> AsyncIterator[World]:
    """The parts on `folder`, which may be one of an earlier world: that is a restart."""
    policies = folder / "policies"
    policies.mkdir(parents=True, exist_ok=True)
    (policies / "policy.yaml").write_text(policy)
    source = PolicySource(policies, defaults)
    source.reload()
    clock = clock or SetClock()
    upstreams = upstreams or (ScriptedUpstream(),)
    audit = Audit(Redactor())
    ledger = Ledger(lambda now_us: source.current.day_bounds(now_us) if source.current else (0, now_us + 1))
    writer = Writer(lambda: connect(folder / "haltline.db"), clock.now_us)
    signals = Signals(lambda: source.zone, bytes(32))
    audit.listener = signals.heard
    pins = Pins()
    writer.start()
    reader = Reader(folder / "haltline.db")
    catalog = Catalog(upstreams)
    parts = Parts(
        clock=clock, writer=writer, reader=reader, identity=Identity(bytes(32)), halts=Halts(), ledger=ledger, audit=audit,
        outbox=Outbox([], writer, reader, clock), catalog=catalog, calls=RunningCalls(), rounds=Rounds(bytes(32)),
        replays=Replays(bytes(32)), policies=source, pins=pins, signals=signals,
    )  # fmt: skip
    for remembering in (parts.identity, parts.halts, parts.ledger, parts.audit, parts.pins, parts.signals):
        writer.on_lost(remembering.forget)
    catalog.reviewed_by(Quarantine(parts).review)
    doorman = Doorman(parts.identity, parts.halts, audit, grace_s)
    unrecorded = Unrecorded(writer)
    health = Health(clock, writer, source, unrecorded, parts.halts, started_us=clock.now_us())
    broker = Broker(parts, doorman, unrecorded, health)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(catalog.run)
        tasks.start_soon(record_late, parts)
        await catalog.tried()
        try:
            yield World(parts, broker, doorman, clock, upstreams)
        finally:
            tasks.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        await reader.aclose()
        await writer.aclose()
