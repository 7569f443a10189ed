"""A change of the policy's time zone: no call waits for the history, rules that need its hours learn meanwhile, then all is as recomputed."""

from __future__ import annotations

import pytest

from haltline.signals.recount import Recount
from haltline.signals.state import AgentSignals
from haltline.signals.table import folded
from support.world import POLICY, SetClock, World, world

RULES = """
rules:
  odd-hours:
    {kind: off_hours, do: halt, quiet: 1s, learn_for: 1d, learn_calls: 3, learning: alert, tiers: [roomy]}
"""
BERLIN = POLICY.replace("time_zone: UTC", "time_zone: Europe/Berlin") + RULES
KATHMANDU = POLICY.replace("time_zone: UTC", "time_zone: Asia/Kathmandu") + RULES
MONDAY_9_US = 1_790_000_000_000_000 - 1_790_000_000_000_000 % 604_800_000_000 + 4 * 86_400_000_000 + 9 * 3_600_000_000


def recount(there: World) -> Recount:
    parts = there.parts
    return Recount(parts.signals, parts.writer, parts.reader, lambda: parts.policies.zone)


def reload(there: World, policy: str) -> None:
    (there.parts.policies.folder / "policy.yaml").write_text(policy)
    assert there.parts.policies.reload()


async def worked_for_days(there: World) -> tuple[str, str]:
    """(agent id, token) of one that called at nine from Monday to Thursday; it is Friday now."""
    agent = await there.agent(tier="roomy")
    _, token = await there.session(agent, lasts_s=30 * 86_400)
    for _ in range(4):
        assert "isError" not in (await there.call(token))["result"]
        there.clock.forward(86_400)
    return agent.id, token


async def live_and_recomputed(there: World, agent_id: str, zone: str) -> tuple[dict, dict]:
    rows = await there.parts.reader.rows("SELECT body FROM events WHERE agent_id = ? ORDER BY seq", (agent_id,))
    live = await there.run(lambda tx: there.parts.signals.agent(tx, agent_id).stored())
    recomputed = folded([row["body"] for row in rows], AgentSignals(), zone).stored()
    return {**live, "seq": 0}, {**recomputed, "seq": 0}


@pytest.mark.promise("P12", "R28")
async def test_no_call_reads_the_history_and_an_hour_that_may_be_usual_halts_nobody_until_all_are_counted(tmp_path):
    async with world(tmp_path, policy=BERLIN, clock=SetClock(MONDAY_9_US)) as there:
        agent_id, token = await worked_for_days(there)
        reload(there, KATHMANDU)
        read: list[str] = []
        await there.run(lambda tx: tx.connection.set_trace_callback(read.append))
        assert "isError" not in (await there.call(token))["result"]
        await there.run(lambda tx: tx.connection.set_trace_callback(None))
        assert [
            text for text in read if "FROM events" in text and "LIMIT 5" not in text
        ] == []  # an alert has the latest five
        first, fired = await there.events("rule.fired")
        assert first["cause"].startswith("learning:2026-")  # the very first call
        assert (fired["cause"].partition(":")[0], fired["does"]) == ("learning", "alert")
        await recount(there).look()
        live, recomputed = await live_and_recomputed(there, agent_id, "Asia/Kathmandu")
        assert live == recomputed
        assert "isError" not in (await there.call(token))["result"]
        assert len(await there.events("rule.fired")) == 2
        there.clock.forward(10 * 3600)
        assert (await there.call(token))["result"]["isError"]


@pytest.mark.promise("P12")
async def test_hours_not_yet_counted_at_a_restart_are_counted_after_it(tmp_path):
    clock = SetClock(MONDAY_9_US)
    async with world(tmp_path, policy=BERLIN, clock=clock) as there:
        agent_id, token = await worked_for_days(there)
        await there.run(there.parts.signals.save)
        reload(there, KATHMANDU)
        await there.call(token)
        await there.run(there.parts.signals.save)
    async with world(tmp_path, policy=KATHMANDU, clock=clock) as again:
        await again.call(token)
        live, recomputed = await live_and_recomputed(again, agent_id, "Asia/Kathmandu")
        assert live["week"] != recomputed["week"]
        await recount(again).look()
        assert await live_and_recomputed(again, agent_id, "Asia/Kathmandu") == (recomputed, recomputed)


async def test_a_zone_that_changed_again_meanwhile_is_not_mixed_with_the_one_before(tmp_path):
    async with world(tmp_path, policy=BERLIN, clock=SetClock(MONDAY_9_US)) as there:
        agent_id, _ = await worked_for_days(there)
        reload(there, KATHMANDU)
        counting = recount(there)
        await counting.look()
        reload(there, BERLIN)
        signals = there.parts.signals
        up_to = await there.run(lambda tx: signals.agent(tx, agent_id).week_after)
        await there.run(lambda tx: signals.counted(tx, agent_id, "Asia/Kathmandu", up_to, [9] * 168))
        await counting.look()
        live, recomputed = await live_and_recomputed(there, agent_id, "Europe/Berlin")
        assert live == recomputed
