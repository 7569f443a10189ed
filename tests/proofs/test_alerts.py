"""No alert is lost or out of order, none is late under load, and none tells a secret (P9, P10).

The broker is a real process with real receivers on loopback; what it says in its rows is laid beside what arrived.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import socket
import sqlite3
import string
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.credentials import issue
from haltline.redact import MASK
from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import Caller
from support.counting_upstream import counting_upstream
from support.figures import Figures, busy
from support.receivers import Received, Receiver, receiver
from support.small_caps import upstream

POLICY = """
version: "1"
tiers:
  breaks: {tools: ["*"], caps: {task: "0.01", day: "1000000.00"}}
  wide: {tools: ["*"], caps: {task: "1000000.00", day: "1000000.00"}}
tools:
  "*": {price: "0.05"}
"""
AGENTS = 20
AT_ONCE = 8


class Arrivals(list[Received]):
    """With the time at which each was there."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def append(self, one: Received) -> None:
        self.at_s.append(time.time())
        super().append(one)


class Hook:
    """A receiver that can be away and come back at its address."""

    def __init__(self) -> None:
        self.receiver = Receiver(())
        self.arrivals = self.receiver.received = Arrivals()
        self._server: asyncio.Server | None = None
        # Bound and not listening: whoever connects is refused, and nobody else is given the port meanwhile.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.receiver.port = self._place.getsockname()[1]

    async def up(self) -> None:
        port = self.receiver.port
        self._server = await asyncio.start_server(self.receiver.serve, "127.0.0.1", port, reuse_port=True)

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            await self.receiver.stop()

    def close(self) -> None:
        self._place.close()

    def settings(self) -> str:
        return f"alerts: {json.dumps({'webhooks': [{'name': 'hook', 'url': self.receiver.url}]})}"

    def acts(self) -> dict[str, list[str]]:
        """By episode, in the order of arrival."""
        found: dict[str, list[str]] = {}
        for one in self.arrivals:
            found.setdefault(one.json["alerts"][0]["annotations"]["episode"], []).append(one.json["status"])
        return found

    def sessions(self) -> set[str]:
        return {one.labels["session"] for one in self.arrivals if one.json["status"] == "firing"}


@asynccontextmanager
async def hook() -> AsyncIterator[Hook]:
    one = Hook()
    await one.up()
    try:
        yield one
    finally:
        await one.down()
        one.close()


async def until(holds: Any, within_s: float) -> bool:
    with anyio.move_on_after(within_s):
        while not await anyio.to_thread.run_sync(holds):
            await anyio.sleep(0.02)
        return True
    return False


