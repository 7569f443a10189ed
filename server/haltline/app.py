"""The composition root: the only file that builds the parts, wires them and knows in which order they start and stop."""

from __future__ import annotations

import hmac
import os
import signal
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import orjson
import structlog

from haltline.alerts.open import open_channels
from haltline.alerts.outbox import Outbox
from haltline.audit import Audit, Event, Kind
from haltline.broker import Broker
from haltline.calls.admission import Doorman
from haltline.calls.attempts import FLUSH_EVERY_S, Attempts
from haltline.calls.recovery import Unrecorded, charge_due, doubt_left_holds, record_late
from haltline.calls.replays import Replays
from haltline.calls.rounds import Rounds
from haltline.calls.running import RunningCalls
from haltline.calls.watcher import Watcher
from haltline.checkpoints import Checkpoints
from haltline.children import Children
from haltline.clock import Clock
from haltline.clockwatch import ClockWatch
from haltline.control import Control
from haltline.control_mcp import ControlFace
from haltline.drill.drill import Endpoint as DrillEndpoint
from haltline.drill.runs import Drills
from haltline.drill.schedule import Schedule
from haltline.errors import HaltlineError, StoreUnavailable
from haltline.exposition import metrics_route
from haltline.gateway.face import Gateway
from haltline.halts import Halts
from haltline.health import Health
from haltline.http_server import Routes, Server, bind, text_route, url_of
from haltline.identity import Identity
from haltline.ledger import Ledger
from haltline.parts import Parts
from haltline.pins.table import Pins
from haltline.policy.model import Reason
from haltline.policy_source import PolicySource
from haltline.quarantine import Quarantine
from haltline.redact import Redactor
from haltline.setup.first_start import first_operators
from haltline.signals.recount import Recount
from haltline.signals.table import Signals
from haltline.spans import open_spans
from haltline.store.database import connect_writer
from haltline.store.folder import DataFolder, write_private
from haltline.store.reader import Reader
from haltline.store.writer import Writer
from haltline.telemetry import Telemetry
from haltline.upkeep import Upkeep
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.drill import DrillUpstream
from haltline.upstreams.open import open_all, tool_defaults
from haltline.upstreams.own import OwnUpstream
from haltline.wire.endpoint import Endpoint
from haltline.wire.guard import Guard
from haltline.wire.sessions import SessionIds
from haltline_client.version import __version__

if TYPE_CHECKING:
    import socket
    import sqlite3
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup

    from haltline.setup.listeners import Listener
    from haltline.setup.settings import Settings
    from haltline.store.writer import Tx

__all__ = ["Started", "serve"]

POLICY_LOOK_EVERY_S = 1.0
DAY_US = 86_400_000_000
STOP_WAIT_S = 2.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """What a person is told once the broker is ready."""

    agents_url: str
    control_url: str
    operator_token: str | None
    """Only at the first start."""
    problem: str | None


