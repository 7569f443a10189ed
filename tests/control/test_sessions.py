from __future__ import annotations

import pytest

from haltline.clock import iso
from support.desk import Desk, Failed


async def test_a_session_opens_with_its_credential_and_what_bounds_it(at: Desk) -> None:
    await at.agent()
    opened = await at.session(
        task="  pay the invoice ", tools=["payments__look"], caps={"task": "0.20"}, expires_in="30m"
    )
    assert opened["token"].startswith("hl_s_")
    assert opened["task"] == "pay the invoice"
    assert opened["tools"] == ["payments__look"]
    assert opened["caps"]["task"] == {"micros": 200_000, "text": "0.20 USD"}
    assert opened["expires_at"] == iso(at.clock.now_us() + 1800 * 1_000_000)
    assert "scope.tool" in (await at.call(opened["token"]))["result"]["content"][0]["text"]
    [event] = await at.events("session.opened")
    assert (event["task"], event["tools"], event["session"]) == (
        "pay the invoice",
        ["payments__look"],
        opened["session"],
    )


async def test_without_an_expiry_a_session_lasts_as_its_tier_says(at: Desk) -> None:
    await at.agent()
    opened = await at.session()
    assert opened["expires_at"] == iso(at.clock.now_us() + 8 * 3600 * 1_000_000)
    assert opened["tools"] == ["payments__*"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"expires_in": "2d"}, "at most 28800 s"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": "0s"}, "expires_in"),
        ({"expires_in": "-1h"}, "expires_in"),
        ({"tools": ["pay ments"]}, "tools: "),
        ({"tools": ["**"]}, "tools: "),
        ({"tools": []}, "tools"),
        ({"task": "   "}, "task"),
        ({"task": ""}, "task"),
        ({"task": "x" * 1_001}, "task"),
        ({"caps": {"task": 0.5}}, "task"),
        ({"caps": {"calls": 0}}, "calls"),
    ],
)
async def test_a_session_that_cannot_be_is_refused_by_name_of_the_fault(at: Desk, more: dict, words: str) -> None:
    await at.agent()
    with pytest.raises(Failed, match=words) as refused:
        await at.session(**more)
    assert refused.value.code == "request.invalid"
    assert (await at.ask("list_sessions", all=True))["sessions"] == []


async def test_a_session_of_an_unknown_agent_or_a_vanished_tier_is_refused(at: Desk) -> None:
    with pytest.raises(Failed) as refused:
        await at.session("nobody")
    assert refused.value.code == "request.not_found"
    await at.run(lambda tx: at.parts.identity.add_agent(tx, handle="old", tier="removed"))
    with pytest.raises(Failed, match="no tier 'removed'") as refused:
        await at.session("old")
    assert refused.value.code == "request.conflict"


async def test_states_are_open_halted_revoked_and_expired(at: Desk) -> None:
    await at.agent()
    expired = await at.session(task="expired", expires_in="1m")
    at.clock.forward(61)
    for task in ("open", "halted", "revoked"):
        await at.session(task=task)
    tasks = {one["task"]: one["session"] for one in (await at.ask("list_sessions"))["sessions"]}
    assert set(tasks) == {"open", "halted", "revoked"}, "what has ended is not among the open ones"
    await at.ask("halt", target=tasks["halted"], reason="stop")
    await at.ask("revoke", target=tasks["revoked"], reason="stop")
    listed = (await at.ask("list_sessions", agent="booking-7", all=True))["sessions"]
    assert {one["task"]: one["state"] for one in listed} == {
        "open": "open",
        "halted": "halted",
        "revoked": "revoked",
        "expired": "expired",
    }
    assert (await at.ask("show_session", session=expired["session"]))["state"] == "expired"
    assert {one["task"] for one in (await at.ask("list_sessions"))["sessions"]} == {"open", "halted"}


async def test_sessions_are_those_of_the_agent_asked_for(at: Desk) -> None:
    await at.agent()
    await at.agent("other")
    await at.session()
    other = await at.session("other")
    assert [one["session"] for one in (await at.ask("list_sessions", agent="other"))["sessions"]] == [other["session"]]
    assert len((await at.ask("list_sessions"))["sessions"]) == 2
    assert len((await at.ask("list_sessions", all=True))["sessions"]) == 2
    with pytest.raises(Failed) as refused:
        await at.ask("list_sessions", agent="nobody")
    assert refused.value.code == "request.not_found"


@pytest.mark.promise("P7")
async def test_a_sessions_balances_tell_held_from_in_doubt(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    await at.call(session["token"])
    await at.in_doubt(session["session"], amount=100_000)
    shown = await at.ask("show_session", session=session["session"])
    by_cap = {one["cap"]: one for one in shown["balances"]}
    assert list(by_cap) == ["per_call", "task", "hour", "day", "calls", "rate", "concurrent"]
    task = by_cap["task"]
    assert [task[key]["micros"] for key in ("limit", "settled", "held", "in_doubt", "remaining")] == [
        500_000, 50_000, 0, 100_000, 350_000,
    ]  # fmt: skip
    calls = by_cap["calls"]
    assert [calls[key] for key in ("limit", "settled", "held", "in_doubt", "remaining")] == [100, 1, 0, 1, 98]
    assert (shown["calls"], shown["running"]) == (2, 0)
    assert [one["kind"] for one in shown["last_actions"]] == ["session.opened", "call.succeeded"]
    assert "arguments" not in shown["last_actions"][1]
    assert "payloads" not in shown["last_actions"][1]


async def test_a_detail_shows_the_last_five_actions_one_for_each_call(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for _ in range(7):
        await at.call(session["token"], "payments__look")
    last = (await at.ask("show_session", session=session["session"]))["last_actions"]
    assert [one["kind"] for one in last] == ["call.succeeded"] * 5
    assert [one["seq"] for one in last] == sorted(one["seq"] for one in last)
    assert len({one["call"] for one in last}) == 5
