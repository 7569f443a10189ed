"""A start with a year of history behind 1,000 agents, their first calls, and what an event costs then.

usage: PYTHONPATH=tests python tests/bench/year.py [--agents N] [--days N] [--quick] [--scratch FOLDER]
The history is written by the broker's own code, and folded as it is written; afterwards all signals are rebuilt from the
log alone and must be the same. The broker is `haltline serve` as it ships, with the shipped rules.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import orjson
import processes
import year_of_calls
from load import percentile
from machine import described
from year_of_calls import HOUR_US

from haltline.policy.policy import load_policy
from haltline.policy.watch import Moment, TaskUse
from haltline.signals.facts import Fact
from haltline.signals.state import AgentSignals
from haltline.store.database import connect_writer
from haltline.store.folder import DataFolder
from haltline.store.unit import Batch, Tx
from support.broker_process import BrokerProcess
from support.callers import Caller

__all__ = ["main"]

RULES = Path(__file__).parents[2] / "policies" / "rules.yaml"
POLICY = """
version: "1"
tiers:
  experimental: {tools: []}
  staging: {tools: []}
  production: {tools: ["*"], caps: {task: "100000.00", day: "100000.00"}}
tools:
  http__echo: {price: "0.01"}
"""
START_BELOW_S = 5.0
RATIO_BELOW = 1.2
ROUNDS = 15
EVENTS_A_ROUND = 4_000


def main() -> int:
    asked = _arguments()
    policy = POLICY + RULES.read_text(encoding="utf-8").replace('version: "1"\n', "")
    with tempfile.TemporaryDirectory(prefix="haltline-year-", dir=asked.scratch) as scratch:
        folder = Path(scratch)
        with processes.server("upstream.py", folder=folder) as (port, _):
            upstreams = {"http": {"url": f"http://127.0.0.1:{port}/mcp", "max_concurrent": 64}}
            broker = BrokerProcess(folder / "broker", upstreams=upstreams, policy=policy)
            fresh = BrokerProcess(folder / "fresh", upstreams=upstreams, policy=policy)
            print(f"on {described(folder)}")
            calls = year_of_calls.write(
                broker.data, agents=asked.agents, days=asked.days, tier="production", zone="UTC", say=_say
            )
            size = broker.data.joinpath("haltline.db").stat().st_size / 1e6
            print(f"{asked.agents:,} agents, {asked.days} days, {calls:,} calls, {2 * calls:,} events, {size:,.0f} MB")
            held = _serve(broker, fresh, asked.agents)
        held &= _cost_of_an_event(broker.folder / "policies", broker.data)
        held &= _rebuilt(broker.data)
    return 0 if held else 1


def _serve(broker: BrokerProcess, fresh: BrokerProcess, agents: int) -> bool:
    """Starts, and calls of every agent after one; beside them those of a broker without history."""
    starts = {"a year": [broker.start()], "nothing": [fresh.start()]}
    cpu = {"a year": processes.cpu_s(broker.pid) or 0, "nothing": processes.cpu_s(fresh.pid) or 0}
    rss = {"a year": processes.rss_mb(broker.pid) or 0, "nothing": processes.rss_mb(fresh.pid) or 0}
    known = [f"agent-{number}" for number in range(agents)]
    took = {
        "a year": asyncio.run(_calls(broker, known, add=False)),
        "nothing": asyncio.run(_calls(fresh, [f"new-{number}" for number in range(min(agents, 200))], add=True)),
    }
    used = {"a year": processes.rss_mb(broker.pid) or 0, "nothing": processes.rss_mb(fresh.pid) or 0}
    for name, one in (("a year", broker), ("nothing", fresh)):
        one.kill()
        starts[name].append(one.start())
        one.stop()
        starts[name].append(one.start())
        one.stop()
    for name, (first, crashed, stopped) in starts.items():
        print(
            f"{name}: ready after {first:.2f} s, {stopped:.2f} s after a stop, {crashed:.2f} s after a kill -9;",
            end=" ",
        )
        print(f"{cpu[name]:.2f} s of CPU, {rss[name]:.0f} MB then, {used[name]:.0f} MB once all its agents called")
    for name, (first_ms, second_ms) in took.items():
        for which, values in (("first", first_ms), ("second", second_ms)):
            print(
                f"{name}: {which} call of an agent p50 {percentile(values, 0.5):.1f} · p99 {percentile(values, 0.99):.1f} ms"
            )
    worst = max(starts["a year"])
    print(f"→ the slowest start with a year behind it: {worst:.2f} s (must be below {START_BELOW_S:g})")
    return worst < START_BELOW_S


async def _calls(broker: BrokerProcess, agents: list[str], *, add: bool) -> tuple[list[float], list[float]]:
    """Milliseconds of the first and of the second call of each agent, one after the other on one connection each."""
    broker.await_tools("http__echo")
    with broker.control() as control:
        if add:
            for agent in agents:
                control.add_agent(agent, "production")
        tokens = [control.open_session(agent, "a task")["token"] for agent in agents]
    first, second = list[float](), list[float]()
    for token in tokens:
        caller = Caller(broker.agents_port, token, "json")
        for took in (first, second):
            begun = time.perf_counter()
            answer = await caller.call("http__echo", {"text": "{}"})
            took.append((time.perf_counter() - begun) * 1000)
            if answer.kind != "result":
                raise processes.Failed(f"a call was not answered: {answer}")
        caller.cut()
    return first, second


def _cost_of_an_event(policies: Path, data: Path) -> bool:
    """Folding an event and asking all rules, for an agent with a year behind it and for a new one, in turns."""
    policy = load_policy(policies)
    rules = policy.watch("production", "agent-0")
    with closing(sqlite3.connect(data / "haltline.db")) as store:
        stored = store.execute("SELECT state FROM signals ORDER BY length(state) DESC LIMIT 1").fetchone()[0]
    start_us = orjson.loads(stored)["last_us"] // HOUR_US * HOUR_US + HOUR_US

    def a_round(state: AgentSignals) -> float:
        begun = time.process_time()
        for number in range(EVENTS_A_ROUND // 2):
            at_us = start_us + number * HOUR_US // 40  # 40 calls an hour for two days
            now = Moment(
                state, at_us, "USD", "UTC", policy.day_bounds, tool="http__echo", upstream="http",
                destination="payee-1", same=f"{number}", amount=10_000, tasks=(TaskUse("s", number, None),),
            )  # fmt: skip
            for rule in rules:
                rule.ask(now)
            named = {"session": "s", "tool": "http__echo", "upstream": "http"}
            body = {"amount_micros": 10_000, "same": f"{number}", "destination": "payee-1"}
            state.fold(Fact.of(2 * number + 1, at_us, "call.allowed", named, body), "UTC")
            ended = {"amount_micros": 10_000, "charged_micros": 9_000, "duration_us": 5}
            state.fold(Fact.of(2 * number + 2, at_us + 5, "call.succeeded", named, ended), "UTC")
        return (time.process_time() - begun) / EVENTS_A_ROUND * 1e6

    took: dict[str, list[float]] = {"a year": [], "nothing": []}
    for number in range(ROUNDS + 1):
        for name in sorted(took, reverse=number % 2 == 0):
            state = AgentSignals.loaded(orjson.loads(stored)) if name == "a year" else AgentSignals()
            micros = a_round(state)
            if number:  # the first warms up
                took[name].append(micros)
    ratios = [year / nothing for year, nothing in zip(took["a year"], took["nothing"], strict=True)]
    ratio = statistics.median(ratios)
    for name, values in took.items():
        print(f"an event folded, and {len(rules)} rules asked, after {name}: {statistics.median(values):.1f} µs")
    print(f"→ after a year against after nothing: {ratio:.3f} (must be at most {RATIO_BELOW:g})")
    return ratio <= RATIO_BELOW


def _rebuilt(data: Path) -> bool:
    """Take the snapshots away, rebuild all of them from the log as a start does, and compare."""
    folder = DataFolder.claim(data)
    try:
        with closing(connect_writer(folder.database)) as store:
            tx = Tx(Batch(store, time.time_ns() // 1000))
            agents = [row[0] for row in store.execute("SELECT id FROM agents")]
            before = year_of_calls.signals_of(folder, "UTC")
            kept = {one: _told(before.agent(tx, one)) for one in agents}
            store.execute("DELETE FROM signals")
            signals, begun = year_of_calls.signals_of(folder, "UTC"), time.perf_counter()
            while signals.catch_up(tx):
                pass
            took_s = time.perf_counter() - begun
            same = sum(_told(signals.agent(tx, one)) == kept[one] for one in agents)
    finally:
        folder.release()
    print(f"rebuilt from the log in {took_s:.1f} s: those of {same:,} of {len(agents):,} agents are the same")
    return same == len(agents)


def _told(state: AgentSignals) -> dict[str, object]:
    """All that is known; not up to which event, which may be one that says nothing of an agent's ways."""
    return {**state.stored(), "seq": 0}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--quick", action="store_true", help="40 agents, 40 days: does everything work?")
    parser.add_argument("--scratch", type=Path, help="where the data lies meanwhile; some 4 GB of a real disk")
    asked = parser.parse_args()
    if asked.quick:
        asked.agents, asked.days = 40, 40
    return asked


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
