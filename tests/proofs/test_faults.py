"""Upstreams that misbehave, over stdio, event streams and JSON: each call ends clearly, in bounded time and memory, with an
outcome in the ledger, and those who call something else meanwhile do not notice (R7, R10)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from bench import processes
from bench.load import percentile
from support.broker_process import BrokerProcess, broker_process
from support.callers import Caller
from support.counting_upstream import counting_upstream, environment
from support.figures import Figures, busy
from support.memory import Peak
from support.raw_mcp import HttpClient
from support.stored_calls import stored_calls
from support.upstream_calls import alive

POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  wide: {tools: ["*"], caps: {task: "100000.00", day: "1000000.00"}}
tools:
  "*": {price: "0.05"}
"""
TIMEOUT_S = 2.0
NEIGHBOURS = 4
PAUSE_S = 0.005
TURNS = 3
"""So often with and without in the long form, so that whatever else the machine does falls on both."""
BETWEEN_S = 0.05
"""Between one faulty call and the next: an agent thinks; without it this would measure how a busy core is shared."""
RESTARTING = "upstream.starting_failed"
"""What is said, with nothing sent, while a program that died has to wait before it is started again."""
MEMORY_MB = 100.0
SLOWER = 2.0
GRACE_S = 1.0
"""Beyond the call's own deadline."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`outcome`: the state of its hold. `code`: of the refusal; empty where the call is answered all the same."""

    what: str
    over: str
    tool: str
    code: str
    outcome: str = "in_doubt"


FAULTS = [
    Fault("64 MiB result", "stdio", "io__huge", "upstream.too_large"),
    Fault("64 MiB result", "SSE", "net__huge_event", "upstream.too_large"),
    Fault("64 MiB result", "JSON", "net__huge", "upstream.too_large"),
    Fault("64 MiB announced", "JSON", "net__huge_declared", "upstream.too_large"),
    Fault("10,000-deep JSON", "stdio", "io__deep", "upstream.malformed"),
    Fault("10,000-deep JSON", "SSE", "net__deep_event", "upstream.malformed"),
    Fault("10,000-deep JSON", "JSON", "net__deep", "upstream.malformed"),
    Fault("bad UTF-8", "stdio", "io__bad_utf8", "upstream.malformed"),
    Fault("bad UTF-8", "SSE", "net__bad_utf8_event", "upstream.malformed"),
    Fault("bad UTF-8", "JSON", "net__bad_utf8", "upstream.malformed"),
    Fault("a line that is not JSON", "stdio", "io__noise", "", "settled"),
    Fault("an answer torn in two", "stdio", "io__torn", "upstream.malformed"),
    Fault("an event that is not JSON", "SSE", "net__not_json_event", "upstream.malformed"),
    Fault("a body that is not JSON", "JSON", "net__not_json", "upstream.malformed"),
    Fault("a wrong id", "stdio", "io__wrong_id", "upstream.timeout"),
    Fault("a wrong id", "SSE", "net__wrong_id_streamed", "upstream.lost"),
    Fault("a wrong id", "JSON", "net__wrong_id", "upstream.malformed"),
    Fault("endless notifications", "stdio", "io__floods", "upstream.too_large"),
    Fault("endless notifications", "SSE", "net__flood", "upstream.too_large"),
    Fault("an endless event stream", "SSE", "net__endless", "upstream.timeout"),
    Fault("an answer, then an endless stream", "SSE", "net__answers_and_goes_on", "", "settled"),
    Fault("endless headers", "JSON", "net__endless_headers", "upstream.lost"),
    Fault("a child that forks", "stdio", "io__forks", "", "settled"),
    Fault("a child that forks and dies", "stdio", "io__forks_and_dies", "upstream.lost"),
]


@dataclass
class Row:
    fault: Fault
    took_s: list[float]
    grown_mb: float
    quiet_ms: list[float]
    beside_ms: list[float]
    codes: set[str]
    references: list[str]
    outcomes: set[str]

    @property
    def ratio(self) -> float:
        return percentile(self.beside_ms, 0.99) / percentile(self.quiet_ms, 0.99)