async def serve(settings: Settings, *, on_ready: Callable[[Started], None], calls: RunningCalls | None = None) -> None:
    """Run a broker until SIGTERM or SIGINT, then drain. Raises HaltlineError when it cannot start.

    `calls`: another index of what runs, for a build whose stops do not work, which drills must find out.
    """
    async with AsyncExitStack() as stack:
        # Before anything else, so that a signal during the start ends it as it would end a running broker.
        told = stack.enter_context(anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        folder = DataFolder.claim(settings.data)
        stack.callback(folder.release)
        sockets = {key: bind(listener, key) for key, listener in _listeners(settings).items()}
        for bound in sockets.values():
            stack.callback(bound.close)
        app = await App.open(settings, folder, stack, RunningCalls() if calls is None else calls)
        await app.run(sockets, told, on_ready)


def _listeners(settings: Settings) -> dict[str, Listener]:
    return {"agents": settings.agents, "control": settings.control}


class App:
    """The parts of one running broker."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        parts: Parts,
        checkpoints: Checkpoints,
        pepper: bytes,
        drilled: DrillUpstream,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._parts = parts
        self._checkpoints = checkpoints
        self._attempts = Attempts(parts.writer, parts.audit)
        self._unrecorded = Unrecorded(parts.writer)
        self._watcher = Watcher(parts)
        self._health = Health(
            parts.clock, parts.writer, parts.policies, self._unrecorded, parts.halts, started_us=parts.clock.now_us()
        )
        doorman = Doorman(parts.identity, parts.halts, parts.audit, settings.grace_s)
        self._broker = Broker(parts, doorman, self._unrecorded, self._health)
        self._gateway = Gateway(parts, self._broker, doorman, self._attempts, __version__)
        parts.catalog.on_change(self._gateway.forget_lists)
        parts.pins.on_change(self._gateway.forget_lists)
        self._drills = Drills(parts, self._health, drilled)
        control = Control(
            parts,
            self._health,
            version=__version__,
            reload_policy=self.reload_policy,
            run_drill=self._drills.run,
        )
        self._control_face = ControlFace(control, self._attempts, __version__)
        self._session_key = hmac.digest(pepper, b"mcp-session-ids", "sha256")

    @staticmethod
    async def open(settings: Settings, folder: DataFolder, stack: AsyncExitStack, calls: RunningCalls) -> App:
        """Open the store and build every part. What was opened is closed by `stack`, in reverse."""
        fresh = not folder.database.exists()
        pepper = folder.key("pepper", may_create=fresh)
        signing = folder.key("signing", may_create=fresh)
        clock = Clock()
        upstreams = await open_all(settings.upstreams)
        channels = open_channels(settings.alerts)
        defaults = tool_defaults(settings.upstreams, upstreams)
        policies = PolicySource(settings.policies, defaults, settings.alerts.names)
        policies.reload()
        audit = Audit(Redactor(policies.current.redact_keys if policies.current else ()))
        ledger = Ledger(lambda now_us: _day_bounds(policies, now_us))
        writer = Writer(lambda: connect_writer(folder.database), clock.now_us)
        signals = Signals(lambda: policies.zone, hmac.digest(pepper, b"signals", "sha256"))
        audit.listener = signals.heard
        telemetry = Telemetry(open_spans())
        stack.callback(telemetry.close)
        audit.counter = telemetry.heard
        pins = Pins()
        writer.start()
        stack.push_async_callback(writer.aclose)
        reader = Reader(folder.database)
        stack.push_async_callback(reader.aclose)
        clock.not_before(await writer.run(lambda tx: _newest_us(tx.connection)))
        outbox = Outbox(
            channels,
            writer,
            reader,
            clock,
            redact=lambda text: audit.redactor.text(text),  # noqa: PLW0108 - the redactor is replaced at a reload
            console_url=settings.alerts.console_url,
            routing=lambda: None if policies.current is None else policies.current.alerts,
        )
        stack.push_async_callback(outbox.aclose)
        catalog = Catalog(upstreams)
        stack.push_async_callback(catalog.aclose)
        parts = Parts(
            clock=clock,
            writer=writer,
            reader=reader,
            identity=Identity(pepper),
            halts=Halts(),
            ledger=ledger,
            audit=audit,
            outbox=outbox,
            catalog=catalog,
            calls=calls,
            rounds=Rounds(hmac.digest(pepper, b"rounds", "sha256")),
            replays=Replays(hmac.digest(pepper, b"replays", "sha256")),
            policies=policies,
            pins=pins,
            signals=signals,
            telemetry=telemetry,
        )
        for remembering in (parts.identity, parts.halts, parts.ledger, parts.audit, parts.pins, parts.signals):
            writer.on_lost(remembering.forget)
        await writer.run(pins.known)
        await writer.run(parts.halts.known)
        catalog.reviewed_by(Quarantine(parts).review)
        drilled = DrillUpstream()
        await catalog.keep_own(drilled)
        await catalog.keep_own(OwnUpstream(Children(parts).open))
        checkpoints = Checkpoints(writer, audit, signing, folder.checkpoints, outside=settings.checkpoint_to)
        return App(settings, folder, parts, checkpoints, pepper, drilled)

    # running

    async def run(
        self,
        sockets: dict[str, socket.socket],
        told: AsyncIterator[signal.Signals],
        on_ready: Callable[[Started], None],
    ) -> None:
        token = await first_operators(self._parts.writer, self._parts.identity, self._parts.audit, self._folder)
        await self._record_start()
        servers = {key: Server(self._routes(key, bound), listener) for key, listener, bound in self._bound(sockets)}
        urls = {key: url_of(listener, bound) for key, listener, bound in self._bound(sockets)}
        certificate = self._settings.agents.tls_cert
        self._drills.serve_at(DrillEndpoint(urls["agents"] + "/mcp", str(certificate) if certificate else None))
        async with anyio.create_task_group() as tasks:
            self._start_background(tasks)
            for key, server in servers.items():
                tasks.start_soon(server.serve, [sockets[key]])
            self._write_endpoints(urls)
            on_ready(Started(urls["agents"] + "/mcp", urls["control"], token, self._health.problem))
            await self._until(told)
            await self._drain()
            for server in servers.values():
                server.should_exit = True
            await self._finish()
            tasks.cancel_scope.cancel()

    def _bound(self, sockets: dict[str, socket.socket]) -> list[tuple[str, Listener, socket.socket]]:
        return [(key, listener, sockets[key]) for key, listener in _listeners(self._settings).items()]

    def _routes(self, key: str, bound: socket.socket) -> Routes:
        listener = _listeners(self._settings)[key]
        guard = Guard(
            listener.host, bound.getsockname()[1], hosts=listener.allowed_hosts, origins=listener.allowed_origins
        )
        sessions = SessionIds(self._session_key + key.encode())
        if key == "agents":
            return Routes(guard, {"/mcp": Endpoint(self._gateway, sessions)})
        return Routes(
            guard,
            {
                "/mcp": Endpoint(self._control_face, sessions),
                "/metrics": metrics_route(self._parts, self._health, self._control_face.admit),
                "/healthz": text_route(lambda: (200, "ok")),
                "/readyz": text_route(self._health.answer),
            },
        )

    def _start_background(self, tasks: TaskGroup) -> None:
        parts = self._parts
        tasks.start_soon(parts.catalog.run)
        tasks.start_soon(parts.outbox.run)
        tasks.start_soon(self._checkpoints.run)
        tasks.start_soon(self._unrecorded.run)
        tasks.start_soon(charge_due, parts)
        tasks.start_soon(record_late, parts)
        tasks.start_soon(ClockWatch(parts).run)
        tasks.start_soon(self._watcher.run)
        tasks.start_soon(Recount(parts.signals, parts.writer, parts.reader, lambda: parts.policies.zone).run)
        tasks.start_soon(Upkeep(parts, self._settings.alerts.keep_s).run)
        tasks.start_soon(self._watch_policy)
        tasks.start_soon(self._flush_attempts)
        if self._settings.drill_every_s is not None:
            tasks.start_soon(Schedule(parts, self._drills, self._settings.drill_every_s).run)

    def _write_endpoints(self, urls: dict[str, str]) -> None:
        where = {"agents": urls["agents"] + "/mcp", "control": urls["control"], "pid": os.getpid()}
        write_private(self._folder.endpoints, orjson.dumps(where) + b"\n")

    async def _until(self, told: AsyncIterator[signal.Signals]) -> None:
        async for number in told:
            if number != signal.SIGHUP:
                return
            await self.reload_policy("broker")

    # policy

    async def reload_policy(self, by: str) -> bool:
        """Read the policy folder again; a broken one changes nothing (R26). Returns whether another is in force now."""
        policies = self._parts.policies
        before = policies.problems
        changed = policies.reload()
        if changed and policies.current is not None:
            self._parts.audit.redactor = Redactor(policies.current.redact_keys)
            self._gateway.forget_grants()
        if changed or policies.problems != before:
            await self._parts.writer.run(lambda tx: self._policy_event(tx, by), urgent=True)
        return changed

    def _policy_event(self, tx: Tx, by: str) -> None:
        policies = self._parts.policies
        self._parts.ledger.forget()
        version = policies.current.version if policies.current is not None else None
        if policies.problems:
            body = {"problems": [str(problem) for problem in policies.problems], "in_force": version}
            self._parts.audit.append(tx, Event(Kind.POLICY_REJECTED, by, policy=version, body=body))
            log.warning("policy_rejected", problems=[str(problem) for problem in policies.problems])
        else:
            self._parts.audit.append(tx, Event(Kind.POLICY_LOADED, by, policy=version, body={"version": version}))
            log.info("policy_loaded", version=version)

    async def _watch_policy(self) -> None:
        while True:
            await anyio.sleep(POLICY_LOOK_EVERY_S)
            if self._parts.policies.changed_on_disk():
                with suppress(StoreUnavailable):
                    await self.reload_policy("broker")

    async def _flush_attempts(self) -> None:
        while True:
            await anyio.sleep(FLUSH_EVERY_S)
            with suppress(StoreUnavailable):
                await self._attempts.flush()

    # start and stop

    async def _record_start(self) -> None:
        current = self._parts.policies.current
        after_s = current.doubt_charges_after_s if current is not None else DAY_US / 1_000_000
        left = await doubt_left_holds(self._parts, after_s)
        body = {"version": __version__, "left_in_doubt": left, "data": self._folder.path.name}
        await self._parts.writer.run(
            lambda tx: self._parts.audit.append(tx, Event(Kind.BROKER_STARTED, "broker", body=body))
        )
        await self._parts.writer.run(lambda tx: self._policy_event(tx, "broker"))
        while await self._parts.writer.run(self._parts.signals.catch_up):
            pass
        if left:
            log.warning("calls_left_in_doubt", count=left, see="haltline calls in-doubt")

    async def _drain(self) -> None:
        """No new calls; those that run may end, and what does not end in time goes in doubt."""
        self._health.draining = True
        self._parts.calls.streams.close()
        running = len(self._parts.calls)
        log.info("draining", running=running)
        if not await self._parts.calls.ended(self._settings.drain_s):
            text = "the broker is shutting down; it may have run, do not retry before asking"
            self._parts.calls.stop(everything=True, reason=Reason("broker.stopping", text))
            await self._parts.calls.ended(STOP_WAIT_S)
        self._parts.calls.kept.stop(session_ids=(), agent_id=None, everything=True)

    async def _finish(self) -> None:
        with anyio.move_on_after(STOP_WAIT_S):
            await self._unrecorded.write()
        try:
            await self._attempts.flush()
            await self._parts.writer.run(
                lambda tx: self._parts.audit.append(tx, Event(Kind.BROKER_STOPPED, "broker", body={}))
            )
            await self._checkpoints.write()
            await self._watcher.save()
        except HaltlineError as error:
            log.error("stop_not_recorded", error=str(error))
        await self._parts.outbox.flush(STOP_WAIT_S)
        self._folder.endpoints.unlink(missing_ok=True)


def _newest_us(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT at_us FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return 0 if row is None else int(row[0])


def _day_bounds(policies: PolicySource, now_us: int) -> tuple[int, int]:
    if policies.current is not None:
        return policies.current.day_bounds(now_us)
    start = now_us - now_us % DAY_US
    return start, start + DAY_US
