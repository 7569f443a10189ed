"""What answered calls are charged, and what an upstream that bills more than its price allows brings about (P2, R7)."""

from __future__ import annotations

import pytest

from haltline.calls.refusals import META_KEY
from support.scripted import ScriptedUpstream
from support.world import POLICY, world

PRICES = POLICY.replace(
    "tools:\n  payments__charge",
    """tools:
  payments__ask: {price: {result: structuredContent.cost, at_most: "0.40"}}
  payments__run: {price: {per_second: "0.01"}, timeout_s: 20}
  payments__tolerant: {price: {result: structuredContent.cost, at_most: "0.40"}, charge_on_error: false}
  payments__charge""",
)


@pytest.fixture
async def w(tmp_path):
    upstream = ScriptedUpstream(tools=("charge", "ask", "run", "tolerant"))
    async with world(tmp_path, policy=PRICES, upstreams=(upstream,)) as made:
        yield made


def answers(w, result, *, runs_s=0.0):
    async def script(call):
        w.upstream.send(call)
        w.clock.forward(runs_s)
        return {"result": {"content": [], **result}}

    return script


async def charged(w):
    return [hold[1:] for hold in await w.holds()]


@pytest.mark.promise("R6")
async def test_the_actual_read_from_the_result_is_charged_and_the_rest_given_back(w):
    _, token = await w.session(await w.agent(tier="roomy"))
    w.upstream.script["ask"] = answers(w, {"structuredContent": {"cost": 0.1}})
    await w.call(token, "payments__ask")
    assert await charged(w) == [("settled", 400_000, 100_000)]
    event = (await w.events("call.succeeded"))[0]
    assert (event["charged_micros"], event["amount_micros"], "overage_micros" in event) == (100_000, 400_000, False)


@pytest.mark.promise("R7")
async def test_what_the_result_does_not_say_is_charged_in_full_and_why_is_recorded(w):
    _, token = await w.session(await w.agent(tier="roomy"))
    w.upstream.script["ask"] = answers(w, {"structuredContent": {}})
    await w.call(token, "payments__ask")
    assert await charged(w) == [("settled", 400_000, 400_000)]
    event = (await w.events("call.succeeded"))[0]
    assert event["charged_because"] == "structuredContent.cost must state the amount, and is missing"


@pytest.mark.promise("R7")
async def test_an_error_is_charged_in_full_unless_the_tool_declares_otherwise(w):
    _, token = await w.session(await w.agent(tier="roomy"))
    for tool in ("ask", "tolerant"):
        w.upstream.script[tool] = answers(w, {"isError": True, "structuredContent": {"cost": 0.1}})
        await w.call(token, f"payments__{tool}")
    assert [charge for _, _, charge in await charged(w)] == [400_000, 0]


@pytest.mark.promise("R6")
async def test_running_time_is_charged_and_the_deadline_held(w):
    _, token = await w.session(await w.agent(tier="roomy"))
    w.upstream.script["run"] = answers(w, {}, runs_s=3.5)
    await w.call(token, "payments__run")
    assert await charged(w) == [("settled", 200_000, 35_000)]


@pytest.mark.promise("P2", "P4")
async def test_a_bill_above_the_hold_is_recorded_truly_and_halts_the_session_with_an_alert(w):
    session, token = await w.session(await w.agent(tier="roomy"))
    w.upstream.script["ask"] = answers(w, {"structuredContent": {"cost": "0.600001"}})
    first = await w.call(token, "payments__ask")
    assert first["result"]["structuredContent"] == {"cost": "0.600001"}
    assert await charged(w) == [("settled", 400_000, 600_001)]
    event = (await w.events("call.succeeded"))[0]
    assert event["overage_micros"] == 200_001
    (halted,) = await w.events("session.halted")
    assert (halted["session"], halted["reasons"][0]["code"]) == (session, "charge.overage")
    alerts = await w.parts.reader.rows("SELECT count(*) AS n FROM alerts")
    assert alerts[0]["n"] == 1
    refused = await w.call(token, "payments__charge")
    assert refused["result"]["_meta"][META_KEY]["reasons"][0]["code"] == "session.halted"
    assert len(w.upstream.sent) == 1
    assert await w.events("agent.halted") == []


@pytest.mark.promise("P2")
async def test_a_bill_that_breaks_a_cap_of_the_agent_halts_the_agent_too(w):
    agent = await w.agent(tier="experimental")
    _, token = await w.session(agent)
    w.upstream.script["ask"] = answers(w, {"structuredContent": {"cost": 7}})
    await w.call(token, "payments__ask")
    (halted,) = await w.events("session.halted")
    task = halted["reasons"][0]["facts"]
    assert (task["cap"], task["remaining_micros"]) == ("task", -6_500_000), "so that a person can add to it"
    (halted,) = await w.events("agent.halted")
    facts = halted["reasons"][0]["facts"]
    assert (facts["cap"], facts["limit_micros"], facts["settled_micros"], facts["overage_micros"]) == (
        "day",
        5_000_000,
        7_000_000,
        6_600_000,
    )
    _, other = await w.session(agent)
    refused = await w.call(other, "payments__charge")
    assert refused["result"]["_meta"][META_KEY]["reasons"][0]["code"] == "agent.halted"
