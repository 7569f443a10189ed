"""Brokered calls with all shipped rules on against all off: interleaved rounds in one process, ratios paired by round.

Real store and policy, an upstream that answers at once, so that nothing hides what the rules cost.
usage: PYTHONPATH=server:clients:tests python tests/bench/rules.py [ROUNDS] [CALLS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from haltline.calls.watcher import Watcher
from haltline.clock import Clock
from support.world import World, world

__all__ = ["main"]

WAITERS = 32
RULES = Path(__file__).parents[2] / "policies" / "rules.yaml"
OFF = """
version: "1"
tiers:
  experimental: {tools: []}
  staging: {tools: []}
  production: {tools: ["*"], caps: {task: "1000.00", day: "10000.00"}}
tools:
  payments__charge: {price: "0.000001", destination: args.payee}
"""


async def burst(there: World, token: str, calls: int, round_number: int) -> float:
    """Seconds for so many calls, `WAITERS` at once, none equal to another."""

    async def line(number: int) -> None:
        for call in range(calls // WAITERS):
            answer = await there.call(token, arguments={"payee": "acme", "n": f"{round_number} {number} {call}"})
            assert not answer["result"].get("isError"), answer

    begun = time.perf_counter()
    await asyncio.gather(*(line(number) for number in range(WAITERS)))
    return time.perf_counter() - begun


async def measure(rounds: int, calls: int) -> None:
    on = OFF + RULES.read_text(encoding="utf-8").replace('version: "1"\n', "")
    ratios = []
    async with AsyncExitStack() as stack:
        worlds: list[tuple[World, str]] = []
        for policy in (OFF, on):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            there = await stack.enter_async_context(world(folder, policy=policy, clock=Clock()))  # type: ignore[arg-type]
            _, token = await there.session(await there.agent(tier="production"))
            watching = asyncio.create_task(Watcher(there.parts).run())
            stack.callback(watching.cancel)
            worlds.append((there, token))
        for number in range(rounds + 1):
            order = (0, 1) if number % 2 else (1, 0)
            took = {which: await burst(*worlds[which], calls, number) for which in order}
            if number:  # the first round warms up
                ratios.append(took[0] / took[1])
                print(f"round {number}: off {calls / took[0]:7.0f}/s   on {calls / took[1]:7.0f}/s   {ratios[-1]:.3f}")
    print(f"throughput with all rules on: {statistics.median(ratios):.3f} of that with all off (median of {rounds})")


def main() -> None:
    asked = [int(one) for one in sys.argv[1:]] or [8, 1600]
    asyncio.run(measure(asked[0], asked[1] if len(asked) > 1 else 1600))


if __name__ == "__main__":
    main()