class Neighbours:
    """Agents that call a well-behaved upstream all the time; `times_ms` of their calls since `fresh`."""

    def __init__(self) -> None:
        self.times_ms: list[float] = []
        self.wrong: list[str] = []

    def fresh(self) -> list[float]:
        self.times_ms = []
        return self.times_ms

    async def until(self, count: int) -> None:
        while len(self.times_ms) < count:
            await asyncio.sleep(PAUSE_S)

    @asynccontextmanager
    async def calling(self, broker: BrokerProcess) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            for number, opened in enumerate(broker.open([f"n-{number}" for number in range(NEIGHBOURS)], "wide")):
                mode = "handshake" if number % 2 else "json"
                tasks.start_soon(self._one, Caller(broker.agents_port, opened.token, mode), opened.agent)
            yield
            tasks.cancel_scope.cancel()

    async def _one(self, caller: Caller, name: str) -> None:
        number = 0
        while True:
            number += 1
            begun = time.perf_counter()
            answer = await caller.call("good__look", {"reference": f"{name}-{number}", "mark": name})
            self.times_ms.append((time.perf_counter() - begun) * 1000)
            if answer.kind != "result" or answer.said is None or answer.said["mark"] != name:
                self.wrong.append(f"{name}: {answer.kind} {answer.code}")
            await asyncio.sleep(PAUSE_S)


@contextmanager
def nasty(folder: Path) -> Iterator[dict[str, Any]]:
    """The misbehaving upstreams, as in haltline.yaml."""
    names = [fault.tool.partition("__")[2] for fault in FAULTS if fault.over == "stdio"]
    script = processes.CHECKOUT / "tests" / "support" / "nasty_stdio.py"
    command = ["env", f"PYTHONPATH={environment()['PYTHONPATH']}", sys.executable, "-m", "support.nasty_http", "modern"]
    with processes.running(command, folder=folder, log=folder / "nasty.log") as process:
        port = int(processes.first_line(process, folder / "nasty.log"))
        limits = {"timeout_s": TIMEOUT_S}
        yield {
            "io": {"command": sys.executable, "args": [str(script), "lists", *names], **limits},
            "net": {"url": f"http://127.0.0.1:{port}/mcp", **limits},
        }


def suffer(client: HttpClient, tool: str, reference: str) -> tuple[float, str, dict[str, Any]]:
    """One call: its seconds, the code of its refusal, the message."""
    begun = time.perf_counter()
    answer = client.ask("tools/call", {"name": tool, "arguments": {"reference": reference}}, last_only=True)[-1]
    took_s = time.perf_counter() - begun
    refused = (answer.get("result", {}).get("_meta") or {}).get("io.haltline/refusal")
    return took_s, refused["reasons"][0]["code"] if refused else "", answer


def forked_by(client: HttpClient) -> int:
    """The process id of a grandchild that is there now."""
    for number in count():
        _, code, answer = suffer(client, "io__forks", f"forks-at-last-{number}")
        if code != RESTARTING:
            return int(answer["result"]["content"][0]["text"])
        time.sleep(BETWEEN_S)
    raise AssertionError


async def outlives(pid: int) -> bool:
    """Whether it is still there a second later."""
    with anyio.move_on_after(1):
        while alive(pid):
            await asyncio.sleep(PAUSE_S)
        return False
    return True


