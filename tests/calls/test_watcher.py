"""Rules over history and time, asked beside the path of calls: they commit what they read, halt, and keep quiet then."""

from __future__ import annotations

import anyio
import pytest

from haltline.calls.watcher import Watcher
from support.scripted import ScriptedUpstream
from support.world import POLICY, Request, World, world

RULES = """
rules:
  failing: {kind: failure_rate, over: 10%, window: 15m, at_least: 5, do: halt}
  quiet-call: {kind: silence, for: 60s, do: halt, running: cancel}
  soon-spent: {kind: forecast, within: 30m, window: 15m, at_least: "0.01", tiers: [experimental]}
"""


async def agent_and_token(there: World, tier: str = "roomy") -> str:
    _, token = await there.session(await there.agent(tier=tier))
    return token


@pytest.mark.promise("R27")
async def test_failures_halt_from_their_committed_event_and_no_call_is_sent_after_it(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["refund"] = upstream.tool_error
    async with world(tmp_path, policy=POLICY + RULES, upstreams=[upstream]) as there:
        token, watcher = await agent_and_token(there), Watcher(there.parts)
        for _ in range(4):
            await there.call(token, "payments__charge")
        await there.call(token, "payments__refund")
        await watcher.look()
        (fired,) = await there.events("rule.fired")
        assert (fired["observed"], fired["facts"]) == ("1 of 5 failed", {"ended": 5, "failed": 1})
        assert fired["now_us"] == fired["at_us"]
        sent = len(upstream.sent)
        answer = await there.call(token)
        assert answer["result"]["content"][0]["text"].startswith("Halted [agent.halted]")
        assert len(upstream.sent) == sent
        await watcher.look()
        assert len(await there.events("rule.fired")) == 1


@pytest.mark.promise("R18")
async def test_a_running_call_without_output_is_found_at_its_length_and_cancelled_where_the_rule_says_so(tmp_path):
    upstream = ScriptedUpstream()
    upstream.script["slow"] = upstream.waiting
    async with world(tmp_path, policy=POLICY + RULES, upstreams=[upstream]) as there:
        token, watcher = await agent_and_token(there), Watcher(there.parts)
        request = Request(token, "payments__slow")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(there.send, request)
            with anyio.fail_after(20):
                await upstream.started.wait()
            await watcher.look()
            there.clock.at_us += 59_000_000
            request.notify({"method": "notifications/progress"})
            await watcher.look()
            there.clock.at_us += 59_999_999
            await watcher.look()
            assert await there.events("rule.fired") == []
            there.clock.at_us += 1
            await watcher.look()
        (fired,) = await there.events("rule.fired")
        assert fired["threshold"] == "no output for 1 min"
        assert request.delivered == []
        assert [state for _, state, _, _ in await there.holds()] == ["in_doubt"]


async def test_a_cap_that_will_soon_be_reached_is_foretold(tmp_path):
    async with world(tmp_path, policy=POLICY.replace('task: "0.50", day: "5.00"', 'day: "0.20"') + RULES) as there:
        token, watcher = await agent_and_token(there, "experimental"), Watcher(there.parts)
        await there.call(token)
        await watcher.look()
        assert await there.events("rule.fired") == []
        await there.call(token)
        await watcher.look()
        (fired,) = await there.events("rule.fired")
        assert fired["rule"] == "soon-spent"
        assert await there.halts() == []
