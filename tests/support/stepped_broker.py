"""A whole broker, driven one step at a time on one database: calls wait where a test wants them to, each commit can fail in
every way a commit can, and the process can die between any two of its transactions.

Only three things are stand-ins: units and queries run where they are asked for instead of in a thread, the upstream does what
it is told, and the clock is set by hand. What decides, holds, settles, recovers and resumes is the real thing.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from haltline.alerts.outbox import Outbox
from haltline.app import _newest_us
from haltline.audit import Audit
from haltline.broker import Broker
from haltline.calls.admission import Doorman
from haltline.calls.recovery import Unrecorded, charge_due, doubt_left_holds
from haltline.calls.refusals import META_KEY
from haltline.calls.replays import Replays
from haltline.calls.rounds import Rounds
from haltline.calls.running import RunningCalls
from haltline.clock import Clock
from haltline.control.desk import Desk
from haltline.control.desk import Request as Act
from haltline.control.money import Money
from haltline.control.resume import Resumes
from haltline.control.stops import Stops
from haltline.errors import StoreUnavailable
from haltline.halts import Halts
from haltline.health import Health
from haltline.identity import Identity, Unknown
from haltline.ledger import Ledger
from haltline.parts import Parts
from haltline.pins.table import Pins
from haltline.policy_source import PolicySource
from haltline.quarantine import Quarantine
from haltline.redact import Redactor
from haltline.signals.table import Signals
from haltline.store.database import connect_writer
from haltline.store.turn import Job, Turn
from haltline.store.unit import Tx
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.model import NotSent, OutcomeUnknown, UpstreamCall, UpstreamSpec
from haltline.wire.eras import IDEMPOTENCY_KEY
from support.records import announce
from support.world import Request

__all__ = ["Fault", "Killed", "Made", "SteppedBroker", "Template", "Times", "template"]

Fault = Literal["lost", "stood", "killed before", "killed after"]
"""What becomes of one commit: it fails; it fails but reached the disk; the process dies just before it, or just after."""


class Killed(BaseException):
    """The process is no more: nothing of it runs any further."""


_NOBODY_WAITS: Any = None


class InlineWriter:
    """The writer's promises (R15) without its thread. `fault` befalls the next unit alone."""

    failure = None

    def __init__(self, path: Path, now_us: Callable[[], int]) -> None:
        self.connection = connect_writer(path)
        self.connection.execute("PRAGMA synchronous = OFF")  # nothing here is about power
        self.fault: Fault | None = None
        self._now_us = now_us
        self._on_lost: list[Callable[[], None]] = []
        self._dead = False

    def on_lost(self, hook: Callable[[], None]) -> None:
        self._on_lost.append(hook)

    def die(self) -> None:
        self._dead = True

    async def run(self, unit: Callable[[Tx], Any], *, urgent: bool = False, from_memory: bool = False) -> Any:
        if self._dead:
            raise Killed
        fault, self.fault = self.fault, None
        job = Job(unit, _NOBODY_WAITS, from_memory=from_memory and not urgent)
        turn = Turn([job], self._now_us())
        turn.run_from_memory(1.0)
        self.connection.execute("BEGIN IMMEDIATE")
        turn.write(self.connection)
        self.connection.execute("ROLLBACK" if fault in {"lost", "killed before"} else "COMMIT")
        if fault in {"killed before", "killed after"}:
            self._dead = True
            raise Killed
        if fault is not None and job.error is None:
            for hook in self._on_lost:
                hook()
            raise StoreUnavailable("the disk went away")
        for step in job.after:
            step()
        return job.outcome()


class InlineReader:
    """Queries beside the calls, in the thread of the test."""

    def __init__(self, writer: InlineWriter) -> None:
        self._writer = writer

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        cursor = self._writer.connection.cursor()
        cursor.row_factory = sqlite3.Row  # type: ignore[assignment]
        return cursor.execute(sql, parameters).fetchall()

    async def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        found = await self.rows(sql, parameters)
        return found[0] if found else None


