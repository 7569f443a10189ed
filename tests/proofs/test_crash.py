"""kill -9 of the broker under load, again and again: nothing left without a record, nothing twice, no cap exceeded (P1, P2).

Sessions of several agents, in every mode and with upstreams of both eras, run into their caps while they are killed. After
each kill the broker is started on what is there, and what it says is laid beside what the upstreams received.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from bench import processes
from bench.load import percentile
from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller
from support.counting_upstream import Receipt, Receipts, counting_upstream
from support.figures import Figures, busy
from support.small_caps import DAY_MICROS, POLICY, TASK_MICROS, upstream
from support.stored_calls import halts_set, over_cap, stored_calls

SMALL_A_ROUND = 4
"""Agents that run into their caps, and beside them as many that go on until the kill."""
SESSIONS_AN_AGENT = 3
TOOLS = ("now__pay", "old__pay")
READY_BELOW_S = 2


class Story:
    """What all rounds together have shown."""

    def __init__(self, broker: BrokerProcess, upstreams: tuple[Receipts, Receipts], dice: random.Random) -> None:
        self.broker = broker
        self.upstreams = upstreams
        self.dice = dice
        self.ready_s: list[float] = []
        self.ready_cpu_s: list[float] = []
        self.answers: Counter[str] = Counter()
        self.delivered: set[str] = set()
        self.halts_lost: list[object] = []
        self.halts_kept = 0
        self.not_refused: list[Answer] = []

    def receipts(self) -> list[Receipt]:
        return [one for upstream_ in self.upstreams for one in upstream_.all()]

    async def round(self, number: int) -> None:
        opened = await anyio.to_thread.run_sync(self._opened, number)
        with anyio.move_on_after(15), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                for index, one in enumerate(opened):
                    for mode in (MODES[index % 3], MODES[(index + 1) % 3]):
                        tasks.start_soon(self._work, one, mode, f"{number}-{index}-{mode}")
                await anyio.sleep(self.dice.uniform(0.15, 0.9))  # the kill comes when it comes, not when it suits
                await anyio.to_thread.run_sync(self.broker.kill)
                scope.cancel()
        await anyio.to_thread.run_sync(self._restarted)
        await self._still_halted(opened)

    def _opened(self, number: int) -> list[Opened]:
        small = [f"small-{number}-{index}" for index in range(SMALL_A_ROUND)]
        wide = [f"wide-{number}-{index}" for index in range(SMALL_A_ROUND)]
        opened = [
            self.broker.open(agents, tier, each=SESSIONS_AN_AGENT)
            for agents, tier in ((small, "small"), (wide, "wide"))
        ]
        return [*opened[0], *opened[1]]

    async def _work(self, one: Opened, mode: str, name: str) -> None:
        """Calls, one after the other, until the broker is gone."""
        caller = Caller(self.broker.agents_port, one.token, mode)
        for count in range(1_000_000):
            reference = f"{name}-{count}"
            wait_ms = self.dice.choice((0, 0, 5, 40))
            answer = await caller.call(self.dice.choice(TOOLS), {"reference": reference, "wait_ms": wait_ms})
            self.answers[f"{answer.kind} {answer.code}" if answer.kind == "refused" else answer.kind] += 1
            if answer.kind == "result":
                self.delivered.add(reference)
            if answer.kind == "lost":
                return

    def _restarted(self) -> None:
        before = halts_set(self.broker.database)
        self.ready_s.append(self.broker.start())
        self.ready_cpu_s.append(processes.cpu_s(self.broker.pid) or 0.0)
        after = halts_set(self.broker.database)
        self.halts_lost += before - after
        self.halts_kept += len(before)
        self.broker.await_tools(*TOOLS)

    async def _still_halted(self, opened: list[Opened]) -> None:
        halted = {one.subject_id for one in halts_set(self.broker.database) if one.scope == "session"}
        for one in opened:
            if one.session in halted:
                caller = Caller(self.broker.agents_port, one.token, "json")
                answer = await caller.call("now__pay", {"reference": f"after-halt-{one.session}"})
                if answer.kind != "refused" or answer.code not in {"session.halted", "agent.halted"}:
                    self.not_refused.append(answer)
                caller.cut()


@pytest.mark.promise("P1", "P2", "P4", "P7", "R10", "R15")
async def test_no_kill_makes_a_call_unrecorded_or_sent_twice_or_a_cap_exceeded_or_a_halt_forgotten(
    tmp_path: Path, long: bool
):
    kills = 50 if long else 3
    seed = time.time_ns()
    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            await anyio.to_thread.run_sync(lambda: broker.await_tools(*TOOLS))
            story = Story(broker, (now, old), random.Random(seed))
            for number in range(kills):
                await story.round(number)
            await anyio.to_thread.run_sync(lambda: _reckoning(story, kills, seed))


def _reckoning(story: Story, kills: int, seed: int) -> None:
    code = story.broker.stop()
    stored = stored_calls(story.broker.database)
    received = Counter(one.reference for one in story.receipts())
    states = Counter(one.state for one in stored.values())
    known = {reference for reference in received if reference in stored}
    in_doubt = {reference for reference in known if stored[reference].state == "in_doubt"}
    settled = {reference for reference in known if stored[reference].state == "settled"}
    verified = story.broker.verify()

    figures = Figures(f"kill -9 under load, {kills} times (seed {seed})")
    figures.note(
        "calls admitted", f"{len(stored)}: " + ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    )
    figures.note("calls received by the upstreams", sum(received.values()))
    figures.note("answers", ", ".join(f"{n} {what}" for what, n in story.answers.most_common()))
    figures.zero("received without a call.allowed event", sorted(set(received) - set(stored)))
    figures.zero("received twice", [reference for reference, count in received.items() if count > 1])
    figures.zero("received, neither settled nor in doubt", sorted(known - settled - in_doubt))
    figures.zero(
        "delivered, not settled",
        sorted(story.delivered - {key for key, one in stored.items() if one.state == "settled"}),
    )
    small = [one for one in stored.values() if one.agent.startswith("small")]
    figures.zero("micro-units over any cap", over_cap(small, task=TASK_MICROS, day=DAY_MICROS))
    figures.zero("holds left", [one for one in stored.values() if one.state == "held"])
    figures.zero(f"halts forgotten (of {story.halts_kept})", story.halts_lost)
    figures.zero("calls of halted sessions not refused after it", story.not_refused)
    figures.chain(verified)
    figures.equal("exit code of the last stop", code, 0)
    _ready(figures, story)
    figures.must("the load met caps", story.halts_kept, story.halts_kept > 0, "> 0")
    figures.must("kills met running calls", len(in_doubt), states["in_doubt"] > 0, "> 0")
    figures.show()


def _ready(figures: Figures, story: Story) -> None:
    """By the clock on the wall where the machine was free for it; where it was not, by the time it had a core."""
    for name, values, decides in (
        ("ready again, on the wall", story.ready_s, not busy()),
        ("ready again, of CPU time", story.ready_cpu_s, True),
    ):
        told = f"p50 {percentile(values, 0.5):.2f} · max {max(values):.2f} s of {len(values)}"
        if decides:
            figures.must(name, told, max(values) < READY_BELOW_S, f"< {READY_BELOW_S} s")
        else:
            figures.note(f"{name} (the machine was busy)", told)
