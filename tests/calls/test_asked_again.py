"""Rules asked of sessions above a caller, of calls at once, and again when a call ends: whole calls on a real store."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from haltline.calls.watcher import Watcher
from support.scripted import ScriptedUpstream, text_result
from support.world import Request, World, world

POLICY = """
version: "1"
tiers:
  roomy: {tools: ["*"], caps: {task: "1000.00", day: "10000.00"}}
tools:
  payments__charge: {price: "0.05"}
  payments__refund: {price: "0.05"}
  payments__slow: {price: {result: structuredContent.cost, at_most: "0.40"}}
rules:
"""


async def bills(call: Any) -> dict[str, Any]:
    call.before_send()
    return text_result(structuredContent={"cost": "0.90"})


def words(answer: Any) -> str:
    text: str = answer["result"]["content"][0]["text"]
    return text


async def one(there: World, **more: Any) -> tuple[Any, str, str]:
    agent = await there.agent(tier="roomy")
    session, token = await there.session(agent, **more)
    return agent, session, token


@pytest.mark.promise("R8", "R27", "P2")
async def test_a_bill_above_its_hold_that_crosses_a_line_halts_the_agent_in_the_transaction_that_settles(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["slow"] = bills
    rules = (
        '  big: {kind: single_charge, over: "0.80"}\n  fast: {kind: velocity, over: "0.60", window: 15m, do: halt}\n'
    )
    async with world(tmp_path, policy=POLICY + rules, upstreams=[upstream]) as there:
        agent, session, token = await one(there)
        _, other = await there.session(agent)
        assert "isError" not in (await there.call(token, "payments__slow"))["result"]
        fired = await there.events("rule.fired")
        assert sorted((one["rule"], one["does"], one["facts"]["observed"]) for one in fired) == [
            ("big", "alert", 900_000),
            ("fast", "halt", 900_000),
        ]
        (settled,) = await there.events("call.succeeded")
        assert {one["at_us"] for one in fired} == {settled["at_us"]}
        assert {one["call"] for one in fired} == {settled["call"]}
        halts = {(halt.scope, halt.subject_id): halt.code for halt in await there.halts()}
        assert halts == {("session", session): "charge.overage", ("agent", agent.id): "rule.fast"}
        assert words(await there.call(other)).startswith("Halted [agent.halted]")


@pytest.mark.promise("R4", "R27")
async def test_a_bill_above_the_single_charge_of_a_tier_halts_its_agent(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["slow"] = bills
    policy = POLICY.replace('day: "10000.00"}}', 'day: "10000.00"}, halts_on: {single_charge: "0.89"}}').replace(
        "rules:", ""
    )
    async with world(tmp_path, policy=policy, upstreams=[upstream]) as there:
        agent, session, token = await one(there)
        _, other = await there.session(agent)
        await there.call(token, "payments__slow")
        halts = {(halt.scope, halt.subject_id): halt.code for halt in await there.halts()}
        assert halts == {("session", session): "charge.overage", ("agent", agent.id): "charge.single_exceeded"}
        assert words(await there.call(other)).startswith("Halted [agent.halted]")


@pytest.mark.promise("R8")
async def test_an_end_that_costs_what_was_held_or_less_asks_nothing_again(tmp_path):
    rules = (
        '  fast: {kind: velocity, over: "0.05", window: 15m}\n  half: {kind: failure_rate, over: 50%, at_least: 1}\n'
    )
    async with world(tmp_path, policy=POLICY + rules) as there:
        _, _, token = await one(there)
        await there.call(token)
        assert await there.events("rule.fired") == []


@pytest.mark.promise("R8", "R27")
async def test_the_failure_that_crosses_the_line_halts_as_it_is_recorded(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["refund"] = upstream.tool_error
    rules = "  failing: {kind: failure_rate, over: 10%, at_least: 5, do: halt}\n"
    async with world(tmp_path, policy=POLICY + rules, upstreams=[upstream]) as there:
        _, _, token = await one(there)
        for tool in ("charge", "charge", "charge", "refund"):
            await there.call(token, f"payments__{tool}")
        assert await there.events("rule.fired") == []
        await there.call(token, "payments__refund")
        (fired,) = await there.events("rule.fired")
        assert (fired["facts"], fired["does"]) == ({"ended": 5, "failed": 2}, "halt")
        sent = len(upstream.sent)
        assert words(await there.call(token)).startswith("Halted [agent.halted]")
        assert len(upstream.sent) == sent
        await Watcher(there.parts).look()
        assert len(await there.events("rule.fired")) == 1


@pytest.mark.promise("R20")
async def test_calls_of_children_count_in_the_session_above_and_halt_it_with_all_below_it(tmp_path):
    rules = "  long: {kind: calls_per_task, over: 4, do: halt}\n"
    async with world(tmp_path, policy=POLICY + rules) as there:
        agent, root, token = await one(there)
        (first, one_s), (_, two_s) = [await there.session(agent, parent=root) for _ in range(2)]
        for by in (token, one_s, two_s, one_s):
            assert "isError" not in (await there.call(by))["result"]
        refused = words(await there.call(one_s))
        assert refused.startswith(
            f"Halted [rule.long]: of session {root}, which this one belongs to: 4 calls in a session"
        )
        (fired,) = await there.events("rule.fired")
        assert (fired["session"], fired["cause"], fired["facts"]) == (root, root, {"limit": 4, "observed": 5})
        assert [(halt.scope, halt.subject_id) for halt in await there.halts()] == [("session", root)]
        denied = (await there.events("call.denied"))[0]
        assert (denied["session"], denied["owner"]) == (first, root)
        for by in (token, one_s, two_s):
            assert "session.halted" in words(await there.call(by))


async def test_the_number_of_calls_of_a_grant_is_its_session_s_own_line(tmp_path):
    from haltline.policy.model import Caps

    rules = "  long: {kind: calls_per_task, share: 50%, over: 3}\n"
    async with world(tmp_path, policy=POLICY + rules) as there:
        agent, session, token = await one(there, caps=Caps(calls=10))
        for _ in range(6):
            await there.call(token)
        assert [fired["cause"] for fired in await there.events("rule.fired")] == [session]
        other, unbounded = await there.session(agent)
        for _ in range(4):
            await there.call(unbounded)
        assert [fired["cause"] for fired in await there.events("rule.fired")] == [session, other]


async def test_a_call_too_many_at_once_is_noticed_while_the_others_run(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["refund"] = upstream.waiting
    rules = "  crowd: {kind: concurrent_calls, over: 2, do: halt}\n"
    async with (
        world(tmp_path, policy=POLICY + rules, upstreams=[upstream]) as there,
        anyio.create_task_group() as tasks,
    ):
        _, _, token = await one(there)
        for _ in range(2):
            upstream.started = anyio.Event()
            tasks.start_soon(there.send, Request(token, "payments__refund"))
            with anyio.fail_after(20):
                await upstream.started.wait()
        assert await there.events("rule.fired") == []
        assert words(await there.call(token)).startswith("Halted [rule.crowd]: 2 calls at once: 3 with this one")
        upstream.release.set()


@pytest.mark.promise("R20")
async def test_a_cap_of_a_session_above_that_will_soon_be_reached_is_foretold(tmp_path):
    from haltline.policy.model import Caps

    rules = '  soon: {kind: forecast, within: 30m, window: 15m, at_least: "0.10"}\n'
    async with world(tmp_path, policy=POLICY + rules) as there:
        agent, root, _ = await one(there, caps=Caps(task_micros=500_000))
        _, token = await there.session(agent, parent=root)
        for _ in range(3):
            await there.call(token)
        assert await there.events("rule.fired") == []
        await there.call(token)
        (fired,) = await there.events("rule.fired")
        assert (fired["cause"], fired["session"]) == (f"task {root}", root)
        assert fired["observed"] == "0.30 USD left of the task cap, gone in 1350 s"


async def test_a_session_of_which_nothing_is_heard_is_told_of_once_until_something_is(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["refund"] = upstream.waiting
    rules = "  lost: {kind: silence, of: session, for: 10m}\n"
    async with (
        world(tmp_path, policy=POLICY + rules, upstreams=[upstream]) as there,
        anyio.create_task_group() as tasks,
    ):
        agent, root, token = await one(there, lasts_s=86_400)
        _, child = await there.session(agent, parent=root, lasts_s=86_400)
        await there.session(agent)  # has not begun
        watcher = Watcher(there.parts)

        async def told() -> list[str]:
            await watcher.look()
            await watcher.look_at_sessions()
            return [fired["cause"] for fired in await there.events("rule.fired")]

        await there.call(token)
        there.clock.forward(300)
        await there.call(child)
        there.clock.at_us += 600_000_000 - 1
        assert await told() == []
        there.clock.at_us += 1
        assert await told() == [root]
        there.clock.forward(5_000)
        assert await told() == [root]
        request = Request(child, "payments__refund")
        tasks.start_soon(there.send, request)
        with anyio.fail_after(20):
            await upstream.started.wait()
        assert await told() == [root]
        there.clock.forward(599)
        request.notify({"method": "notifications/progress"})
        assert await told() == [root]
        there.clock.forward(599)
        assert await told() == [root]
        there.clock.forward(1)
        assert await told() == [root, root]
        upstream.release.set()


async def test_a_session_that_ended_or_was_halted_is_not_missed(tmp_path):
    rules = "  lost: {kind: silence, of: session, for: 10m}\n"
    async with world(tmp_path, policy=POLICY + rules) as there:
        agent, session, token = await one(there)
        await there.call(token)
        _, short = await there.session(agent, lasts_s=60)
        await there.call(short)
        halt = {"code": "operator.halt", "text": "to look at it", "by": "operator:anna"}
        await there.run(lambda tx: there.parts.halts.set(tx, "session", session, **halt))
        there.clock.forward(1200)
        await Watcher(there.parts).look_at_sessions()
        assert await there.events("rule.fired") == []
