"""An operators' desk around a real SQLite file, a real policy and the real broker; only the upstream is a scripted one.

Acts go through the control face as an MCP client's would, and each result is held against the client's own shapes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import jsonschema_rs

from haltline.alerts.model import Alert
from haltline.alerts.outbox import Outbox
from haltline.audit import Audit, Event, Kind
from haltline.broker import Broker
from haltline.calls.admission import Doorman
from haltline.calls.attempts import Attempts
from haltline.calls.recovery import Unrecorded
from haltline.calls.replays import Replays
from haltline.calls.rounds import Rounds
from haltline.calls.running import RunningCalls
from haltline.clock import Clock
from haltline.control import Control
from haltline.control_mcp import ControlFace
from haltline.control_tools import CONTROL_TOOLS
from haltline.drill.runs import Drills
from haltline.halts import Halts
from haltline.health import Health
from haltline.identity import Identity
from haltline.ledger import Hold, Ledger
from haltline.parts import Parts
from haltline.pins.table import Pins
from haltline.policy_source import PolicySource
from haltline.quarantine import Quarantine
from haltline.redact import Redactor
from haltline.shapes import schema_of
from haltline.signals.table import Signals
from haltline.store.database import connect_writer
from haltline.store.reader import Reader
from haltline.store.writer import Tx, Writer
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.drill import DrillUpstream
from haltline.upstreams.model import Caller, UpstreamError
from haltline.wire.messages import Unauthorized
from support.post_office import ListChannel
from support.scripted import ScriptedUpstream
from support.world import Request, send

__all__ = ["NOON_US", "POLICY", "Desk", "Exchange", "Failed", "desk"]

POLICY = """
version: "1"
currency: USD
time_zone: UTC
scopes:
  reading: {tools: ["payments__look"]}
tiers:
  experimental:
    tools: ["payments__*"]
    caps: {per_call: "0.40", task: "0.50", hour: "2.00", day: "5.00", calls: 100, rate: 60/minute, concurrent: 10}
    session_expires: 8h
  roomy:
    tools: ["*"]
    caps: {task: "1000.00", day: "10000.00"}
tools:
  payments__charge: {price: "0.05"}
  payments__refund: {price: "0.05"}
  payments__look: {price: "0", read_only: true}
  payments__slow: {price: "0.10"}