def opened(broker: BrokerProcess, count: int) -> list[Opened]:
    return broker.open([f"agent-{number}" for number in range(AGENTS)], "breaks", each=count // AGENTS)


# Nothing is lost


class Breaches:
    """Sessions that reach their cap with their first call, while the broker is killed under them."""

    def __init__(self, broker: BrokerProcess, sessions: list[Opened], kills: int) -> None:
        self.broker = broker
        self.left = list(sessions)
        self.done: list[Opened] = []
        self._kill_at = {len(sessions) * (number + 1) // (kills + 1) for number in range(kills)}
        self._there = anyio.Event()
        self._there.set()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(self._work)

    async def _work(self) -> None:
        while self.left:
            one = self.left.pop()
            while not await self._breached(one):
                await anyio.sleep(0.01)
            self.done.append(one)
            if len(self.done) in self._kill_at:
                self._kill_at.discard(len(self.done))
                await self.kill()

    async def _breached(self, one: Opened) -> bool:
        await self._there.wait()
        caller = Caller(self.broker.agents_port, one.token, "json")
        answer = await caller.call("now__pay", {"reference": one.session})
        caller.cut()
        return answer.kind == "refused" and answer.code in {"budget.task_exceeded", "session.halted"}

    async def kill(self) -> None:
        self._there = anyio.Event()
        await anyio.to_thread.run_sync(self.broker.kill)
        await anyio.to_thread.run_sync(self.broker.start)
        self._there.set()


@pytest.mark.promise("P10")
async def test_with_the_receiver_down_and_the_broker_killed_every_breach_is_told_in_order(tmp_path: Path, long: bool):
    breaches, kills, down_s, rest_s = (500, 5, 60.0, 300.0) if long else (60, 2, 2.0, 60.0)
    async with hook() as there:
        with counting_upstream(tmp_path) as now:
            settings = {"upstreams": {"now": upstream(now.url)}, "policy": POLICY, "more": [there.settings()]}
            with broker_process(tmp_path / "broker", **settings) as broker:
                await anyio.to_thread.run_sync(lambda: broker.await_tools("now__pay"))
                sessions = await anyio.to_thread.run_sync(opened, broker, breaches)
                await there.down()
                begun_s = time.monotonic()
                story = Breaches(broker, sessions, kills - kills // 2)
                await story.run()
                await anyio.to_thread.run_sync(_resume, broker, sessions[::3])
                waiting = await anyio.to_thread.run_sync(_backlog, broker)
                await anyio.sleep(max(0.0, begun_s + down_s - time.monotonic()))
                await there.up()
                back_s = time.monotonic()
                wanted = {one.session for one in sessions}
                ends = len(sessions[::3])

                def told() -> bool:
                    resolved = sum("resolved" in acts for acts in there.acts().values())
                    return there.sessions() >= wanted and resolved >= ends

                for number in range(kills // 2):  # and while it delivers
                    some = len(sessions) * (number + 1) // (kills // 2 + 1)
                    await until(lambda some=some: len(there.sessions()) >= some, rest_s)
                    await story.kill()
                await until(told, rest_s)
                _reckon(broker, there, sessions, kills, down_s, waiting, time.monotonic() - back_s)


def _backlog(broker: BrokerProcess) -> Any:
    with broker.control() as control:
        return control.status()["alerts"]


def _resume(broker: BrokerProcess, sessions: list[Opened]) -> None:
    with broker.control() as control:
        for one in sessions:
            control.resume(one.session, reason="looked at it")


def _reckon(
    broker: BrokerProcess,
    there: Hook,
    sessions: list[Opened],
    kills: int,
    down_s: float,
    waiting: Any,
    took_s: float,
) -> None:
    broker.stop()
    with closing(sqlite3.connect(broker.database)) as rows:
        halted = rows.execute("SELECT count(*) FROM events WHERE kind = 'session.halted'").fetchone()[0]
        parked = rows.execute("SELECT count(*) FROM deliveries WHERE state = 'parked'").fetchone()[0]
    delivered = [one.delivery for one in there.arrivals]
    figures = Figures(f"{len(sessions)} breaches, receiver down {down_s:g} s, broker killed {kills} times")
    figures.equal("sessions halted", halted, len(sessions))
    figures.equal("breaches told", len(there.sessions()), len(sessions))
    figures.zero("breaches not told", sorted({one.session for one in sessions} - there.sessions()))
    figures.zero("deliveries given up", parked)
    acts = there.acts()
    figures.zero("episodes that ended before they began", [key for key, one in acts.items() if one[0] != "firing"])
    figures.zero("episodes out of order", [key for key, one in acts.items() if one != sorted(one)])
    figures.equal("episodes ended by their resume", sum("resolved" in one for one in acts.values()), len(sessions[::3]))
    figures.note("sent more than once", len(delivered) - len(set(delivered)))
    figures.note(
        "backlog seen while the receiver was down", f"{waiting['backlog']}, {waiting['oldest_age_s']:.1f} s old"
    )
    figures.note("all told after the receiver came back", f"{took_s:.1f} s")
    figures.must("it was seen to wait", waiting["backlog"], waiting["backlog"] > 0, "> 0")
    figures.show()


# Nothing is late


@pytest.mark.promise("P10")
async def test_from_the_breach_to_the_delivered_alert_it_takes_less_than_a_second_under_load(
    tmp_path: Path, long: bool
):
    run_s, breaches, wanted_s = (30.0, 300, 500) if long else (4.0, 40, 500)
    async with hook() as there:
        with counting_upstream(tmp_path) as now:
            settings = {"upstreams": {"now": upstream(now.url)}, "policy": POLICY, "more": [there.settings()]}
            with broker_process(tmp_path / "broker", **settings) as broker:
                await anyio.to_thread.run_sync(lambda: broker.await_tools("now__pay"))
                sessions = await anyio.to_thread.run_sync(opened, broker, breaches)
                wide = await anyio.to_thread.run_sync(lambda: broker.open(["wide"], "wide", each=32))
                begun: dict[str, float] = {}
                calls = [0]
                async with anyio.create_task_group() as tasks:
                    for number, one in enumerate(wide):
                        tasks.start_soon(_load, broker, one, run_s, wanted_s / len(wide), number, calls)
                    for one in sessions:
                        await anyio.sleep(run_s / len(sessions))
                        tasks.start_soon(_breach, broker, one, begun)
                await until(lambda: len(there.sessions()) == len(sessions), 30)
                late_ms = [
                    (at_s - begun[one.labels["session"]]) * 1000
                    for one, at_s in zip(there.arrivals, there.arrivals.at_s, strict=True)
                ]
                figures = Figures(f"from the breach to the delivered alert, {len(sessions)} breaches in {run_s:g} s")
                figures.equal("breaches told", len(there.sessions()), len(sessions))
                figures.note(f"other calls a second meanwhile (asked for: {wanted_s})", f"{calls[0] / run_s:.0f}")
                figures.times("call that breaches sent -> alert there", late_ms, p99_below_ms=None if busy() else 1000)
                figures.show()


async def _load(broker: BrokerProcess, one: Opened, run_s: float, rate: float, number: int, calls: list[int]) -> None:
    """Calls at its share of the rate, as far as the broker takes them."""
    caller = Caller(broker.agents_port, one.token, "json")
    begun_s = time.monotonic()
    count = 0
    while time.monotonic() - begun_s < run_s:
        answer = await caller.call("now__pay", {"reference": f"{number}-{count}"})
        assert answer.kind == "result", answer
        count += 1
        await anyio.sleep(max(0.0, begun_s + count / rate - time.monotonic()))
    calls[0] += count
    caller.cut()


async def _breach(broker: BrokerProcess, one: Opened, begun: dict[str, float]) -> None:
    caller = Caller(broker.agents_port, one.token, "json")
    begun[one.session] = time.time()
    await caller.call("now__pay", {"reference": one.session})
    caller.cut()


# Nothing is told that is secret

ECHO = '''
import json

import haltline


@haltline.tool(price="0.00", side_effects=False)
def say(text: str, password: str = "", fail: bool = False) -> dict[str, str]:
    """Say it back."""
    if fail:
        raise haltline.ToolError(json.dumps({"failed": text}))
    return {"text": text, "api_key": password}


@haltline.tool(price="0.05", side_effects=True)
def pay(text: str) -> dict[str, str]:
    """Reach the cap."""
    return {"text": text}
'''


def canaries(count: int) -> list[str]:
    """Secrets of the shapes that leak most, each once."""
    letters = string.ascii_letters + string.digits

    def some(length: int, of: str = letters) -> str:
        return "".join(secrets.choice(of) for _ in range(length))

    shapes = (
        lambda: issue("s").token,
        lambda: issue("o").token,
        lambda: f"ghp_{some(36)}",
        lambda: f"sk-{some(40)}",
        lambda: f"AKIA{some(16, string.ascii_uppercase + string.digits)}",
        lambda: f"xoxb-{some(11, string.digits)}-{some(24)}",
    )
    return [shapes[number % len(shapes)]() for number in range(count)]


@pytest.mark.promise("P9")
async def test_no_secret_of_a_call_is_in_any_alert_or_in_the_log(tmp_path: Path):
    planted = canaries(200)
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "echo.py").write_text(ECHO)
    async with receiver() as web, receiver() as slack, receiver() as pager, receiver() as phone:
        channels = {
            "web": {"kind": "webhook", "url": web.url},
            "slack": {"kind": "slack", "url_file": "slack"},
            "pager": {"kind": "pagerduty", "routing_key_file": "key", "base_url": f"http://127.0.0.1:{pager.port}"},
            "phone": {
                "kind": "sms", "account_sid": "AC" + "0" * 32, "auth_token_file": "key", "from": "Haltline",
                "to": "+15552223333", "base_url": f"http://127.0.0.1:{phone.port}",
            },
        }  # fmt: skip
        (folder / "slack").write_text(slack.url)
        (folder / "key").write_text("k3y")
        more = [f"alerts: {json.dumps({'channels': channels})}"]
        with broker_process(folder, upstreams={"echo": {"python": "./echo.py"}}, policy=SECRETS, more=more) as broker:
            await anyio.to_thread.run_sync(lambda: broker.await_tools("echo__say", "echo__pay"))
            halted = 0
            for start in range(0, len(planted), 20):
                halted += await _spill(broker, planted[start : start + 20], f"agent-{start}")
            for one in (web, slack, pager, phone):
                with anyio.fail_after(30):
                    await until(lambda one=one: len(one.received) >= halted, 25)
            await anyio.to_thread.run_sync(broker.stop)
        got = {"web": web, "slack": slack, "pager": pager, "phone": phone}
        told = {name: b"".join(one.body for one in each.received).decode() for name, each in got.items()}
    told["log"] = broker.log.read_text()
    figures = Figures(f"{len(planted)} secrets in arguments, results, headers, errors, tasks and reasons")
    for name, text in told.items():
        figures.zero(f"in {name} ({len(text)} characters)", [one for one in planted if one in text])
    figures.must("masked in the alerts", told["web"].count(MASK), told["web"].count(MASK) >= halted, f">= {halted}")
    figures.must("alerts", len(web.received), len(web.received) >= halted > 0, f">= {halted}")
    figures.show()


SECRETS = """
version: "1"
tiers:
  leaks: {tools: ["*"], caps: {task: "0.08", day: "1000.00"}}
"""


async def _spill(broker: BrokerProcess, some: list[str], agent: str) -> int:
    """Put each of these somewhere, and reach the cap; returns how many halts that made."""
    dice = random.Random(len(agent))

    def begin() -> Opened:
        with broker.control() as control:
            control.add_agent(agent, "leaks")
            one = control.open_session(agent, f"log in with {some[0]}")
        return Opened(agent, one["session"], one["token"])

    one = await anyio.to_thread.run_sync(begin)
    caller = Caller(broker.agents_port, one.token, "json")
    for number, secret in enumerate(some[1:-1]):
        caller._lines = [line for line in caller._lines if not line.startswith("X-")]
        caller._lines.append(f"X-Api-Key: {dice.choice(some)}")
        arguments = {"text": f"use {secret}", "password": secret, "fail": number % 3 == 0}
        await caller.call("echo__say", arguments)
    for _ in range(2):
        await caller.call("echo__pay", {"text": some[1]})
    caller.cut()

    def stop() -> None:
        with broker.control() as control:
            control.halt(agent, reason=f"it leaked {some[-1]}")

    await anyio.to_thread.run_sync(stop)
    return 2
