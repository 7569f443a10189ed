"""Many clients at once against a cap for exactly fifty calls: fifty are dispatched, over real HTTP (P2, R3)."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Caller
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.small_caps import POLICY, PRICE_MICROS, upstream
from support.stored_calls import stored_calls

CLIENTS = 16
CAPPED = 50
AT_ONCE = 60
"""Connections of one client, each with one call on it at a time."""


@dataclass
class Crowd:
    """What the clients of one cap were answered."""

    name: str
    answers: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    async def call(self, broker: BrokerProcess, sessions: Sequence[Opened], calls: int) -> None:
        """Each client makes `calls` calls, `AT_ONCE` of them in flight."""
        gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for client in range(CLIENTS):
                opened = sessions[client % len(sessions)]
                for line in range(min(AT_ONCE, calls)):
                    share = calls // AT_ONCE + (line < calls % AT_ONCE) if calls > AT_ONCE else 1
                    tasks.start_soon(self._line, broker, opened, f"{self.name}-{client}-{line}", share, gate)
            gate.set()
            begun = time.perf_counter()
        self.took_s = time.perf_counter() - begun

    async def _line(self, broker: BrokerProcess, opened: Opened, name: str, calls: int, gate: anyio.Event) -> None:
        caller = Caller(broker.agents_port, opened.token, MODES[len(name) % 2])
        await gate.wait()
        for number in range(calls):
            answer = await caller.call("now__pay", {"reference": f"{name}-{number}", "wait_ms": 30})
            self.answers[answer.kind if answer.kind == "result" else f"{answer.kind} {answer.code}"] += 1
        caller.cut()


@pytest.mark.promise("P2", "P7", "R3")
@pytest.mark.parametrize("cap", ["one session's", "one agent's day"])
async def test_of_any_crowd_of_calls_as_many_are_dispatched_as_the_cap_pays_for(tmp_path: Path, long: bool, cap: str):
    calls = 1_000 if long else 60
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with (
        counting_upstream(tmp_path) as now,
        broker_process(tmp_path / "broker", upstreams={"now": upstream(now.url)}, policy=POLICY) as broker,
    ):
        broker.await_tools("now__pay")
        by_task = cap == "one session's"
        sessions = broker.open(["crowd"], "fifty_a_task" if by_task else "fifty_a_day", each=1 if by_task else CLIENTS)
        crowd = Crowd("crowd")
        await crowd.call(broker, sessions, calls)
        received = [one.reference for one in now.all()]
        code = broker.stop()
        stored = stored_calls(broker.database)
    states = Counter(one.state for one in stored.values())
    figures = Figures(
        f"{CLIENTS} clients x {calls} calls, {CLIENTS * min(AT_ONCE, calls)} at once, {cap} cap is for {CAPPED}"
    )
    total = crowd.answers.total()
    figures.note("answers", ", ".join(f"{n} {what}" for what, n in crowd.answers.most_common()))
    figures.note("calls answered per second", f"{total / crowd.took_s:.0f}")
    figures.equal("calls answered", total, CLIENTS * calls)
    figures.equal("dispatched (received by the upstream)", len(received), CAPPED)
    figures.equal("results", crowd.answers["result"], CAPPED)
    figures.equal("micro-units charged", sum(one.charged for one in stored.values()), CAPPED * PRICE_MICROS)
    figures.equal("holds", dict(states), {"settled": CAPPED})
    unexpected = {what: n for what, n in crowd.answers.items() if what != "result" and not _of_the_cap(what)}
    figures.zero("answers but results and refusals by the cap", [*unexpected.items()])
    figures.equal("exit code", code, 0)
    figures.show()


def _of_the_cap(what: str) -> bool:
    codes = ("budget.cap_held", "budget.task_exceeded", "budget.day_exceeded", "session.halted", "agent.halted")
    return what in {f"refused {code}" for code in codes}