class Told:
    """The upstream: a call that was sent waits until it is told what to answer."""

    capabilities: dict[str, Any] = {}

    def __init__(self, tools: list[str]) -> None:
        self.spec = UpstreamSpec(name="shop", url="http://127.0.0.1:1/mcp")
        self._tools = [{"name": name, "description": f"{name} it", "inputSchema": {"type": "object"}} for name in tools]
        self.sent: list[int] = []
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def watch(self, changed: Callable[[], None]) -> None: ...

    async def list_tools(self) -> list[Any]:
        return self._tools

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        number, sends = call.params["_meta"]["test/told"]
        if not sends:
            raise NotSent("upstream.unreachable", "shop cannot be reached")
        call.before_send()
        self.sent.append(number)
        answer = self.waiting[number] = asyncio.get_running_loop().create_future()
        try:
            return await answer
        finally:
            self.waiting.pop(number, None)

    async def forget(self, caller: Any, *, session_only: bool) -> None: ...

    async def aclose(self) -> None: ...

    def answer(self, number: int, said: dict[str, Any] | None) -> None:
        """None: the line broke."""
        waiting = self.waiting[number]
        if said is None:
            waiting.set_exception(OutcomeUnknown("upstream.lost", "the line to shop broke"))
        else:
            waiting.set_result(said)


@dataclass(slots=True)
class Times:
    """Time that passes, and a wall clock that says something else. Both in microseconds."""

    true_us: int
    wrong_us: int = 0

    def clock(self) -> Clock:
        begun_us = self.true_us  # a machine that starts anew counts its own time anew
        return Clock(lambda: self.true_us + self.wrong_us, lambda: self.true_us - begun_us)


@dataclass(slots=True)
class Made:
    """One call that somebody made, with what became of it as its caller saw it."""

    request: Request
    task: asyncio.Task[Any] | None = None

    @property
    def waits(self) -> bool:
        return self.task is not None and not self.task.done()

    def code(self) -> str:
        """`result` where it was answered, else the code of the refusal; `killed` where nobody answered."""
        assert self.task is not None
        if self.task.cancelled() or isinstance(self.task.exception(), Killed):
            return "killed"
        returned = self.task.result()
        if isinstance(returned, Unknown):
            return returned.code
        answer = self.request.delivered[0] if self.request.delivered else returned
        refused = (answer.get("result", {}).get("_meta") or {}).get(META_KEY)
        return "result" if refused is None else refused["reasons"][0]["code"]

    def answer(self) -> dict[str, Any]:
        assert self.task is not None
        return self.request.delivered[0] if self.request.delivered else self.task.result()

    def facts(self) -> dict[str, Any]:
        """The numbers of the first reason."""
        return self.answer()["result"]["_meta"][META_KEY]["reasons"][0]["facts"]


@dataclass
class Template:
    """A database with people in it, copied for each run, and what all runs share."""

    path: Path
    source: PolicySource
    catalog: Catalog
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    """Of sessions and agents, by the names a test gives them."""


