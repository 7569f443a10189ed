"""What the two transactions of a call cost the processor: the broker's own units, in this process, without sockets.

64 agents with a session each call a tool through `Broker`'s units of work on a real file with `synchronous=FULL`, the shipped
rules and signals on. CPU time, not time that passes, so that a busy machine changes little; the loop's half of a delivery
counts apart. `--against` runs another checkout in turns with this one.

usage: python tests/bench/units.py [--against CHECKOUT] [--rounds N] [--calls N] [--profile] [--folder ON A REAL DISK]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import brokered
import machine
from processes import CHECKOUT, Failed

from haltline.calls import records
from haltline.calls.call import Admitted
from haltline.calls.dispatch import Outcome
from haltline.clock import Clock
from haltline.store.turn import Job, Turn
from support.scripted import ScriptedUpstream
from support.world import Request, world

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline.calls.running import Running
    from haltline.store.writer import Tx
    from support.world import World

__all__ = ["main"]

AGENTS = 64
BATCHES = (1, 16, 64)
CALLS = 4096
WARM = 640
TOOL = "http__echo"
RATES = ("transaction 1", "transaction 2", "delivery")


class Units:
    """A broker's parts, its agents, and the units of their calls run batch by batch in the order of a busy writer."""

    def __init__(self, made: World, tokens: list[str]) -> None:
        self._made = made
        self._tokens = tokens
        self._target = made.parts.catalog.tool(TOOL)
        self._count = 0
        self.spent_s = dict.fromkeys(RATES, 0.0)

    def run(self, calls: int, batch: int) -> None:
        for _ in range(0, calls, batch):
            requests = [self._request() for _ in range(batch)]
            running = [self._made.parts.calls.open() for _ in requests]
            decided = self._commit("transaction 1", [self._decide(*one) for one in zip(running, requests, strict=True)])
            ended = [self._record(*one) for one in zip(running, requests, decided, strict=True)]
            self._commit("transaction 2", ended)
            for one in running:
                self._made.parts.calls.close(one)

    def _request(self) -> Request:
        self._count += 1
        text = f"h{self._count % AGENTS}-{self._count}"
        request = Request(self._tokens[self._count % AGENTS], TOOL, {"text": text})
        request.target = self._target
        request.params["name"] = "echo"
        return request

    def _decide(self, running: Running, request: Request) -> Callable[[Tx], Any]:
        return lambda tx: self._made.broker._decide(tx, running, request)

    def _record(self, running: Running, request: Request, admitted: Any) -> Callable[[Tx], None]:
        if not isinstance(admitted, Admitted):
            raise Failed(f"a call was not admitted: {admitted}")
        result = {"content": [{"type": "text", "text": request.arguments["text"]}], "isError": False}
        outcome = Outcome("answered", {"jsonrpc": "2.0", "id": 1, "result": result})
        return lambda tx: records.ended(tx, self._made.parts, running, admitted, outcome)

    def _commit(self, which: str, units: list[Callable[[Tx], Any]]) -> list[Any]:
        """One group commit, as the event loop and the writer's thread do it; then its delivery."""
        jobs = [Job(unit, _Nobody(), from_memory=True) for unit in units]  # type: ignore[arg-type]  # a future that nobody waits for
        begun = time.thread_time()
        turn = Turn(jobs, self._made.parts.writer._now_us())
        turn.run_from_memory(60.0)
        self._made.parts.writer._commit(turn)
        middle = time.thread_time()
        for job in jobs:
            job.deliver()
        self.spent_s["delivery"] += time.thread_time() - middle
        self.spent_s[which] += middle - begun
        return [job.outcome() for job in jobs]


class _Nobody:
    @staticmethod
    def done() -> bool:
        return True


async def measured(folder: Path, calls: int, profile: cProfile.Profile | None) -> dict[str, dict[str, float]]:
    """By batch size: microseconds of CPU a call in each part."""
    policies = folder / "policies"
    shipped = sorted((CHECKOUT / "policies").glob("*.yaml"))
    policies.mkdir()
    for file in shipped:
        (policies / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    brokered._raise_caps(policies)
    policy = f'version: "1"\ntools: {{{TOOL}: {{price: "{brokered.PRICE}"}}}}\n'
    upstream = ScriptedUpstream("http", ("echo",))
    upstream.tools[0]["inputSchema"] = {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    }
    found: dict[str, dict[str, float]] = {}
    async with world(folder, policy=policy, upstreams=(upstream,), clock=Clock()) as made:  # type: ignore[arg-type]
        tokens = []
        for number in range(AGENTS):
            agent = await made.agent(f"bench-{number}", brokered.TIERS[number % len(brokered.TIERS)])
            tokens.append((await made.session(agent))[1])
        await made.parts.writer.aclose()  # its thread ends, and this one opens the store again and is the writer
        made.parts.writer._connection = None
        units = Units(made, tokens)
        units.run(WARM, AGENTS)
        for batch in BATCHES:
            units.spent_s = dict.fromkeys(RATES, 0.0)
            with profile if profile is not None and batch == BATCHES[-1] else nullcontext():
                units.run(calls, batch)
            found[str(batch)] = {name: spent / calls * 1e6 for name, spent in units.spent_s.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, help="another checkout, run in turns with this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--folder", type=Path, help="a folder on a real disk")
    parser.add_argument("--profile", action="store_true", help="where the time goes, function by function")
    parser.add_argument("--json", action="store_true", help="one round of this checkout, for --against")
    given = parser.parse_args()
    if given.json or given.profile:
        profile = cProfile.Profile() if given.profile else None
        with tempfile.TemporaryDirectory(prefix="haltline-units-", dir=given.folder) as name:
            figures = asyncio.run(measured(Path(name), given.calls, profile))
        if profile is not None:
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        print(json.dumps(figures))
        return
    print(machine.described(given.folder or Path(tempfile.gettempdir())))
    checkouts = [CHECKOUT, *([given.against.resolve()] if given.against else [])]
    rounds: dict[Path, list[dict[str, Any]]] = {one: [] for one in checkouts}
    for number in range(given.rounds):
        for checkout in checkouts if number % 2 else reversed(checkouts):
            rounds[checkout].append(_round(checkout, given))
    for checkout in reversed(checkouts):
        _say(str(checkout), rounds[checkout])


def _round(checkout: Path, given: argparse.Namespace) -> dict[str, Any]:
    code = os.pathsep.join(str(checkout / folder) for folder in ("server", "clients", "tests"))
    command = [sys.executable, str(checkout / "tests/bench/units.py"), "--json", "--calls", str(given.calls)]
    command += ["--folder", str(given.folder)] if given.folder else []
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": code}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{checkout}: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _say(name: str, rounds: list[dict[str, Any]]) -> None:
    print(f"\n{name}: µs of CPU a call, the least of {len(rounds)} rounds")
    print(f"{'batch':>6} " + " ".join(f"{rate:>14}" for rate in (*RATES, "together")))
    for batch in map(str, BATCHES):
        figures = [min(one[batch][rate] for one in rounds) for rate in RATES]
        print(f"{batch:>6} " + " ".join(f"{figure:14.1f}" for figure in (*figures, sum(figures[:2]))))


if __name__ == "__main__":
    main()
