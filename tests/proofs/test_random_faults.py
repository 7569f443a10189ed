"""Calls that each meet a fault at random, over HTTP in both eras and over standard streams: when all is quiet, every hold that
is open is in doubt, none has leaked, and what the broker says is spent is what its rows add up to (P7, R10, R11)."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from bench import processes
from bench.load import HANDSHAKE_VERSION
from support.billing_upstream import billing_upstream
from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller
from support.counting_upstream import environment
from support.figures import Figures

SCRIPT = processes.CHECKOUT / "tests" / "support" / "nasty_stdio.py"
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  wide: {tools: ["*"], caps: {task: "100000.00", hour: "900000.00", day: "1000000.00", calls: 100000}}
tools:
  "io__*": {price: "0.05", timeout_s: 0.5}
  "new__*": {price: {result: structuredContent.cost, at_most: "0.07"}, timeout_s: 0.5}
  "old__*": {price: {per_second: "0.10"}, timeout_s: 0.5}
  "bill__*": {price: {result: structuredContent.cost, at_most: "0.90"}}
  io__never: {read_only: true}
"""
CALLERS = 15
FAULTS: dict[str, tuple[str, ...]] = {
    "cancel": ("new__never", "old__never", "io__never", "new__endless", "old__endless"),
    "disconnect": ("new__never", "old__never", "io__never", "new__endless", "bill__ask"),
    "child killed": ("io__dies", "io__forks_and_dies"),
    "timeout": ("new__never", "old__never", "io__never", "io__wrong_id", "new__endless"),
    "5xx": ("new__broken", "old__broken"),
    "oversize": ("new__huge_declared", "old__huge_declared", "io__large"),
    "malformed": ("new__not_json", "old__deep", "new__bad_utf8", "io__torn", "io__bad_utf8", "old__no_result"),
    "none": ("bill__ask",),
}
RESTARTING = "upstream.starting_failed"
"""Nothing was sent, for a program that died waits before it is started again: such a call met no fault yet."""


@dataclass
class Sufferer:
    """One agent with one session; its calls come one after another, each on a connection of its own."""

    broker: BrokerProcess
    opened: Opened
    mode: Any
    dice: random.Random
    met: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    async def suffer(self, wanted: int) -> None:
        while sum(self.met.values()) < wanted:
            fault = self.dice.choice(list(FAULTS))
            while (answer := await self._one(fault, self.dice.choice(FAULTS[fault]))) is not None:
                self.codes[answer.code or answer.kind] += 1
                if answer.code != RESTARTING:
                    break
                await asyncio.sleep(0.05)
            self.met[fault] += 1

    async def _one(self, fault: str, tool: str) -> Answer | None:
        self.calls += 1
        caller = Caller(self.broker.agents_port, self.opened.token, self.mode)
        told = {"reference": f"{self.opened.agent}-{self.calls}", "bill": f"0.{self.dice.randrange(1_000_000):06d}"}
        told["bill"] = min(told["bill"], "0.9")
        answers: list[Answer] = []
        if self.mode == "handshake":
            await caller.open()
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(self._call(caller, tool, told, answers))
            if fault in {"cancel", "disconnect"}:
                while not caller.sent and not calling.done():
                    await asyncio.sleep(0)
                await asyncio.sleep(self.dice.uniform(0, 0.2))
                if fault == "cancel" and self.mode == "handshake":
                    await self._cancel(caller)
                caller.cut(reset=self.dice.random() < 0.5)
        caller.cut()
        return answers[0] if answers else None

    async def _call(self, caller: Caller, tool: str, told: dict[str, str], answers: list[Answer]) -> None:
        with suppress(ValueError):  # an answer that is no JSON, such as these upstreams give
            answers.append(await caller.call(tool, told, identifier=7))

    async def _cancel(self, caller: Caller) -> None:
        """Explicitly, on another connection of the same MCP session."""
        other = Caller(self.broker.agents_port, self.opened.token, "handshake")
        other._session = caller._session or [f"MCP-Protocol-Version: {HANDSHAKE_VERSION}"]
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        with suppress(OSError):
            await other._post(message, [])
        other.cut()


@contextmanager
def nasty(folder: Path, era: str) -> Iterator[str]:
    command = [sys.executable, "-m", "support.nasty_http", era]
    command = ["env", f"PYTHONPATH={environment()['PYTHONPATH']}", *command]
    log = folder / f"{era}.log"
    with processes.running(command, folder=folder, log=log) as process:
        yield f"http://127.0.0.1:{int(processes.first_line(process, log))}/mcp"


