"""Revokes under load: when one has returned, no byte of that session's calls leaves and no result reaches it (P3, R17).

Its callers are in the middle of calls, in every mode and at both eras of upstreams; bystanders of other sessions must not
notice. When bytes left and when they arrived is the kernel's word, on the clock on which the revoke returned, so that
neither a late reader counts as late bytes nor the other way round.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.revoking import Revoked, Revoking, revoking
from support.small_caps import POLICY, upstream
from support.stored_calls import stored_calls

TOOLS = ("now__pay", "old__pay")
AT_WORK = 5
"""Sessions that work while the next is revoked, each with three callers; and as many callers who are bystanders."""
AFTERWARDS = 2
"""Calls of each caller after it has read that its session was revoked."""
TYPED_BELOW_MS = 300


@dataclass
class Victim:
    opened: Opened
    working: anyio.Event = field(default_factory=anyio.Event)
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    ended: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)


class Load:
    def __init__(self, broker: BrokerProcess, dice: random.Random) -> None:
        self.broker = broker
        self.dice = dice
        self.bystanders: Counter[str] = Counter()
        self.victims: list[Victim] = []
        self.revoked: list[Revoked] = []

    async def bystand(self, opened: Opened, mode: str) -> None:
        caller = Caller(self.broker.agents_port, opened.token, mode)
        count = 0
        while True:
            count += 1
            told = {"reference": f"bystander-{opened.session}-{mode}-{count}", "wait_ms": self.dice.choice((0, 10))}
            answer = await caller.call(self.dice.choice(TOOLS), told)
            self.bystanders["result" if answer.kind == "result" else f"{answer.kind} {answer.code}"] += 1

    def begin(self, opened: Opened, tasks: TaskGroup) -> Victim:
        victim = Victim(opened)
        self.victims.append(victim)
        for mode in MODES:
            tasks.start_soon(self._work, victim, mode)
        return victim

    async def _work(self, victim: Victim, mode: str) -> None:
        caller = Caller(self.broker.agents_port, victim.opened.token, mode)
        left = AFTERWARDS
        count = 0
        while left:
            count += 1
            reference = f"{victim.opened.session}-{mode}-{count}"
            told = {"reference": reference, "wait_ms": self.dice.choice((0, 0, 5, 30, 2_000))}
            if count == 2:
                victim.working.set()
            answer = await caller.call(self.dice.choice(TOOLS), told)
            victim.answers.append((reference, answer))
            left -= answer.code == "session.revoked"
            if count > 10_000:
                break
        caller.cut()
        victim.ended += 1
        if victim.ended == len(MODES):
            victim.done.set()

    async def revoke(self, victim: Victim, hand: Revoking) -> None:
        await victim.working.wait()
        await anyio.sleep(self.dice.uniform(0, 0.02))  # at whatever instant of its calls
        self.revoked.append(await anyio.to_thread.run_sync(hand.revoke, victim.opened.session))


@pytest.mark.promise("P3", "P5", "P7", "R17")
async def test_after_a_revoke_has_returned_nothing_is_sent_and_nothing_is_delivered(tmp_path: Path, long: bool):
    revokes = 1_000 if long else 60
    seed = time.time_ns()
    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
        with (
            broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker,
            revoking(broker) as hand,
        ):
            broker.await_tools(*TOOLS)
            agents = [f"victim-{number}" for number in range(10)]
            opened = broker.open(agents, "wide", each=revokes // len(agents))
            others = broker.open(["bystander-1", "bystander-2"], "wide")
            load = Load(broker, random.Random(seed))
            begun = time.perf_counter()
            await _under_load(load, opened, others, hand)
            took_s = time.perf_counter() - begun
            typed_ms = await anyio.to_thread.run_sync(_typed, load, broker.open(["typed"], "wide", each=10))
            broker.stop()
            receipts = [*now.all(), *old.all()]
            verified = broker.verify()
    figures = Figures(f"{revokes} revokes under load (seed {seed})")
    _judge(figures, load, receipts, broker, took_s)
    figures.times("revoke, at its client", [one.took_ms for one in load.revoked])
    figures.times("revoke, typed until it is back", typed_ms, p99_below_ms=TYPED_BELOW_MS)
    figures.times("beside it, an interpreter that does nothing", _nothing_ms())
    figures.chain(verified)
    figures.show()


async def _under_load(load: Load, opened: list[Opened], others: list[Opened], hand: Revoking) -> None:
    async with anyio.create_task_group() as bystanders:
        for other in others:
            for mode in MODES:
                bystanders.start_soon(load.bystand, other, mode)
        async with anyio.create_task_group() as tasks:
            queue = [load.begin(one, tasks) for one in opened[:AT_WORK]]
            rest = iter(opened[AT_WORK:])
            while queue:
                victim = queue.pop(0)
                await load.revoke(victim, hand)
                with anyio.fail_after(20):
                    await victim.done.wait()
                following = next(rest, None)
                if following is not None:
                    queue.append(load.begin(following, tasks))
        bystanders.cancel_scope.cancel()


def _judge(figures: Figures, load: Load, receipts: list, broker: BrokerProcess, took_s: float) -> None:
    returned = {one.session: one.returned_ns for one in load.revoked}
    stored = stored_calls(broker.database)
    states = {reference: one.state for reference, one in stored.items()}
    late_bytes, late_voided, blurred = [], [], 0
    for receipt in receipts:
        session = receipt.reference.partition("-")[0]
        if session in returned and receipt.at_ns > returned[session]:
            if receipt.exact:
                late_bytes.append((receipt.reference, receipt.at_ns - returned[session]))
            blurred += not receipt.exact
        if states.get(receipt.reference) == "voided":
            late_voided.append(receipt.reference)
    answers = [(victim, *answer) for victim in load.victims for answer in victim.answers]
    late = [
        (reference, answer.at_ns - returned[victim.opened.session])
        for victim, reference, answer in answers
        if answer.kind == "result" and answer.at_ns > returned[victim.opened.session]
    ]
    others = Counter(answer.code for _, _, answer in answers if answer.kind != "result")
    mine = [one for one in stored.values() if one.session in returned]
    figures.note(
        "revoked in the middle of calls", f"{sum(one.cancelled for one in load.revoked)} calls in {took_s:.1f} s"
    )
    figures.note("calls of the revoked sessions", dict(Counter(one.state for one in mine)))
    figures.note("answers to them but results", dict(others))
    figures.note("seen leaving by a tap", f"{sum(one.exact for one in receipts)} of {len(receipts)} received")
    if blurred:
        figures.note("not seen leaving, and read after the revoke returned: cannot be told", blurred)
    figures.zero("first bytes that left after the revoke returned", late_bytes)
    figures.zero("received, but recorded as never sent", late_voided)
    figures.zero(
        "received without a call.allowed event", [one.reference for one in receipts if one.reference not in stored]
    )
    figures.zero("results delivered after the revoke returned", late)
    figures.zero("answers but results and session.revoked", [code for code in others if code != "session.revoked"])
    figures.zero("holds left", [one.reference for one in stored.values() if one.state == "held"])
    failures = sum(count for what, count in load.bystanders.items() if what != "result")
    figures.must(
        f"bystanders' failures (of {load.bystanders.total()} calls)", dict(load.bystanders), failures == 0, "0"
    )
    met = sum(one.cancelled > 0 for one in load.revoked)
    figures.must("revokes that met running calls", met, met > len(load.revoked) * 0.9, "nearly all")


def _typed(load: Load, sessions: list[Opened]) -> list[float]:
    """`haltline revoke` as a person types it, from the start of its process to its end."""
    took = []
    for one in sessions:
        ran = load.broker.haltline("revoke", one.session, "--reason", "typed")
        assert ran.code == 0, ran.err
        took.append(ran.took_ms)
    return took


def _nothing_ms() -> list[float]:
    took = []
    for _ in range(10):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        took.append((time.perf_counter() - begun) * 1000)
    return took
