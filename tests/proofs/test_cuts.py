"""Callers that hang up in the middle of a call: each call ends exactly once, whatever the mode and the instant (P7, R13).

At 2026-07-28 hanging up cancels, before it does not; the books must come out even in both.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Caller
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.small_caps import POLICY, PRICE_MICROS, upstream
from support.stored_calls import stored_calls

TOOLS = ("now__pay", "old__pay")
AT_ONCE = 6
PLACES = 8
"""Of an upstream: few, so that one that is not given back is missed at once."""
ATTEMPTS_MAX = 20


class Cutter:
    """Makes calls and hangs up; goes on until so many of them were admitted."""

    def __init__(self, broker: BrokerProcess, opened: Opened, mode: str, dice: random.Random) -> None:
        self.broker = broker
        self.opened = opened
        self.mode = mode
        self.dice = dice
        self.count = 0
        self.answered = 0

    async def one(self) -> None:
        self.count += 1
        caller = Caller(self.broker.agents_port, self.opened.token, self.mode)
        told = {"reference": f"{self.mode}-{self.count}", "wait_ms": self.dice.choice((0, 10, 30, 100))}
        if self.mode == "handshake":
            await caller.open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._call, caller, told)
            while not caller.sent:
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(self.dice.uniform(0, 0.06))  # at whatever instant of the call
            caller.cut(reset=self.dice.random() < 0.3)

    async def _call(self, caller: Caller, told: dict[str, object]) -> None:
        answer = await caller.call(self.dice.choice(TOOLS), told)
        self.answered += answer.kind == "result"

    def admitted(self) -> int:
        return sum(one.session == self.opened.session for one in stored_calls(self.broker.database).values())

    async def until(self, wanted: int) -> None:
        for _ in range(ATTEMPTS_MAX):
            missing = wanted - await anyio.to_thread.run_sync(self.admitted)
            if missing <= 0:
                return
            for start in range(0, missing, AT_ONCE):
                async with anyio.create_task_group() as tasks:
                    for _ in range(min(AT_ONCE, missing - start)):
                        tasks.start_soon(self.one)
        raise AssertionError(f"{self.mode}: fewer than {wanted} of {self.count} calls were admitted")


@pytest.mark.promise("P7", "R11", "R13")
async def test_every_call_that_was_cut_is_settled_voided_or_in_doubt_exactly_once(tmp_path: Path, long: bool):
    wanted = 500 if long else 60
    seed = time.time_ns()
    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        few = {"max_concurrent": PLACES * 2}
        upstreams = {"now": upstream(now.url, **few), "old": upstream(old.url, **few)}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            broker.await_tools(*TOOLS)
            opened = broker.open([f"cutter-{mode}" for mode in MODES], "wide")
            cutters = [Cutter(broker, one, mode, random.Random(seed)) for one, mode in zip(opened, MODES, strict=True)]
            for cutter in cutters:
                await cutter.until(wanted)
            await _quiet(broker)
            places = [await _all_places(broker, one, tool) for one in opened for tool in TOOLS]
            received = {one.reference for one in [*now.all(), *old.all()]}
            code = broker.stop()
            stored = stored_calls(broker.database)
            verified = broker.verify()
    figures = Figures(f"{wanted} calls cut at any instant in each of {len(MODES)} modes (seed {seed})")
    for cutter in cutters:
        mine = [one for one in stored.values() if one.reference.startswith(f"{cutter.mode}-")]
        states = Counter(one.state for one in mine)
        ended = states["settled"] + states["voided"] + states["in_doubt"]
        figures.note(cutter.mode, f"{cutter.count} calls, {cutter.answered} answered before the cut: {dict(states)}")
        figures.equal(f"{cutter.mode}: settled + voided + in doubt", ended, len(mine))
        figures.must(f"{cutter.mode}: admitted", len(mine), len(mine) >= wanted, f"{wanted} or more")
        figures.zero(f"{cutter.mode}: calls with another than one end", [one for one in mine if _ends(one.later) != 1])
    figures.zero("received without a call.allowed event", sorted(received - set(stored)))
    figures.zero("received, but recorded as never sent", [one for one in received if stored[one].state == "voided"])
    wrong = [one for one in stored.values() if one.state == "settled" and one.charged != PRICE_MICROS]
    figures.zero("settled at another amount than the price", wrong)
    figures.equal("places of the upstreams free for each agent afterwards", min(places), PLACES)
    figures.chain(verified)
    figures.equal("exit code", code, 0)
    figures.show()


def _ends(later: str) -> int:
    return sum(kind in {"call.succeeded", "call.failed", "call.voided", "call.in_doubt"} for kind in later.split(","))


async def _quiet(broker: BrokerProcess) -> None:
    """Until nothing is held any more, or for long enough."""
    for _ in range(200):
        stored = await anyio.to_thread.run_sync(stored_calls, broker.database)
        if not any(one.state == "held" for one in stored.values()):
            return
        await anyio.sleep(0.05)  # another process has no event to wait for


async def _all_places(broker: BrokerProcess, opened: Opened, tool: str) -> int:
    """How many calls of one agent run at once: each waits long enough that all must overlap."""
    answers: list[str] = []

    async def one(number: int) -> None:
        caller = Caller(broker.agents_port, opened.token, "json")
        answer = await caller.call(tool, {"reference": f"place-{opened.agent}-{tool}-{number}", "wait_ms": 150})
        answers.append(answer.kind)
        caller.cut()

    with anyio.move_on_after(10):
        async with anyio.create_task_group() as tasks:
            for number in range(PLACES):
                tasks.start_soon(one, number)
    return answers.count("result")
