"""Calls that lose their reply and are sent again with their idempotency key: carried out once, charged once (R13).

Callers in every mode hang up before the reply and ask again; the broker is killed between a call and its retry; and the
upstream itself counts what it carried out.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller, Mode
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.small_caps import POLICY, PRICE_MICROS, upstream
from support.stored_calls import stored_calls

TOOLS = ("now__pay", "old__pay")
AT_ONCE = 12
WAIT_MS = 300
"""How long the upstream takes, longer than any caller waits before it hangs up."""
HANG_UP_S = 0.05
STILL_RUNS = "call.running"
ASK_AGAIN_S = 0.05
GIVE_UP_S = 60.0


@dataclass
class One:
    """One call that is made again, and all it was answered."""

    reference: str
    tool: str
    mode: Mode
    opened: Opened
    answers: list[Answer] = field(default_factory=list)

    def told(self, mark: str = "") -> dict[str, object]:
        return {"reference": self.reference, "wait_ms": WAIT_MS, "mark": mark}


class Retriers:
    def __init__(self, broker: BrokerProcess, opened: list[Opened], seed: int) -> None:
        self._broker = broker
        self._dice = random.Random(seed)
        self._opened = opened

    def calls(self, count: int, name: str) -> list[One]:
        return [
            One(f"{name}-{number}", self._dice.choice(TOOLS), MODES[number % 3], self._opened[number % 3])
            for number in range(count)
        ]

    async def cut(self, one: One) -> None:
        """Call, and hang up before the reply."""
        caller = Caller(self._broker.agents_port, one.opened.token, one.mode)
        if one.mode == "handshake":
            await caller.open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._first, caller, one)
            while not caller.sent:
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(self._dice.uniform(0, HANG_UP_S))  # at whatever instant of the call
            caller.cut(reset=self._dice.random() < 0.3)

    @staticmethod
    async def _first(caller: Caller, one: One) -> None:
        one.answers.append(await caller.call(one.tool, one.told(), key=one.reference))

    async def ask(self, one: One, mark: str = "") -> None:
        """Call again with the same key until it says something else than that the first still runs."""
        caller = Caller(self._broker.agents_port, one.opened.token, one.mode)
        with anyio.move_on_after(GIVE_UP_S):
            while True:
                answer = await caller.call(one.tool, one.told(mark), key=one.reference)
                if answer.code != STILL_RUNS:
                    break
                await anyio.sleep(ASK_AGAIN_S)  # another process has no event to wait for
            one.answers.append(answer)
        caller.cut()

    async def each(self, calls: list[One], act, *more: str) -> None:
        limit = anyio.CapacityLimiter(AT_ONCE)

        async def bounded(one: One) -> None:
            async with limit:
                await act(one, *more)

        async with anyio.create_task_group() as tasks:
            for one in calls:
                tasks.start_soon(bounded, one)


@pytest.mark.promise("R13", "P2", "P7")
async def test_calls_cut_before_the_reply_and_sent_again_run_and_cost_once(tmp_path: Path, long: bool):
    count, seed = (500 if long else 60), time.time_ns()
    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            broker.await_tools(*TOOLS)
            retriers = Retriers(broker, broker.open([f"agent-{mode}" for mode in MODES], "wide"), seed)
            calls = retriers.calls(count, "cut")
            await retriers.each(calls, retriers.cut)
            lost = sum(one.answers[0].kind == "lost" for one in calls)
            await retriers.each(calls, retriers.ask)
            received = Counter(one.reference for one in [*now.all(), *old.all()])
            await retriers.each(calls, retriers.ask, "changed")
            later = sum(len(upstream_.all()) for upstream_ in (now, old))
            stored = stored_calls(broker.database)
            verified = broker.verify()
            code = broker.stop()
    figures = Figures(
        f"{count} calls cut before the reply, sent again with their key, in {len(MODES)} modes (seed {seed})"
    )
    figures.equal("cut before the reply", lost, count)
    right = [one for one in calls if one.answers[1].said == {"reference": one.reference, "mark": ""}]
    figures.equal("answered as the first would have been", len(right), count)
    figures.equal("executions at the upstreams", received.total(), count)
    figures.zero("executed twice", [one for one, times in received.items() if times > 1])
    figures.equal("charges", sum(one.charged for one in stored.values()) // PRICE_MICROS, count)
    figures.equal("changed arguments refused", _codes(calls, 2)["args.idempotency_mismatch"], count)
    figures.equal("executions after those", later, count)
    figures.chain(verified)
    figures.equal("exit code", code, 0)
    figures.show()


@pytest.mark.promise("R13", "R10", "P1")
async def test_a_kill_between_a_call_and_its_retry_sends_none_twice(tmp_path: Path, long: bool):
    kills, each, seed = (12 if long else 2), (60 if long else 30), time.time_ns()
    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            broker.await_tools(*TOOLS)
            retriers = Retriers(broker, broker.open([f"agent-{mode}" for mode in MODES], "wide"), seed)
            every: list[One] = []
            for number in range(kills):
                calls = retriers.calls(each, f"killed-{number}")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(retriers.each, calls, retriers.ask)
                    while sum(bool(one.answers) for one in calls) < each // 3:
                        await anyio.sleep(0.005)  # in the midst of them
                    await anyio.to_thread.run_sync(broker.kill)
                await anyio.to_thread.run_sync(broker.start)
                await anyio.to_thread.run_sync(lambda: broker.await_tools(*TOOLS))
                await retriers.each(calls, retriers.ask)
                every += calls
            received = Counter(one.reference for one in [*now.all(), *old.all()])
            stored = stored_calls(broker.database)
            verified = broker.verify()
    _after_kills(every, received, stored, verified, f"{kills} kills -9 between calls and their retries (seed {seed})")


def _after_kills(every, received, stored, verified, title: str) -> None:
    answered = [one for one in every if one.answers[0].kind == "result"]
    said = Counter(one.answers[-1].code or one.answers[-1].kind for one in every)
    doubtful = [one for one in every if one.answers[-1].code == "call.in_doubt"]
    figures = Figures(title)
    figures.note("what the retries were told", dict(said))
    figures.zero("executed twice", [one for one, times in received.items() if times > 1])
    figures.zero("answered before the kill, and not the same again", [one for one in answered if _differs(one)])
    figures.zero(
        "told a result, never executed", [one for one in every if one.answers[-1].said and not received[one.reference]]
    )
    figures.zero(
        "in doubt, but settled or voided", [one for one in doubtful if stored[one.reference].state != "in_doubt"]
    )
    figures.equal("told their result or that they are in doubt", said["result"] + said["call.in_doubt"], len(every))
    figures.must("kills met running calls", len(doubtful), bool(doubtful), "> 0")
    figures.must("calls ended before a kill", len(answered), bool(answered), "> 0")
    figures.chain(verified)
    figures.show()


def _differs(one: One) -> bool:
    return one.answers[0].said != one.answers[-1].said


def _codes(calls: list[One], index: int) -> Counter[str]:
    return Counter(one.answers[index].code for one in calls if len(one.answers) > index)
