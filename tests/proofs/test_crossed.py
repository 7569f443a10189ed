"""Agents that all use the same request ids, in every mode at once: each gets its own answers and nobody else's (P5)."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.small_caps import POLICY, upstream
from support.stored_calls import stored_calls

AGENTS = 32
TOOLS = ("now__pay", "old__pay")


@pytest.mark.promise("P5")
async def test_no_agent_gets_the_answer_to_anothers_call_though_their_request_ids_are_the_same(
    tmp_path: Path, long: bool
):
    calls = 999 if long else 51
    answers: list[tuple[str, int, str, Answer]] = []
    dice = random.Random(time.time_ns())

    async def work(broker: BrokerProcess, opened: Opened, mode: str) -> None:
        caller = Caller(broker.agents_port, opened.token, mode)
        for identifier in range(calls // len(MODES)):
            reference = f"{opened.agent}-{mode}-{identifier}"
            told = {"reference": reference, "mark": f"canary of {opened.agent}", "wait_ms": dice.choice((0, 1, 3))}
            answer = await caller.call(dice.choice(TOOLS), told, identifier=identifier)
            answers.append((opened.agent, identifier, reference, answer))
        caller.cut()

    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            broker.await_tools(*TOOLS)
            begun = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for opened in broker.open([f"agent-{number}" for number in range(AGENTS)], "wide"):
                    for mode in MODES:
                        tasks.start_soon(work, broker, opened, mode)
            took_s = time.perf_counter() - begun
            broker.stop()
            stored = stored_calls(broker.database)
            received = Counter(one.reference for one in [*now.all(), *old.all()])
    said = [
        (agent, identifier, reference, one) for agent, identifier, reference, one in answers if one.kind == "result"
    ]
    crossed = [one for agent, _, _, one in said if one.said["mark"] != f"canary of {agent}"]
    others = [
        one.said for _, identifier, reference, one in said if (one.said["reference"], one.id) != (reference, identifier)
    ]
    named = [(agent, stored[reference].agent) for agent, _, reference, _ in answers if reference in stored]

    figures = Figures(f"{AGENTS} agents x {calls // 3 * 3} calls with the same request ids, in {len(MODES)} modes")
    figures.note("calls per second", f"{len(answers) / took_s:.0f}")
    figures.equal("answered", len(said), AGENTS * (calls // 3 * 3))
    figures.zero("crossed: another agent's canary", crossed)
    figures.zero("crossed: the answer to another of its own calls", others)
    figures.zero("recorded under another agent", [pair for pair in named if pair[0] != pair[1]])
    figures.equal("received once each", Counter(received.values()), Counter({1: len(answers)}))
    figures.show()
