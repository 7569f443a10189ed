"""Answers that come after their call was given up: recorded as such, withheld, and no hold moves by them (R10)."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from haltline.policy.model import Reason
from haltline.upstreams.model import UpstreamSpec
from haltline.upstreams.python import PythonUpstream
from haltline.upstreams.stdio import StdioUpstream
from support.scripted import text_result
from support.world import Request, world

SCRIPT = Path(__file__).parents[1] / "support" / "nasty_stdio.py"
POLICY = """
tiers: {roomy: {tools: ["*"], caps: {day: "100.00"}}}
tools:
  "*": {price: "0.05"}
  slow__hold: {price: {result: '_meta.cost', at_most: "0.40"}, timeout_s: 0.3}
  slow__nap: {price: "0.05", timeout_s: 0.2}
"""
NAP = """
import haltline
import threading

word = threading.Event()

@haltline.tool()
def nap() -> str:
    \"\"\"Sleep.\"\"\"
    word.wait(30)
    return "slept"

@haltline.tool()
def wake() -> str:
    \"\"\"Wake it.\"\"\"
    word.set()
    return "woken"
"""


async def late_event(w):
    with anyio.fail_after(30):
        while not (found := await w.events("call.late_answer")):
            await anyio.sleep(0.01)
    (event,) = found
    return event


@pytest.mark.promise("P7", "R10")
async def test_a_program_s_answer_after_the_deadline_is_recorded_and_its_call_stays_in_doubt(tmp_path):
    slow = StdioUpstream(
        UpstreamSpec("slow", command=sys.executable, args=("-S", str(SCRIPT), "lists", "hold", "release"))
    )
    async with world(tmp_path, policy=POLICY, upstreams=(slow,)) as w:
        try:
            _, token = await w.session(await w.agent(tier="roomy"))
            first = await w.call(token, "slow__hold")
            assert "may have run" in first["result"]["content"][0]["text"]
            await w.call(token, "slow__release")
            event = await late_event(w)
            assert (event["hold"], event["would_charge_micros"], event["amount_micros"]) == (
                "in_doubt",
                400_000,
                400_000,
            )
            assert "sha256" in event["payloads"]["result"]
            (hold,) = await w.run(w.parts.ledger.in_doubt)
            assert (hold.tool, hold.state) == ("slow__hold", "in_doubt")
            assert hold.why.endswith("a late answer says that it succeeded, at 0.40")
        finally:
            await slow.aclose()


@pytest.mark.promise("R10")
async def test_what_a_function_returns_after_the_deadline_is_recorded(tmp_path):
    (tmp_path / "naps.py").write_text(NAP)
    slow = PythonUpstream(UpstreamSpec("slow", python=str(tmp_path / "naps.py")))
    async with world(tmp_path, policy=POLICY, upstreams=(slow,)) as w:
        try:
            _, token = await w.session(await w.agent(tier="roomy"))
            await w.call(token, "slow__nap")
            await w.call(token, "slow__wake")
            assert (await late_event(w))["tool"] == "slow__nap"
        finally:
            await slow.aclose()


@pytest.mark.promise("P3", "R10", "R17")
async def test_an_answer_in_the_moment_of_a_stop_is_kept_from_the_caller_and_recorded(tmp_path):
    async with world(tmp_path, policy=POLICY.replace("slow__", "payments__")) as w:
        session, token = await w.session(await w.agent(tier="roomy"))

        async def answers_the_cancelled(call):
            w.upstream.send(call)
            w.upstream.started.set()
            try:
                await anyio.sleep_forever()
            finally:
                call.on_late(text_result())

        w.upstream.script["charge"] = answers_the_cancelled
        request = Request(token, "payments__charge")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(w.send, request)
            await w.upstream.started.wait()
            w.parts.calls.stop(session_ids=[session], reason=Reason("session.halted", "halted by anna"))
        assert request.delivered == []
        event = await late_event(w)
        assert (event["session"], event["hold"], event["would_charge_micros"]) == (session, "in_doubt", 50_000)


@pytest.mark.promise("R10")
async def test_a_late_answer_changes_nothing_of_what_a_person_decided(tmp_path):
    async with world(tmp_path, policy=POLICY.replace("slow__", "payments__")) as w:
        _, token = await w.session(await w.agent(tier="roomy"))
        kept = []

        async def gives_up(call):
            w.upstream.send(call)
            kept.append(call)
            return await w.upstream.unknown(call)

        w.upstream.script["charge"] = gives_up
        await w.call(token)
        (hold,) = await w.run(w.parts.ledger.in_doubt)
        await w.run(lambda tx: w.parts.ledger.void(tx, hold.id, "the bank knows nothing of it"))
        kept[0].on_late(text_result())
        event = await late_event(w)
        assert event["hold"] == "voided"
        assert [one[1:] for one in await w.holds()] == [("voided", 50_000, None)]
