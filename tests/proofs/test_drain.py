"""SIGTERM under load: no new call is taken, those that run end or go in doubt, nothing stays held, exit code 0 (P7)."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from support.broker_process import BrokerProcess, Opened, broker_process
from support.callers import MODES, Answer, Caller
from support.counting_upstream import counting_upstream
from support.figures import Figures
from support.small_caps import POLICY, upstream
from support.stored_calls import stored_calls

TOOLS = ("now__pay", "old__pay")
DRAIN_S = 1.5
ENDED_BELOW_S = DRAIN_S + 5
WAITS_MS = (0, 20, 400, 60_000)
"""Some end at once, some while it drains, some never would."""


@dataclass
class Load:
    broker: BrokerProcess
    answers: list[tuple[str, int, Answer]] = field(default_factory=list)
    """(reference, when it was asked, the answer)"""
    over: bool = False

    async def work(self, opened: Opened, mode: str, wait_ms: int) -> None:
        caller = Caller(self.broker.agents_port, opened.token, mode)
        count = 0
        while not self.over:
            count += 1
            reference = f"{opened.session}-{mode}-{wait_ms}-{count}"
            asked_ns = time.time_ns()
            answer = await caller.call(TOOLS[count % 2], {"reference": reference, "wait_ms": wait_ms})
            self.answers.append((reference, asked_ns, answer))
            if answer.kind == "lost":
                return
            if answer.kind != "result":
                await anyio.sleep(0.01)  # a refused agent does not hammer
        caller.cut()


@pytest.mark.promise("P7", "R10")
async def test_a_broker_that_is_told_to_stop_takes_no_new_call_and_leaves_none_held(tmp_path: Path, long: bool):
    rounds = 10 if long else 2
    ended_s: list[float] = []
    codes: list[int] = []
    answers: list[tuple[str, int, Answer]] = []
    late: list[str] = []
    in_doubt_at_stop = 0
    with counting_upstream(tmp_path) as now, counting_upstream(tmp_path, handshake=True) as old:
        upstreams = {"now": upstream(now.url), "old": upstream(old.url)}
        with broker_process(
            tmp_path / "broker", upstreams=upstreams, policy=POLICY, more=[f"limits: {{drain_s: {DRAIN_S}}}"]
        ) as broker:
            for number in range(rounds):
                broker.await_tools(*TOOLS)
                load = Load(broker)
                async with anyio.create_task_group() as tasks:
                    for opened in broker.open([f"agent-{number}-{one}" for one in range(3)], "wide"):
                        for mode in MODES:
                            for wait_ms in WAITS_MS:
                                tasks.start_soon(load.work, opened, mode, wait_ms)
                    await anyio.sleep(0.8)  # the signal comes at any instant
                    told_ns, begun = time.time_ns(), time.perf_counter()
                    broker.terminate()
                    codes.append(await anyio.to_thread.run_sync(broker.ended))
                    ended_s.append(time.perf_counter() - begun)
                    load.over = True
                answers += load.answers
                refused_ns = min(
                    (one.at_ns for _, _, one in load.answers if one.code == "broker.stopping"), default=told_ns
                )
                late += [ref for ref, asked_ns, one in load.answers if one.kind == "result" and asked_ns > refused_ns]
                if number < rounds - 1:
                    in_doubt_at_stop += sum(one.state == "held" for one in stored_calls(broker.database).values())
                    broker.start()
            stored = stored_calls(broker.database)
            verified = broker.verify()
        receipts = Counter(one.reference for one in [*now.all(), *old.all()])
    states = {reference: stored[reference].state for reference in receipts if reference in stored}
    told = Counter(f"{one.kind} {one.code}" if one.kind == "refused" else one.kind for _, _, one in answers)
    delivered = [reference for reference, _, one in answers if one.kind == "result"]
    running = [reference for reference, state in states.items() if state == "in_doubt"]
    by_reference = {reference: one for reference, _, one in answers}

    figures = Figures(f"SIGTERM under load, {rounds} times, {DRAIN_S:g} s to drain")
    figures.note("answers", ", ".join(f"{n} {what}" for what, n in told.most_common()))
    figures.note("calls admitted", dict(Counter(one.state for one in stored.values())))
    figures.equal("exit codes", Counter(codes), Counter({0: rounds}))
    figures.must(
        "until it had ended", f"max {max(ended_s):.2f} s", max(ended_s) < ENDED_BELOW_S, f"< {ENDED_BELOW_S:g} s"
    )
    figures.zero("asked after the first refusal, and run", late)
    figures.zero("held when it had ended", in_doubt_at_stop + sum(one.state == "held" for one in stored.values()))
    figures.zero("received without a call.allowed event", sorted(set(receipts) - set(stored)))
    figures.zero("received twice", [reference for reference, count in receipts.items() if count > 1])
    figures.zero(
        "received, neither settled nor in doubt",
        [one for one, state in states.items() if state not in {"settled", "in_doubt"}],
    )
    figures.zero("delivered, not settled", [one for one in delivered if stored[one].state != "settled"])
    untold = [one for one in running if by_reference[one].code != "broker.stopping"]
    figures.zero(f"in doubt, and not told so (of {len(running)})", [(one, by_reference[one].code) for one in untold])
    figures.must("the signal met running calls", len(running), len(running) > 0, "> 0")
    figures.chain(verified)
    figures.show()