def sums(database: Path) -> tuple[Counter[str], dict[str, tuple[int, int]], list[tuple[Any, ...]]]:
    """States, (settled, open) micro-units by session, and the calls that did not end exactly once."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        states = Counter(dict(connection.execute("SELECT state, count(*) FROM holds GROUP BY state").fetchall()))
        rows = connection.execute(
            "SELECT session_id, coalesce(sum(charged_micros), 0),"
            " coalesce(sum(amount_micros) FILTER (WHERE state IN ('held', 'in_doubt')), 0) FROM holds GROUP BY session_id"
        ).fetchall()
        odd = connection.execute(
            "SELECT h.id, h.state, count(e.seq) FROM holds h LEFT JOIN events e ON e.call_id = h.id AND e.kind IN"
            " ('call.succeeded', 'call.failed', 'call.voided', 'call.in_doubt') GROUP BY h.id HAVING count(e.seq) <> 1"
        ).fetchall()
    return states, {session: (settled, held) for session, settled, held in rows}, odd


async def quiet(broker: BrokerProcess) -> None:
    """Until nothing is held any more, or for long enough."""
    for _ in range(400):
        states, _, _ = await asyncio.to_thread(sums, broker.database)
        if not states["held"]:
            return
        await anyio.sleep(0.05)  # another process has no event to wait for


def said(broker: BrokerProcess, opened: Opened, caps: tuple[str, ...]) -> list[tuple[int, int]]:
    """(settled, held or in doubt) under each of these caps, as the broker says to an operator."""
    with broker.control() as control:
        shown = [*control.show_session(opened.session)["balances"], *control.show_agent(opened.agent)["balances"]]
    money = [one for one in shown if one["cap"] in caps]
    return [(micros(one["settled"]), micros(one["held"]) + micros(one["in_doubt"])) for one in money]


def micros(quantity: Any) -> int:
    return int(quantity["micros"])


@pytest.mark.promise("P7", "R1", "R10", "R11")
async def test_after_calls_with_random_faults_what_is_open_is_in_doubt_and_the_sums_agree(tmp_path: Path, long: bool):
    wanted = 2_000 if long else 240
    seed = time.time_ns()
    small = {"max_result_bytes": 1024 * 1024}
    with ExitStack() as stack:
        new, old = (stack.enter_context(nasty(tmp_path, era)) for era in ("modern", "handshake"))
        billing = stack.enter_context(billing_upstream(tmp_path))
        names = sorted(
            {tool.partition("__")[2] for tools in FAULTS.values() for tool in tools if tool.startswith("io")}
        )
        upstreams = {
            "new": {"url": new, **small},
            "old": {"url": old, **small},
            "io": {"command": sys.executable, "args": ["-S", str(SCRIPT), "lists", *names], **small},
            "bill": {"url": billing.url(0)},
        }
        broker = stack.enter_context(broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY))
        broker.await_tools(*(tool for tools in FAULTS.values() for tool in tools))
        opened = broker.open([f"sufferer-{number}" for number in range(CALLERS)], "wide")
        sufferers = [
            Sufferer(broker, one, MODES[number % len(MODES)], random.Random(seed + number))
            for number, one in enumerate(opened)
        ]
        async with asyncio.TaskGroup() as tasks:
            for one in sufferers:
                tasks.create_task(one.suffer(-(-wanted // CALLERS)))
        await quiet(broker)
        states, rows, odd = sums(broker.database)
        differing = [
            (one.session, rows.get(one.session, (0, 0)), balances)
            for one in opened
            for balances in said(broker, one, ("task", "hour", "day"))
            if balances != rows.get(one.session, (0, 0))
        ]
        with broker.control() as control:
            status = control.status()["in_doubt"]
        code = broker.stop()
        after, _, _ = sums(broker.database)
        verified = broker.verify()
    met = sum((one.met for one in sufferers), Counter())
    figures = Figures(f"{sum(met.values())} calls with a random fault each (seed {seed})")
    figures.note("faults met", dict(met.most_common()))
    figures.note("answers", dict(sum((one.codes for one in sufferers), Counter()).most_common()))
    figures.note("holds", dict(states))
    figures.zero("leaked: held when all is quiet", states["held"])
    figures.equal("open holds", states["held"] + states["in_doubt"], states["in_doubt"])
    figures.equal("in doubt, as the status says", status["count"], states["in_doubt"])
    figures.equal("in doubt, micro-units", micros(status["amount"]), sum(held for _, held in rows.values()))
    figures.zero("calls with another than one end", odd)
    figures.zero(f"balances of {CALLERS} agents under task, hour and day that differ from their rows", differing)
    figures.zero("kinds of fault that nobody met", [fault for fault in FAULTS if not met[fault]])
    figures.equal("states after the stop", dict(after), dict(states))
    figures.chain(verified)
    figures.equal("exit code", code, 0)
    figures.show()
