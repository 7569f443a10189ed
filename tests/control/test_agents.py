from __future__ import annotations

from pathlib import Path

import pytest

from support.desk import Desk, Failed, desk

HOURS = {"days": "mon-fri", "from": "08:00", "to": "18:00", "time_zone": "Europe/Berlin"}


async def test_an_agent_is_added_with_what_narrows_it(at: Desk) -> None:
    added = await at.agent(
        owner="anna", scopes=["reading"], hours=HOURS, caps={"day": "1.00", "calls": 5, "rate": "5/minute"}
    )
    assert added == {"agent": "booking-7", "tier": "experimental", "owner": "anna"}
    shown = await at.ask("show_agent", agent="booking-7")
    assert shown["scopes"] == ["reading"]
    assert shown["hours"] == HOURS
    assert shown["caps"] == {
        "per_call": {"micros": 400_000, "text": "0.40 USD"},
        "task": {"micros": 500_000, "text": "0.50 USD"},
        "hour": {"micros": 2_000_000, "text": "2.00 USD"},
        "day": {"micros": 1_000_000, "text": "1.00 USD"},
        "calls": 5,
        "concurrent": 10,
        "rate": "5/minute",
    }
    [event] = await at.events("agent.added")
    assert event["tier"] == "experimental"
    assert event["caps"] == {"calls": 5, "day_micros": 1_000_000, "rate": [5, 60]}
    assert event["credential"] is False


@pytest.mark.promise("R5")
async def test_caps_wider_than_the_tier_widen_nothing(at: Desk) -> None:
    await at.agent(caps={"day": "1000.00", "task": "1000.00", "calls": 1_000_000})
    caps = (await at.ask("show_agent", agent="booking-7"))["caps"]
    assert (caps["day"]["text"], caps["task"]["text"], caps["calls"]) == ("5.00 USD", "0.50 USD", 100)
    session = await at.session(caps={"task": "999.00"})
    assert session["caps"]["task"]["text"] == "0.50 USD"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tier": "platinum"}, "no tier 'platinum'.*experimental, roomy"),
        ({"scopes": ["nothing"]}, "no scope 'nothing'.*reading"),
        ({"handle": "everything"}, "halt of all agents"),
        ({"handle": "Booking 7"}, "is no handle"),
        ({"caps": {"rate": "many"}}, "caps: rate"),
        ({"caps": {"rate": "0/minute"}}, "caps: rate"),
        ({"hours": {**HOURS, "time_zone": "Mars/Olympus"}}, "hours: time_zone"),
        ({"hours": {**HOURS, "days": "someday"}}, "hours: days"),
        ({"caps": {"task": "-1"}}, "task"),
        ({"caps": {"weekly": "1"}}, "caps"),
        ({"caps": {"calls": True}}, "calls"),
        ({"surprise": 1}, "surprise"),
        ({"tier": ""}, "tier"),
    ],
)
async def test_an_agent_that_cannot_be_is_refused_by_name_of_the_fault(at: Desk, more: dict, words: str) -> None:
    with pytest.raises(Failed, match=words) as refused:
        await at.ask("add_agent", **{"handle": "booking-7", "tier": "experimental", **more})
    assert refused.value.code == "request.invalid"
    assert (await at.ask("list_agents"))["agents"] == []


@pytest.mark.promise("R26")
async def test_a_policy_that_is_broken_at_start_leaves_the_desk_up_to_look_and_to_stop(tmp_path: Path) -> None:
    async with desk(tmp_path) as before:
        await before.agent()
        session = await before.session()
        tokens = before.person, before.local
    async with desk(tmp_path, policy="tiers: [", tokens=tokens) as at:
        for refused in (
            at.ask("add_agent", handle="new", tier="experimental"),
            at.session(),
            at.ask("explain_decision", agent="booking-7", tool="payments__charge"),
            at.ask("import_tools", upstream="payments"),
        ):
            with pytest.raises(Failed, match="policy") as failure:
                await refused
            assert failure.value.code == "request.conflict"
        assert (await at.ask("show_agent", agent="booking-7"))["balances"] == []
        assert (await at.ask("show_session", session=session["session"]))["cap"] is None
        status = await at.ask("status")
        assert status["ready"] is False
        assert status["policy"]["version"] == "none"
        assert status["policy"]["problems"]
        assert not (await at.ask("halt", target="booking-7", reason="all the same"))["already"]
        assert not (await at.ask("revoke", target="booking-7", reason="all the same"))["already"]