"""
NOON_US = 1_790_000_000_000_000
"""In September 2026."""
_SHAPES = {tool.name: jsonschema_rs.validator_for(schema_of(tool.result)) for tool in CONTROL_TOOLS}
_PROMISED = {tool.name: jsonschema_rs.validator_for(tool.definition()["outputSchema"]) for tool in CONTROL_TOOLS}


class Failed(Exception):
    """An answer with isError."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Upstream(ScriptedUpstream):
    """Says when a teardown starts, can hold it, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.forget_started = anyio.Event()
        self.forget_may_end: anyio.Event | None = None

    async def list_tools(self) -> list[dict[str, Any]]:
        if self.away:
            raise UpstreamError("upstream.unreachable", "payments cannot be reached", "connection refused")
        return self.tools

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        await super().forget(caller, session_only=session_only)
        self.forget_started.set()
        if self.forget_may_end is not None:
            await self.forget_may_end.wait()


class SetClock(Clock):
    """Stands still until it is moved."""

    def __init__(self, now_us: int) -> None:
        self.at_us = now_us
        super().__init__(lambda: self.at_us)

    def forward(self, seconds: float) -> None:
        self.at_us += int(seconds * 1_000_000)


class Exchange:
    """One MCP request as the endpoint hands it to a face."""

    def __init__(self, method: str, params: dict[str, Any], token: str | None, *, modern: bool = True) -> None:
        self.id = 1
        self.method = method
        self.params = params
        self.token = token
        self.modern = modern
        self.source = "127.0.0.1"
        self.session_key = ""


class Desk:
    """`ask` acts as the person; the other credentials are beside it."""

    def __init__(self, parts: Parts, face: ControlFace, broker: Broker, attempts: Attempts, clock: SetClock) -> None:
        self.parts = parts
        self.face = face
        self.broker = broker
        self.attempts = attempts
        self.clock = clock
        self.upstream: Upstream = parts.catalog.upstream("payments")  # type: ignore[assignment]
        self.person = self.local = ""

    async def answer(self, tool: str, arguments: dict[str, Any], token: str | None, *, modern: bool = True) -> Any:
        return await self.face.handle(
            Exchange("tools/call", {"name": tool, "arguments": arguments}, token, modern=modern)  # type: ignore[arg-type]
        )

    async def ask(self, tool: str, /, token: str | None = None, **arguments: Any) -> Any:
        """The structured result. Raises Failed for an error, and Failed with a `credential.*` code for a 401."""
        answer = await self.answer(tool, arguments, self.person if token is None else token)
        if isinstance(answer, Unauthorized):
            raise Failed(answer.code, answer.text)
        assert "result" in answer, answer
        content = answer["result"]["structuredContent"]
        assert json.loads(answer["result"]["content"][0]["text"]) == content
        _PROMISED[tool].validate(content)
        if answer["result"]["isError"]:
            raise Failed(content["error"]["code"], content["error"]["message"])
        _SHAPES[tool].validate(content)
        return content

    async def run(self, unit: Callable[[Tx], Any]) -> Any:
        return await self.parts.writer.run(unit)

    async def agent(self, handle: str = "booking-7", tier: str = "experimental", **more: Any) -> Any:
        return await self.ask("add_agent", handle=handle, tier=tier, **more)

    async def session(self, agent: str = "booking-7", task: str = "a task", **more: Any) -> Any:
        return await self.ask("open_session", agent=agent, task=task, **more)

    async def call(self, token: str, tool: str = "payments__charge", **arguments: Any) -> Any:
        """What the agent got."""
        request = Request(token, tool, arguments)
        returned = await send(self.parts, self.broker, request)
        return request.delivered[0] if request.delivered else returned

    async def in_doubt(self, session: str, amount: int = 300_000, call: str = "call_doubt") -> str:
        """A call of this session whose outcome nobody knows."""

        def unit(tx: Tx) -> None:
            agent_id = self.parts.identity.session(tx, session).agent_id
            self.parts.ledger.hold(
                tx,
                Hold(
                    call, agent_id, session, "payments__charge", "payments", amount, None, "held",
                    charge_on_error=True, read_only=False, admitted_us=tx.now_us, doubt_us=None, charges_at_us=None, why=None,
                ),
            )  # fmt: skip
            self.parts.ledger.doubt(tx, call, "the connection broke", tx.now_us + 86_400_000_000)

        await self.run(unit)
        return call

    async def episode(self, about: str = "tool:odd") -> str:
        """A live one that no halt stands behind; its id."""
        alert = Alert("tool.changed", "upstream.definition_changed", "it changed", tool=about.removeprefix("tool:"))

        def unit(tx: Tx) -> str:
            seq = self.parts.audit.append(tx, Event(Kind.TOOL_CHANGED, "broker"))
            told = self.parts.outbox.enqueue(tx, seq, alert)
            assert told.episode is not None
            return told.episode.public_id

        return await self.run(unit)

    async def given_up(self) -> str:
        """An episode whose one delivery was given up; its id."""
        episode = await self.episode("tool:parked")
        await self.run(lambda tx: tx.execute("UPDATE deliveries SET state = 'parked', ended_us = 1"))
        return episode

    async def events(self, kind: str = "") -> list[dict[str, Any]]:
        rows = await self.parts.reader.rows("SELECT body FROM events WHERE kind LIKE ? ORDER BY seq", (f"{kind}%",))
        return [json.loads(row["body"]) for row in rows]

    async def everything_stored(self) -> str:
        """Every text and blob of every table, for what must not be in any."""
        tables = await self.parts.reader.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        found = []
        for table in tables:
            for row in await self.parts.reader.rows(f"SELECT * FROM {table['name']}"):
                found += [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in row]
        return "\n".join(found)


@asynccontextmanager
async def desk(
    folder: Path, *, policy: str = POLICY, clock: SetClock | None = None, tokens: tuple[str, str] | None = None
) -> AsyncIterator[Desk]:
    """The parts on `folder`. With the `tokens` of an earlier desk it is the same broker, started again."""
    policies = folder / "policies"
    policies.mkdir(parents=True, exist_ok=True)
    (policies / "policy.yaml").write_text(policy)
    source = PolicySource(policies, {})
    source.reload()
    clock = clock or SetClock(NOON_US)
    audit = Audit(Redactor())
    ledger = Ledger(lambda now_us: source.current.day_bounds(now_us) if source.current else (0, now_us + 1))
    writer = Writer(lambda: connect_writer(folder / "haltline.db"), clock.now_us)
    signals = Signals(lambda: source.zone, bytes(32))
    audit.listener = signals.heard
    pins = Pins()
    writer.start()
    reader = Reader(folder / "haltline.db")
    parts = Parts(
        clock=clock, writer=writer, reader=reader, identity=Identity(bytes(32)), halts=Halts(), ledger=ledger, audit=audit,
        outbox=Outbox([ListChannel()], writer, reader, clock), catalog=Catalog([Upstream()]), calls=RunningCalls(), rounds=Rounds(bytes(32)),
        replays=Replays(bytes(32)), policies=source, pins=pins, signals=signals,
    )  # fmt: skip
    for remembering in (parts.identity, parts.halts, parts.ledger, parts.audit, parts.pins, parts.signals):
        writer.on_lost(remembering.forget)
    parts.catalog.reviewed_by(Quarantine(parts).review)
    await parts.catalog.refresh("payments")
    attempts, unrecorded = Attempts(writer, audit), Unrecorded(writer)
    health = Health(clock, writer, source, unrecorded, parts.halts, started_us=clock.now_us())
    await writer.run(parts.halts.known)
    broker = Broker(parts, Doorman(parts.identity, parts.halts, audit, 900.0), unrecorded, health)

    async def reload_policy(by: str) -> bool:
        return source.reload()

    drills = Drills(parts, health, DrillUpstream())  # with no listener of agents, so that none can run
    control = Control(parts, health, version="0.0.0", reload_policy=reload_policy, run_drill=drills.run)
    found = Desk(parts, ControlFace(control, attempts, "0.0.0"), broker, attempts, clock)
    if tokens is None:
        found.person = await writer.run(lambda tx: parts.identity.add_operator(tx, "anna", "person"))
        found.local = await writer.run(lambda tx: parts.identity.add_operator(tx, "local", "local"))
    else:
        found.person, found.local = tokens
    try:
        yield found
    finally:
        with anyio.CancelScope(shield=True):
            await reader.aclose()
            await writer.aclose()
