from __future__ import annotations

import anyio
import pytest

from support.desk import Desk, Failed

pytestmark = pytest.mark.promise("R10", "P7")


async def doubt(at: Desk) -> str:
    await at.agent()
    session = await at.session()
    at.upstream.script["charge"] = at.upstream.unknown
    await at.call(session["token"])
    [call] = (await at.ask("list_in_doubt"))["calls"]
    return call["call"]


async def test_a_call_in_doubt_is_shown_with_its_age_its_cause_and_its_deadline(at: Desk) -> None:
    await doubt(at)
    at.clock.forward(90)
    [call] = (await at.ask("list_in_doubt"))["calls"]
    assert (call["agent"], call["tool"], call["amount"]["text"]) == ("booking-7", "payments__charge", "0.05 USD")
    assert call["age_s"] == 90.0
    assert "broke" in call["why"]
    assert call["charges_at"] > call["since"]
    assert call["then"] == "settle"
    status = (await at.ask("status"))["in_doubt"]
    assert (status["count"], status["amount"]["micros"], status["oldest_at"]) == (1, 50_000, call["since"])
    assert status["charges_at"] == call["charges_at"]


@pytest.mark.parametrize(
    ("outcome", "amount", "charged"),
    [
        ("settle", None, 50_000),
        ("settle", "0.03", 30_000),
        ("settle", "0", 0),
        ("settle", "0.25", 250_000),
        ("void", None, 0),
    ],
)
async def test_a_persons_word_ends_the_hold_and_moves_the_money(
    at: Desk, outcome: str, amount: str | None, charged: int
) -> None:
    call = await doubt(at)
    more = {} if amount is None else {"amount": amount}
    result = await at.ask("resolve_in_doubt", call=call, outcome=outcome, reason="see the invoice", **more)
    assert (result["call"], result["outcome"], "halted" in result) == (call, outcome, charged > 50_000)
    assert result["amount"]["micros"] == charged
    [hold] = await at.parts.reader.rows("SELECT state, charged_micros FROM holds")
    assert tuple(hold) == (("voided", None) if outcome == "void" else ("settled", charged))
    row = (await at.ask("list_agents"))["agents"][0]
    assert row["spent_day"]["micros"] == charged
    assert (await at.ask("list_in_doubt"))["calls"] == []
    [event] = await at.events("call.resolved")
    assert (event["actor"], event["reason"], event["outcome"]) == ("operator:anna", "see the invoice", outcome)
    assert (event["call"], event["tool"], event["agent"]) == (call, "payments__charge", "booking-7")
    assert (event["amount_micros"], event["charged_micros"]) == (50_000, charged)
    assert event.get("overage_micros") == (200_000 if charged == 250_000 else None)


async def test_a_call_is_resolved_once(at: Desk) -> None:
    call = await doubt(at)
    await at.ask("resolve_in_doubt", call=call, outcome="void", reason="it did not")
    with pytest.raises(Failed, match="voided already") as refused:
        await at.ask("resolve_in_doubt", call=call, outcome="settle", reason="it did")
    assert refused.value.code == "request.conflict"


async def test_a_running_call_is_nobodys_to_resolve(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.call, session["token"], "payments__slow")
            await at.upstream.started.wait()
            [hold] = await at.parts.reader.rows("SELECT id FROM holds")
            with pytest.raises(Failed, match="still running"):
                await at.ask("resolve_in_doubt", call=hold["id"], outcome="void", reason="impatient")
            at.upstream.release.set()
    [hold] = await at.parts.reader.rows("SELECT state FROM holds")
    assert hold["state"] == "settled"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"outcome": "void", "amount": "0.01"}, "request.invalid"),
        ({"outcome": "settle", "amount": "-0.01"}, "request.invalid"),
        ({"outcome": "settle", "amount": "0.0000001"}, "request.invalid"),
        ({"outcome": "settle", "amount": "2000000000"}, "request.invalid"),
        ({"outcome": "settle", "amount": 0.05}, "request.invalid"),
        ({"outcome": "ignore"}, "request.invalid"),
        ({"outcome": "void", "call": "call_nothing"}, "request.not_found"),
    ],
)
async def test_a_word_that_cannot_be_taken_leaves_the_call_in_doubt(at: Desk, more: dict, code: str) -> None:
    call = await doubt(at)
    with pytest.raises(Failed) as refused:
        await at.ask("resolve_in_doubt", **{"call": call, "reason": "why", **more})
    assert refused.value.code == code
    assert len((await at.ask("list_in_doubt"))["calls"]) == 1


async def test_what_an_operator_declared_to_read_is_given_back_by_itself_and_no_word_of_an_upstream_counts(
    at: Desk,
) -> None:
    await at.agent()
    session = await at.session()
    for tool in at.upstream.tools:
        tool["annotations"] = {"readOnlyHint": True}
    await at.parts.catalog.refresh("payments")
    for tool in ("charge", "look"):
        at.upstream.script[tool] = at.upstream.unknown
        # What was changed is quarantined until a person approves it, and here the annotations were.
        await at.ask(
            "approve_tool", tool=f"payments__{tool}", reason="seen", digest=await seen(at, f"payments__{tool}")
        )
        await at.call(session["token"], f"payments__{tool}")
    then = {one["tool"]: one["then"] for one in (await at.ask("list_in_doubt"))["calls"]}
    assert then == {"payments__charge": "settle", "payments__look": "void"}


async def seen(at: Desk, tool: str) -> str:
    [one] = [one for one in (await at.ask("review_tools"))["tools"] if one["tool"] == tool]
    return one["digest"]


@pytest.mark.promise("P2", "R20")
async def test_a_settlement_above_the_hold_halts_like_a_bill_of_the_upstream(at: Desk) -> None:
    call = await doubt(at)
    [session] = (await at.ask("list_sessions"))["sessions"]
    result = await at.ask("resolve_in_doubt", call=call, outcome="settle", reason="the invoice", amount="6.00")
    assert (result["overage"]["micros"], result["halted"]) == (5_950_000, [session["session"], "booking-7"])
    [of_session], [of_agent] = await at.events("session.halted"), await at.events("agent.halted")
    assert of_session["call"] == of_agent["call"] == call
    assert [one["reasons"][0]["code"] for one in (of_session, of_agent)] == ["charge.overage"] * 2
    assert of_session["reasons"][0]["facts"]["overage_micros"] == 5_950_000
    day = of_agent["reasons"][0]["facts"]
    assert (day["cap"], day["limit_micros"], day["settled_micros"], day["remaining_micros"]) == (
        "hour", 2_000_000, 6_000_000, -4_000_000,
    )  # fmt: skip
    assert {(one["target"], one["code"]) for one in (await at.ask("status"))["halts"]} == {
        (session["session"], "charge.overage"),
        ("booking-7", "charge.overage"),
    }
    told = await at.parts.reader.rows("SELECT count(*) AS n FROM alerts")
    assert told[0]["n"] == 2