async def test_states_are_active_halted_and_revoked(at: Desk) -> None:
    for handle in ("active", "halted", "revoked"):
        await at.agent(handle)
        await at.session(handle)
    await at.ask("halt", target="halted", reason="stop")
    await at.ask("revoke", target="revoked", reason="stop")
    listed = (await at.ask("list_agents"))["agents"]
    assert [(one["agent"], one["state"], one["sessions_open"]) for one in listed] == [
        ("active", "active", 1),
        ("halted", "halted", 1),
        ("revoked", "revoked", 0),
    ]
    assert (await at.ask("show_agent", agent="halted"))["halt"]["text"] == "stop"
    assert (await at.ask("show_agent", agent="active"))["halt"] is None
    await at.ask("halt", target="everything", reason="all")
    assert (await at.ask("show_agent", agent="active"))["halt"]["scope"] == "everything"


async def test_a_detail_shows_what_counts_against_each_cap(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    await at.call(session["token"])
    await at.call(session["token"], "payments__slow")
    await at.in_doubt(session["session"], amount=70_000)
    shown = await at.ask("show_agent", agent="booking-7")
    by_cap = {one["cap"]: one for one in shown["balances"]}
    assert set(by_cap) == {"per_call", "hour", "day", "rate", "concurrent"}, "task and calls are each session's own"
    day = by_cap["day"]
    assert (day["settled"]["micros"], day["held"]["micros"], day["in_doubt"]["micros"]) == (150_000, 0, 70_000)
    assert day["remaining"]["micros"] == 5_000_000 - 220_000
    assert day["resets_at"] is not None
    assert day["where"].startswith("policy.yaml:")
    assert by_cap["per_call"]["settled"] is None
    assert (by_cap["rate"]["limit"], by_cap["rate"]["settled"]) == ("60/minute", 3)
    assert [one["kind"] for one in shown["last_actions"]] == [
        "agent.added",
        "session.opened",
        "call.succeeded",
        "call.succeeded",
    ]
    [listed] = shown["sessions"]
    assert [listed[name]["micros"] for name in ("spent", "held", "in_doubt")] == [150_000, 0, 70_000]
    assert (listed["running"], listed["calls"], listed["calls_cap"]) == (0, 3, 100)
    row = (await at.ask("list_agents"))["agents"][0]
    assert (row["spent_day"]["text"], row["cap_day"]["text"]) == ("0.15 USD", "5.00 USD")


@pytest.mark.promise("R19")
async def test_reissue_needs_a_revoked_agent_and_keeps_its_halts(at: Desk) -> None:
    await at.agent()
    with pytest.raises(Failed, match="nothing to reissue") as refused:
        await at.ask("reissue_agent", agent="booking-7", reason="why")
    assert refused.value.code == "request.conflict"
    await at.ask("halt", target="booking-7", reason="stop")
    await at.ask("revoke", target="booking-7", reason="stop")
    again = await at.ask("reissue_agent", agent="booking-7", reason="fixed", credential=True)
    assert again["token"].startswith("hl_a_")
    assert (await at.ask("show_agent", agent="booking-7"))["state"] == "halted"


async def test_many_agents_are_listed_in_order(at: Desk) -> None:
    def add(tx) -> None:
        for number in range(120):
            at.parts.identity.add_agent(tx, handle=f"agent-{number:03d}", tier="experimental")

    await at.run(add)
    listed = (await at.ask("list_agents"))["agents"]
    assert [one["agent"] for one in listed] == [f"agent-{number:03d}" for number in range(120)]
    assert len((await at.ask("status"))["agents"]) == 120