class SteppedBroker:
    def __init__(self, folder: Path, template: Template, times: Times, doubt_s: float) -> None:
        self.path = folder / "haltline.db"
        shutil.copy(template.path, self.path)
        self.template = template
        self.times = times
        self.doubt_s = doubt_s
        self.shop: Told = template.catalog.upstream("shop")  # type: ignore[assignment]
        self.shop.sent.clear()
        self.shop.waiting.clear()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)  # whoever was killed is heard by nobody
        self._tasks: set[asyncio.Task[Any]] = set()
        self.start()

    def start(self) -> None:
        self.clock = self.times.clock()
        self.writer = InlineWriter(self.path, self.clock.now_us)
        self.parts = parts_on(self.template.source, self.template.catalog, self.clock, self.writer)
        self.clock.not_before(_newest_us(self.writer.connection))
        self.unrecorded = Unrecorded(self.writer)
        health = Health(
            self.clock,
            self.writer,
            self.template.source,
            self.unrecorded,
            self.parts.halts,
            started_us=self.clock.now_us(),
        )
        self.broker = Broker(
            self.parts, Doorman(self.parts.identity, self.parts.halts, self.parts.audit, 900), self.unrecorded, health
        )
        desk = Desk(self.parts)
        self.desks = {"resume": Resumes(desk), "halt": Stops(desk), "resolve_in_doubt": Money(desk)}
        self.do(doubt_left_holds(self.parts, self.doubt_s))

    def do(self, work: Any) -> Any:
        """Run it, and whatever it woke, until everything waits."""

        async def whole() -> Any:
            try:
                return await work
            finally:
                await self._settled()

        return self.loop.run_until_complete(whole())

    async def _settled(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    def kill(self) -> None:
        """Nothing of it goes on; what it had not committed never was."""
        self.writer.die()
        for task in self._tasks:
            task.cancel()
        self.do(asyncio.sleep(0))
        assert not self._tasks
        self.writer.connection.close()

    def close(self) -> None:
        try:
            self.kill()
        finally:
            self.loop.close()

    # acts

    def call(
        self, token: str, tool: str, arguments: dict[str, Any], *, number: int, key: str | None, sends: bool
    ) -> Made:
        """Number `number`; with `sends` false the upstream cannot be reached."""
        made = Made(Request(token, f"shop__{tool}", arguments))
        made.request.params["_meta"] = {"test/told": [number, sends]} | ({} if key is None else {IDEMPOTENCY_KEY: key})
        made.request.target = self.parts.catalog.tool(made.request.tool)
        made.request.params["name"] = tool
        made.task = self.loop.create_task(self.broker.call(made.request))
        self._tasks.add(made.task)
        made.task.add_done_callback(self._tasks.discard)
        self.do(asyncio.sleep(0))
        return made

    def answer(self, number: int, said: dict[str, Any] | None) -> None:
        """What the upstream says to a call that waits; None: the line broke."""

        async def answer() -> None:
            self.shop.answer(number, said)

        self.do(answer())

    def cancel(self, made: Made) -> None:
        """Its caller no longer wants it."""

        async def cancel() -> None:
            assert made.request.running is not None
            made.request.running.cancel()

        self.do(cancel())

    def act(self, name: str, **arguments: Any) -> Any:
        """As the operator anna: `resume`, `halt`, `resolve_in_doubt`."""
        request = Act(name, self.template.tokens["anna"], "127.0.0.1", arguments)
        return self.do(getattr(self.desks[name], name)(request, **arguments))

    def charge_due(self) -> None:
        """One round of what the broker does every few seconds."""

        async def once() -> None:
            task = self.loop.create_task(charge_due(self.parts))
            await self._settled()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.do(once())

    def run(self, unit: Callable[[Tx], Any]) -> Any:
        work = self.writer.run(unit)
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("a unit waits for nothing")

    @property
    def rows(self) -> sqlite3.Connection:
        return self.writer.connection


def parts_on(source: PolicySource, catalog: Catalog, clock: Clock, writer: InlineWriter) -> Parts:
    audit, pins = Audit(Redactor()), Pins()
    ledger = Ledger(lambda now_us: source.current.day_bounds(now_us))  # type: ignore[union-attr]
    signals = Signals(lambda: source.zone, bytes(32))
    audit.listener = signals.heard
    reader: Any = InlineReader(writer)
    parts = Parts(
        clock=clock, writer=writer, reader=reader, identity=Identity(bytes(32)), halts=Halts(), ledger=ledger, audit=audit,
        outbox=Outbox([], writer, reader, clock), catalog=catalog, calls=RunningCalls(), rounds=Rounds(bytes(32)),
        replays=Replays(bytes(32)), policies=source, pins=pins, signals=signals,
    )  # fmt: skip
    for remembering in (parts.identity, parts.halts, parts.ledger, parts.audit, parts.pins, parts.signals):
        writer.on_lost(remembering.forget)
    return parts


def template(
    folder: Path, policy: str, tools: list[str], now_us: int, people: Callable[[Template, Parts, Tx], None]
) -> Template:
    """`people` adds agents, sessions and operators."""
    policies = folder / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_text(policy)
    source = PolicySource(policies)
    source.reload()
    assert source.current is not None, source.problems
    made = Template(folder / "template.db", source, Catalog([Told(tools)]))
    writer = InlineWriter(made.path, lambda: now_us)

    async def fill() -> None:
        parts = parts_on(source, made.catalog, Clock(lambda: now_us), writer)
        made.catalog.reviewed_by(Quarantine(parts).review)
        await made.catalog.refresh("shop")
        await writer.run(lambda tx: people(made, parts, tx))
        await writer.run(lambda tx: announce(tx, parts.audit))

    asyncio.run(fill())
    writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.connection.close()
    return made
