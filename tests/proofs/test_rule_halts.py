"""Halts by rules under load: from the committed event on, how long until the last first byte of that agent left (R27).

Rules that count, and rules over history and time, halt agents that have calls waiting, leaving and running, while others
work on. When bytes left is the kernel's word. The commit is taken as the time that its event bears, which is that of its
transaction's begin: what a slow disk adds to the commit is in the figure, too.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Caller
from support.counting_upstream import Receipt, counting_upstream
from support.figures import Figures, busy
from support.small_caps import upstream

POLICY = """
version: "1"
tiers:
  counted: {tools: ["*"], caps: {task: "1000.00", day: "1000.00"}}
  failing: {tools: ["*"], caps: {task: "1000.00", day: "1000.00"}}
  foreseen: {tools: ["*"], caps: {task: "1000.00", day: "0.90"}}
  silent: {tools: ["*"], caps: {task: "1000.00", day: "1000.00"}}
  free: {tools: ["*"], caps: {task: "1000.00", day: "1000.00"}}
tools:
  "*__pay": {price: "0.01"}
rules:
  counted: {kind: velocity, over: "0.30", window: 15m, do: halt, tiers: [counted]}
  failing: {kind: failure_rate, over: 10%, window: 15m, at_least: 25, do: halt, tiers: [failing]}
  foreseen: {kind: forecast, within: 30m, window: 15m, at_least: "0.10", do: halt, tiers: [foreseen]}
  silent: {kind: silence, for: 1s, do: halt, tiers: [silent]}
"""
RULES = ("counted", "failing", "foreseen", "silent")
AT_ONCE = 4
"""Agents at work at once, of each rule, each with two callers of each mode."""
BYSTANDERS = 2
AFTERWARDS = 2
"""Calls of each caller after it has read that its agent is halted."""
BELOW_MS = 50
BUSY_BELOW_MS = 500
"""Where others want the cores too."""
ENOUGH_CALLS = 5_000


@dataclass
class Load:
    broker: BrokerProcess
    dice: random.Random
    answers: Counter[str] = field(default_factory=Counter)
    read_ns: dict[str, int] = field(default_factory=dict)
    """By agent: when the first of its callers had read that it is halted."""

    async def until_halted(self, opened: Opened, rule: str, mode: str, number: int) -> None:
        caller, left = Caller(self.broker.agents_port, opened.token, mode), AFTERWARDS
        for count in range(ENOUGH_CALLS):
            told = {"reference": f"{opened.agent}/{mode}-{number}-{count}", "wait_ms": self.dice.choice((0, 0, 5, 20))}
            if rule == "failing" and count % 2:
                told["mark"] = "fail"
            if rule == "silent" and count == 20 + number:
                told["wait_ms"] = 4_000
            answer = await caller.call("now__pay", told)
            self.answers["result" if answer.kind == "result" else answer.code] += 1
            if answer.kind == "refused":
                self.read_ns[opened.agent] = min(answer.at_ns, self.read_ns.get(opened.agent, answer.at_ns))
            left -= answer.kind != "result"
            if not left:
                break
        caller.cut()

    async def bystand(self, opened: Opened, mode: str) -> None:
        caller = Caller(self.broker.agents_port, opened.token, mode)
        while True:
            answer = await caller.call("now__pay", {"reference": f"{opened.agent}/{mode}", "wait_ms": 1})
            self.answers[f"bystander's {answer.kind}"] += 1

    async def agent(self, opened: Opened, rule: str, turns: anyio.Semaphore) -> None:
        async with turns, anyio.create_task_group() as callers:
            for mode in MODES:
                for number in range(2):
                    callers.start_soon(self.until_halted, opened, rule, mode, number)


@pytest.mark.promise("R27", "R18")
async def test_after_a_rule_has_committed_its_halt_no_first_byte_of_that_agent_leaves_for_long(
    tmp_path: Path, long: bool
):
    each, seed = 100 if long else 6, time.time_ns()
    with (
        counting_upstream(tmp_path) as now,
        broker_process(tmp_path / "broker", upstreams={"now": upstream(now.url)}, policy=POLICY) as broker,
    ):
        broker.await_tools("now__pay")
        opened = {rule: broker.open([f"{rule}-{number}" for number in range(each)], rule) for rule in RULES}
        others = broker.open([f"bystander-{number}" for number in range(BYSTANDERS)], "free")
        load = Load(broker, random.Random(seed))
        async with anyio.create_task_group() as bystanders:
            for other in others:
                for mode in MODES:
                    bystanders.start_soon(load.bystand, other, mode)
            with anyio.fail_after(60 + each * 6):
                async with anyio.create_task_group() as tasks:
                    _begin(load, opened, tasks)
            bystanders.cancel_scope.cancel()
        broker.stop()
        receipts = now.all()
        verified = broker.verify()
    figures = Figures(f"{each * len(RULES)} halts by rules under load (seed {seed})")
    _judge(figures, load, receipts, _halted_us(broker), each)
    figures.chain(verified)
    figures.show()


def _begin(load: Load, opened: dict[str, list[Opened]], tasks: TaskGroup) -> None:
    for rule, agents in opened.items():
        turns = anyio.Semaphore(AT_ONCE)
        for agent in agents:
            tasks.start_soon(load.agent, agent, rule, turns)


def _halted_us(broker: BrokerProcess) -> dict[str, tuple[str, int]]:
    """By agent: the rule that halted it, and the time of that event."""
    sql = "SELECT json_extract(body, '$.agent'), json_extract(body, '$.by'), at_us FROM events WHERE kind = 'agent.halted'"
    with closing(sqlite3.connect(broker.database)) as store:
        return {agent: (by.removeprefix("rule "), at_us) for agent, by, at_us in store.execute(sql)}


def _judge(
    figures: Figures, load: Load, receipts: list[Receipt], halted: dict[str, tuple[str, int]], each: int
) -> None:
    last_us, after, late = dict[str, float](), Counter[str](), []
    for receipt in receipts:
        agent = receipt.reference.partition("/")[0]
        if agent in halted and receipt.exact:
            last_us[agent] = max(receipt.at_ns / 1000, last_us.get(agent, 0))
            if receipt.at_ns > load.read_ns[agent]:
                late.append((receipt.reference, receipt.at_ns - load.read_ns[agent]))
            after[halted[agent][0]] += receipt.at_ns / 1000 > halted[agent][1]
    took_ms = defaultdict[str, list[float]](list)
    for agent, (rule, at_us) in halted.items():
        took_ms[rule].append(max(last_us.get(agent, 0) - at_us, 0) / 1000)
    figures.note("seen leaving by a tap", f"{sum(one.exact for one in receipts)} of {len(receipts)} received")
    figures.note("answers", dict(load.answers))
    below_ms = BUSY_BELOW_MS if busy() else BELOW_MS
    every = [one for times in took_ms.values() for one in times]
    figures.times("committed → last first byte, every rule", every, p99_below_ms=below_ms)
    for rule in RULES:
        figures.equal(f"agents halted by {rule}", len(took_ms[rule]), each)
        figures.note(f"first bytes after the commit, {rule}", after[rule])
        figures.times(f"committed → last first byte, {rule}", took_ms[rule], p99_below_ms=below_ms)
    figures.zero("first bytes after a caller had read that its agent is halted", late)
    others = {what: count for what, count in load.answers.items() if what.startswith("bystander")}
    figures.equal("bystanders' answers but results", others.keys() - {"bystander's result"}, set())
