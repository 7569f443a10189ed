"""Brokered calls with all shipped rules on against all off: two brokers as they ship, the same load on both in turns.

usage: PYTHONPATH=tests python tests/bench/rules.py [--rounds N] [--calls N] [--quick] [--scratch FOLDER]
Rounds are short and paired, so that what else the machine does meets both alike. Beside the calls a second stands the CPU
time of the broker's process for a call, which others do not touch; the interval is that of the mean of the paired ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import processes
from machine import described, load_a_core

from support.broker_process import BrokerProcess, broker_process
from support.callers import Caller

__all__ = ["main"]

RULES = Path(__file__).parents[2] / "policies" / "rules.yaml"
OFF = """
version: "1"
tiers:
  experimental: {tools: []}
  staging: {tools: []}
  production: {tools: ["*"], caps: {task: "100000.00", day: "100000.00"}}
tools:
  http__echo: {price: "0.000001", destination: args.text}
"""
AGENTS, CALLERS = 8, 16
AT_LEAST = 0.90
"""Of the throughput with all rules off."""
Z_95 = 1.96


@dataclass
class Side:
    """One of the two brokers, and what each round took."""

    broker: BrokerProcess
    callers: list[Caller]
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    async def burst(self, calls: int, number: int) -> None:
        """So many calls, all callers at once, none equal to another."""

        async def line(which: int, caller: Caller) -> None:
            for call in range(calls // len(self.callers)):
                answer = await caller.call("http__echo", {"text": "{}", "n": f"{number}/{which}/{call}"})
                if answer.kind != "result":
                    raise processes.Failed(f"a call was not answered: {answer}")

        before, begun = processes.cpu_s(self.broker.pid), time.perf_counter()
        await asyncio.gather(*(line(which, caller) for which, caller in enumerate(self.callers)))
        self.seconds.append(time.perf_counter() - begun)
        if before is not None:
            self.cpu_s.append((processes.cpu_s(self.broker.pid) or before) - before)


def main() -> int:
    asked = _arguments()
    on = OFF + RULES.read_text(encoding="utf-8").replace('version: "1"\n', "")
    with tempfile.TemporaryDirectory(prefix="haltline-rules-", dir=asked.scratch) as scratch, ExitStack() as stack:
        folder = Path(scratch)
        port, _ = stack.enter_context(processes.server("upstream.py", folder=folder))
        upstreams = {"http": {"url": f"http://127.0.0.1:{port}/mcp", "max_concurrent": 64}}
        off, ruled = (
            _opened(stack.enter_context(broker_process(folder / name, upstreams=upstreams, policy=policy)))
            for name, policy in (("off", OFF), ("on", on))
        )
        print(f"on {described(folder)}, load {load_a_core():.1f} a core")
        asyncio.run(_rounds(off, ruled, asked.rounds, asked.calls))
    return 0 if _told(off, ruled, asked.calls) else 1


def _opened(broker: BrokerProcess) -> Side:
    broker.await_tools("http__echo")
    opened = broker.open([f"agent-{number}" for number in range(AGENTS)], "production", each=CALLERS // AGENTS)
    return Side(broker, [Caller(broker.agents_port, one.token, "json") for one in opened])


async def _rounds(off: Side, on: Side, rounds: int, calls: int) -> None:
    for number in range(rounds + 1):
        for side in (off, on) if number % 2 else (on, off):
            await side.burst(calls, number)
        if number == 0:  # it warms up
            for side in (off, on):
                side.seconds.clear()
                side.cpu_s.clear()


def _told(off: Side, on: Side, calls: int) -> bool:
    speed = [without / ruled for without, ruled in zip(off.seconds, on.seconds, strict=True)]
    for name, side in (("off", off), ("on", on)):
        cpu = f", {statistics.median(side.cpu_s) / calls * 1e6:.0f} µs of CPU a call" if side.cpu_s else ""
        print(f"rules {name}: {calls / statistics.median(side.seconds):.0f} calls/s{cpu}")
    mean, within = _interval(speed)
    print(f"throughput with all rules on: {mean:.3f} ± {within:.3f} of that with all off ({len(speed)} paired rounds)")
    if off.cpu_s and on.cpu_s:
        mean, within = _interval([without / ruled for without, ruled in zip(off.cpu_s, on.cpu_s, strict=True)])
        print(f"calls for the same CPU time:  {mean:.3f} ± {within:.3f}")
    print(f"→ at least {AT_LEAST:g}: {'yes' if mean - within >= AT_LEAST else 'no'}")
    return mean - within >= AT_LEAST


def _interval(ratios: list[float]) -> tuple[float, float]:
    """Their mean and half the width of its 95 % interval, the outermost tenth left out on either side."""
    kept = sorted(ratios)[len(ratios) // 10 : len(ratios) - len(ratios) // 10]
    spread = statistics.stdev(kept) if len(kept) > 1 else 0.0
    return statistics.fmean(kept), Z_95 * spread / len(kept) ** 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=45, help="with more, a rule tells of sessions of 1,000 calls")
    parser.add_argument("--calls", type=int, default=320, help="in each round, of each broker")
    parser.add_argument("--quick", action="store_true", help="four rounds: does everything work?")
    parser.add_argument("--scratch", type=Path, help="where the brokers' data lies meanwhile; a real disk")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds = 4
    return asked


if __name__ == "__main__":
    sys.exit(main())
