"""The human resume: what a person sees before they lift a halt, and what they may add to a cap for a time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from haltline.policy.model import Halt, Reason
from haltline.rules.firing import halted
from support.desk import Desk, Failed, desk

pytestmark = pytest.mark.promise("P4", "R16")


def refusal(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


async def broke(at: Desk) -> dict[str, Any]:
    """A session halted by its task cap of 0.50: ten calls of 0.05, and the one that was too much."""
    await at.agent()
    session = await at.session()
    for _ in range(11):
        await at.call(session["token"])
    return session


# what ran since


async def test_a_resume_shows_what_was_refused_since_and_what_went_on(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.call, session["token"], "payments__slow")
            await at.upstream.started.wait()
            for _ in range(9):
                await at.call(session["token"])
            assert "budget.cap_held" in refusal(await at.call(session["token"]))
            await at.run(lambda tx: at.parts.halts.set(
                tx, "session", session["session"], code="budget.task_exceeded", text="full", by="cap task", cap="task"
            ))  # fmt: skip
            seen = await at.ask("resume", target=session["session"], reason="looked", preview=True)
            assert seen["since_halt"]["running"] == 1
            at.upstream.release.set()
    assert (await at.ask("show_session", session=session["session"]))["halt"] is not None


async def test_what_ended_after_a_halt_is_counted_with_its_charge_and_each_refusal_too(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting
    told = {"target": session["session"], "reason": "looked"}
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                await at.call(session["token"])
            tasks.start_soon(at.call, session["token"], "payments__slow")
            await at.upstream.started.wait()
            at.clock.forward(1)
            await at.in_doubt(session["session"], 10_000)
            await at.call(session["token"])
            at.upstream.release.set()
    # 0.40 and 0.10 are settled, 0.01 is in doubt: the next one is refused, and only after a person settles it it halts
    await at.ask("resolve_in_doubt", call="call_doubt", outcome="settle", reason="it ran")
    assert "budget.task_exceeded" in refusal(await at.call(session["token"]))
    for _ in range(3):
        at.clock.forward(1)
        assert "session.halted" in refusal(await at.call(session["token"]))
    seen = await at.ask("resume", **told, preview=True)
    assert (seen["since_halt"]["refused"], seen["since_halt"]["running"]) == (3, 0)
    assert [one["kind"] for one in seen["since_halt"]["last"]] == ["call.denied"] * 3
    assert not seen["since_halt"]["more"]


async def test_a_call_that_runs_on_over_the_halt_of_a_cap_is_told_with_what_it_cost(at: Desk) -> None:
    await at.agent(caps={"task": "0.30"})
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                await at.call(session["token"])
            tasks.start_soon(at.call, session["token"], "payments__slow")
            await at.upstream.started.wait()
            cause = {"code": "budget.task_exceeded", "text": "full", "by": "cap task", "cap": "task"}

            def unit(tx: Any) -> None:
                row = at.parts.identity.session(tx, session["session"])
                who = at.parts.identity.principal(tx, at.parts.identity.agent(tx, "booking-7"), row)
                reason = Reason(str(cause["code"]), "full", {"cap": "task"})
                halted(tx, at.parts, who, Halt((reason,), "session"), None)

            await at.run(unit)
            at.clock.forward(1)
            at.upstream.release.set()
    seen = await at.ask("resume", target=session["session"], reason="looked")
    since = seen["since_halt"]
    assert (since["succeeded"], since["running"], since["charged"]["text"]) == (1, 0, "0.10 USD")
    assert [one["kind"] for one in since["last"]] == ["call.succeeded"]


async def test_after_a_halt_of_everything_what_every_agent_tried_is_counted(at: Desk) -> None:
    tokens = []
    for handle in ("booking-7", "booking-8"):
        await at.agent(handle)
        tokens.append((await at.session(handle))["token"])
    await at.ask("halt", target="everything", reason="incident")
    for token in tokens:
        at.clock.forward(1)
        await at.call(token)
    seen = await at.ask("resume", target="everything", reason="over")
    assert seen["since_halt"]["refused"] == 2
    assert seen["ahead"] == "agents and sessions with a halt of their own stay halted; the others go on"


# what lies ahead


async def test_a_resume_says_what_a_call_like_the_refused_one_would_come_to(at: Desk) -> None:
    await at.agent(caps={"task": "0.48"})
    session = await at.session()
    for _ in range(10):
        await at.call(session["token"])
    told = {"target": session["session"], "reason": "looked"}
    seen = await at.ask("resume", **told, preview=True)
    like = "the next call like the refused one (0.05 USD)"
    assert seen["ahead"] == f"{like} would halt again: task spend 0.50 of 0.48 USD"
    assert not seen["since_halt"]["refused"]
    seen = await at.ask("resume", **told, preview=True, allow="0.01")
    assert seen["ahead"].endswith("would halt again: task spend 0.50 of 0.49 USD")
    seen = await at.ask("resume", **told, preview=True, allow="0.10")
    assert seen["ahead"] == f"{like} fits: task spend 0.50 of 0.58 USD, 0.08 USD left then"
    assert (await at.ask("resume", **told, allow="0.10"))["ahead"] == seen["ahead"]
    assert "isError" not in (await at.call(session["token"]))["result"]


async def test_a_resume_shows_each_balance_with_what_was_added(at: Desk) -> None:
    session = await broke(at)
    told = {"target": session["session"], "reason": "looked"}
    await at.in_doubt(session["session"], 60_000)
    for preview, limit, left in ((True, "0.50 USD", "-0.06 USD"), (False, "0.70 USD", "0.14 USD")):
        seen = await at.ask("resume", **told, allow="0.20", preview=preview)
        (task,) = (one for one in seen["balances"] if one["cap"] == "task")
        texts = [task[key]["text"] for key in ("settled", "held", "in_doubt", "limit", "remaining")]
        assert texts == ["0.50 USD", "0.00 USD", "0.06 USD", limit, left]
        assert {one["cap"] for one in seen["balances"]} >= {"task", "day"}
    shown = await at.ask("show_session", session=session["session"])
    assert shown["balances"] == seen["balances"]


@pytest.mark.promise("R1", "R3")
async def test_what_is_in_doubt_makes_the_next_call_wait_and_is_said(at: Desk) -> None:
    session = await broke(at)
    told = {"target": session["session"], "reason": "looked"}
    await at.in_doubt(session["session"], 60_000)
    seen = await at.ask("resume", **told, preview=True, allow="0.10")
    assert "would be refused, and not halt, until the 0.06 USD on hold or in doubt are settled" in seen["ahead"]
    assert (await at.ask("resume", **told, allow="0.10"))["ahead"] == seen["ahead"]
    assert "budget.cap_held" in refusal(await at.call(session["token"]))


async def test_the_halts_that_stay_are_named(at: Desk) -> None:
    session = await broke(at)
    for target in ("booking-7", "everything"):
        await at.ask("halt", target=target, reason="stop")
    seen = await at.ask("resume", target=session["session"], reason="looked", preview=True)
    assert seen["ahead"].startswith(
        "it stays stopped until also: haltline resume booking-7, haltline resume everything; then the next call like"
    )


@pytest.mark.promise("R4")
async def test_a_single_charge_that_halts_would_halt_again(tmp_path: Any) -> None:
    policy = """
