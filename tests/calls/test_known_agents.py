"""What is remembered of an agent is read from rows once: not again because a cap, a rule or a bill has something to say of it."""

from __future__ import annotations

from typing import Any

import pytest

from support.scripted import ScriptedUpstream, text_result
from support.world import SetClock, World, world

POLICY = """
version: "1"
tiers:
  roomy: {tools: ["*"], caps: {task: "1000.00", day: "10000.00"}}
  tight: {tools: ["*"], caps: {task: "0.12", day: "10000.00"}}
tools:
  payments__charge: {price: "0.05"}
  payments__look: {price: "0.00"}
  payments__refund: {price: "0.05"}
  payments__slow: {price: {result: structuredContent.cost, at_most: "0.40"}}
"""
READ_ANEW = ("coalesce(sum(", "FROM signals", "ORDER BY seq LIMIT")


async def _bills(call: Any) -> dict[str, Any]:
    call.before_send()
    return text_result(structuredContent={"cost": "0.90"})


async def _read_anew(there: World, clock: SetClock, tier: str, tool: str) -> list[str]:
    """What SQLite was asked of an agent that was known already, while it made two calls more."""
    asked: list[str] = []
    _, token = await there.session(await there.agent(tier=tier))
    await there.call(token)
    clock.forward(1)
    await there.call(token, "payments__look")  # at another moment, so that its hour is read too
    there.parts.writer._connection.set_trace_callback(asked.append)
    for _ in range(2):
        clock.forward(1)
        await there.call(token, tool)
    there.parts.writer._connection.set_trace_callback(None)
    assert sum(one.startswith("COMMIT") for one in asked) >= 2
    return [one for one in asked if any(words in one for words in READ_ANEW)]


@pytest.mark.parametrize(
    ("rules", "tier", "tool", "kinds"),
    [
        ("alerts: {kind: velocity, over: '0.14', window: 15m}", "roomy", "charge", {"rule.fired"}),
        ("halts: {kind: velocity, over: '0.14', window: 15m, do: halt}", "roomy", "charge", {"rule.fired", "agent.halted"}),
        ("", "tight", "charge", {"session.halted"}),
        ("", "roomy", "slow", {"session.halted"}),
        ("fails: {kind: failure_rate, over: 10%, at_least: 2, do: halt}", "roomy", "refund", {"rule.fired", "agent.halted"}),
    ],
    ids=["a rule alerts", "a rule halts", "a cap halts", "a bill halts", "a failure halts"],
)  # fmt: skip
async def test_nothing_is_read_anew(tmp_path: Any, rules: str, tier: str, tool: str, kinds: set[str]) -> None:
    upstream = ScriptedUpstream()
    upstream.script |= {"slow": _bills, "refund": upstream.tool_error}
    policy = POLICY + (f"rules:\n  {rules}\n" if rules else "")
    clock = SetClock()
    async with world(tmp_path, policy=policy, upstreams=[upstream], clock=clock) as there:
        again = await _read_anew(there, clock, tier, f"payments__{tool}")
        told = {one["kind"] for one in await there.events()}
        assert kinds <= told, "else nothing had anything to say"
        assert again == []