async def tried(
    broker: BrokerProcess, client: HttpClient, neighbours: Neighbours, fault: Fault, samples: int, turns: int
) -> Row:
    """The fault again and again while the neighbours make `samples` calls beside it, and as many without it: in turns."""
    row = Row(fault, [], 0.0, [], [], set(), [], set())
    numbers, peak = count(), Peak(broker.pid)
    for _ in range(turns):
        quiet = neighbours.fresh()
        await neighbours.until(samples // turns)
        row.quiet_ms += quiet
        beside, before = neighbours.fresh(), len(row.took_s)
        while len(row.took_s) == before or len(beside) < samples // turns:
            reference = f"{fault.tool}-{next(numbers)}"
            took_s, code, _ = await asyncio.to_thread(suffer, client, fault.tool, reference)
            if code != RESTARTING:
                row.took_s.append(took_s)
                row.codes.add(code)
                row.references.append(reference)
            await asyncio.sleep(BETWEEN_S)
        row.beside_ms += beside
    row.grown_mb = peak.grown_mb()
    return row


def show(rows: list[Row]) -> None:
    """The table."""
    print(f"\n{'fault':<34}{'over':<7}{'answer after':>14}{'memory':>10}{'neighbours p99 ms':>24}  ledger    code")
    for row in rows:
        fault = row.fault
        beside, quiet = percentile(row.beside_ms, 0.99), percentile(row.quiet_ms, 0.99)
        print(
            f"{fault.what:<34}{fault.over:<7}{percentile(row.took_s, 0.5) * 1000:>9.0f} ms"
            f" {row.grown_mb:>+7.1f} MB{quiet:>9.1f} → {beside:>5.1f} ({row.ratio:>4.2f}×)  "
            f"{', '.join(sorted(row.outcomes)):<9} {', '.join(sorted(row.codes)) or '-'}  ({len(row.took_s)} calls)"
        )


@pytest.mark.promise("P11", "R7", "R10")
async def test_an_upstream_that_misbehaves_ends_clearly_and_bothers_nobody_else(tmp_path: Path, long: bool):
    samples = 1_500 if long else 60
    neighbours = Neighbours()
    rows: list[Row] = []
    with nasty(tmp_path) as bad, counting_upstream(tmp_path) as good:
        upstreams = {**bad, "good": {"url": good.url, "max_concurrent": 1024}}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            broker.await_tools("good__look", *(fault.tool for fault in FAULTS))
            (opened,) = broker.open(["sufferer"], "wide")
            client = HttpClient(broker.agents_port, modern=True, token=opened.token)
            async with neighbours.calling(broker):
                await neighbours.until(samples)  # to warm up
                for fault in FAULTS:
                    rows.append(await tried(broker, client, neighbours, fault, samples, TURNS if long else 1))
            grandchild = forked_by(client)
            client.close()
            stopped = broker.stop()
            stored = stored_calls(broker.database)
    for row in rows:
        row.outcomes = {stored[reference].state for reference in row.references}
    show(rows)

    figures = Figures(f"{len(FAULTS)} faults of upstreams, {NEIGHBOURS} neighbours")
    figures.zero(
        "another code than the fault's", [(row.fault, row.codes) for row in rows if row.codes != {row.fault.code}]
    )
    others = [(row.fault, row.outcomes) for row in rows if row.outcomes != {row.fault.outcome}]
    figures.zero("another outcome in the ledger", others)
    late = [(row.fault, max(row.took_s)) for row in rows if max(row.took_s) > TIMEOUT_S + GRACE_S]
    figures.zero(f"answered later than {TIMEOUT_S + GRACE_S:g} s", late)
    worst = max(rows, key=lambda row: row.grown_mb)
    grown = f"{worst.grown_mb:.1f} MB ({worst.fault.what}, {worst.fault.over})"
    figures.must("memory grown at most", grown, worst.grown_mb < MEMORY_MB, f"under {MEMORY_MB:g} MB")
    slowest = max(rows, key=lambda row: row.ratio)
    slower = f"{slowest.ratio:.2f}× ({slowest.fault.what}, {slowest.fault.over})"
    if long and not busy():
        figures.must("neighbours' p99, at worst", slower, slowest.ratio <= SLOWER, f"at most {SLOWER:g}×")
    else:
        figures.note("neighbours' p99, at worst (too few calls or too busy to decide)", slower)
    figures.zero("a neighbour's call that was not answered right", neighbours.wrong)
    figures.equal("exit code", stopped, 0)
    figures.zero("grandchildren that outlive the broker", int(await outlives(grandchild)))
    figures.show()