version: "1"
currency: USD
tiers: {experimental: {tools: ["*"], caps: {task: "9.00"}, halts_on: {single_charge: "1.00"}}}
tools: {payments__charge: {price: "1.20"}}
"""
    async with desk(tmp_path, policy=policy) as at:
        await at.agent()
        session = await at.session()
        assert "charge.single_exceeded" in refusal(await at.call(session["token"]))
        seen = await at.ask("resume", target="booking-7", reason="looked", preview=True)
        assert seen["ahead"] == (
            "the next call like the refused one (1.20 USD) would halt again: a single charge above 1.00 USD halts"
        )


@pytest.mark.promise("R21")
async def test_any_operator_may_look_ahead_and_only_a_person_may_resume(at: Desk) -> None:
    session = await broke(at)
    told = {"target": session["session"], "reason": "looked"}
    assert (await at.ask("resume", token=at.local, **told, preview=True))["preview"]
    with pytest.raises(Failed, match="a person's own"):
        await at.ask("resume", token=at.local, **told)
    with pytest.raises(Failed, match="a person's own"):
        await at.ask("resume", token=at.local, **told, preview=False)
    assert (await at.ask("show_session", session=session["session"]))["halt"] is not None


# for how long


async def test_what_is_added_holds_as_long_as_was_said_and_what_is_left_is_shown(at: Desk) -> None:
    session = await broke(at)
    told = {"target": session["session"], "reason": "a little more"}
    result = await at.ask("resume", **told, allow="0.12", allow_for="2h")
    assert (result["allowance"]["text"], result["allowance_cap"]) == ("0.12 USD", "task")
    [row] = await at.parts.reader.rows("SELECT * FROM allowances")
    assert row["until_us"] == at.clock.now_us() + 7_200_000_000
    [event] = await at.events("session.resumed")
    assert (event["allowance"], event["cap"], event["until_us"]) == (120_000, "task", row["until_us"])
    assert "isError" not in (await at.call(session["token"]))["result"]
    [left] = (await at.ask("status"))["allowances"]
    assert (left["left"]["text"], left["until"]) == ("0.07 USD", result["allowance_until"])
    at.clock.forward(7_200)
    assert (await at.ask("status"))["allowances"] == []
    assert "budget.task_exceeded" in refusal(await at.call(session["token"])), "what was spent of it stays spent"


async def test_a_cap_that_is_named_is_raised_also_where_no_cap_caused_the_halt(at: Desk) -> None:
    await at.agent()
    await at.ask("halt", target="booking-7", reason="looking into it")
    seen = await at.ask("resume", target="booking-7", reason="fine", allow="day=2.00", allow_for="30m")
    assert (seen["allowance"]["text"], seen["allowance_cap"]) == ("2.00 USD", "day")
    [one] = (await at.ask("show_agent", agent="booking-7"))["allowances"]
    assert (one["cap"], one["amount"]["text"], one["until"]) == ("day", "2.00 USD", seen["allowance_until"])


async def test_no_allowance_outlives_its_session(at: Desk) -> None:
    await at.agent()
    session = await at.session(expires_in="1h")
    for _ in range(11):
        await at.call(session["token"])
    result = await at.ask("resume", target=session["session"], reason="more", allow="calls=5", allow_for="30d")
    assert (result["allowance"], result["allowance_until"]) == (5, session["expires_at"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"allow": "week=1.00"}, "no cap 'week'"),
        ({"allow": "day=1.00"}, "the day cap is that of an agent"),
        ({"allow": "task="}, "allow"),
        ({"allow": "0.10", "allow_for": "soon"}, "allow_for: 'soon' is not a length of time"),
        ({"allow": "0.10", "allow_for": "0s"}, "out of range"),
        ({"allow_for": "2h"}, "say what to add"),
    ],
)
async def test_an_allowance_that_makes_no_sense_lifts_nothing(at: Desk, given: dict[str, str], words: str) -> None:
    session = await broke(at)
    with pytest.raises(Failed, match=words) as refused:
        await at.ask("resume", target=session["session"], reason="more", **given)
    assert refused.value.code == "request.invalid"
    assert len((await at.ask("status"))["halts"]) == 1
    assert await at.parts.reader.rows("SELECT * FROM allowances") == []


async def test_nothing_that_caused_no_cap_is_raised_without_a_name(at: Desk) -> None:
    await at.agent()
    await at.ask("halt", target="booking-7", reason="stop")
    with pytest.raises(Failed, match="hour=1.00 or day=1.00"):
        await at.ask("resume", target="booking-7", reason="more", allow="1.00")
