from __future__ import annotations

from typing import Any

import anyio
import pytest

from haltline.alerts.model import Alert
from haltline.upstreams.model import Caller
from support.desk import Desk, Failed, desk

pytestmark = pytest.mark.promise("P3")


async def alerts(at: Desk) -> list[Alert]:
    rows = await at.parts.reader.rows("SELECT body FROM alerts ORDER BY id")
    return [Alert.from_stored(row["body"]) for row in rows]


def refusal(answer: dict) -> str:
    return answer["result"]["content"][0]["text"]


# revoke


@pytest.mark.promise("R19")
async def test_revoking_a_session_ends_its_credential_and_no_other(at: Desk) -> None:
    await at.agent()
    one, other = await at.session(), await at.session()
    result = await at.ask("revoke", target=one["session"], reason="wrong task")
    assert result["kind"] == "session"
    assert result["sessions"] == [one["session"]]
    assert not result["already"]
    assert "session.revoked" in refusal(await at.call(one["token"]))
    assert "isError" not in (await at.call(other["token"]))["result"]


@pytest.mark.promise("R19")
async def test_revoking_an_agent_ends_all_its_sessions_and_blocks_new_ones_until_a_reissue(at: Desk) -> None:
    added = await at.agent(credential=True)
    one, two = await at.session(), await at.session()
    await at.call(one["token"])
    result = await at.ask("revoke", target="booking-7", reason="its token leaked")
    assert result["kind"] == "agent"
    assert sorted(result["sessions"]) == sorted([one["session"], two["session"]])
    assert "session.revoked" in refusal(await at.call(two["token"]))
    assert "agent.revoked" in refusal(await at.call(added["token"]))
    with pytest.raises(Failed, match="is revoked") as refused:
        await at.session()
    assert refused.value.code == "request.conflict"
    await at.ask("reissue_agent", agent="booking-7", reason="leak closed")
    await at.session()
    assert (await at.ask("show_agent", agent="booking-7"))["state"] == "active"
    spent = (await at.ask("list_agents"))["agents"][0]["spent_day"]
    assert spent == {"micros": 50_000, "text": "0.05 USD"}, "reissue keeps what the day has spent"


@pytest.mark.promise("R17")
@pytest.mark.parametrize("target", ["session", "agent"])
async def test_a_running_call_is_cancelled_and_withheld_before_revoke_returns(at: Desk, target: str) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting
    answers = []

    async def call() -> None:
        answers.append(await at.call(session["token"], "payments__slow"))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await at.upstream.started.wait()
            named = session["session"] if target == "session" else "booking-7"
            result = await at.ask("revoke", target=named, reason="in the middle of it")
            assert result["calls_cancelled"] == 1
            at.upstream.release.set()
    assert f"{target}.revoked" in refusal(answers[0])
    assert "late" not in refusal(answers[0])
    [hold] = await at.parts.reader.rows("SELECT state FROM holds")
    assert hold["state"] == "in_doubt", "it was sent, so what it cost is a person's to say"


@pytest.mark.promise("R17")
async def test_what_waits_before_its_first_byte_is_never_sent_after_a_revoke(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting_unsent
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.call, session["token"], "payments__slow")
            await at.upstream.started.wait()
            await at.ask("revoke", target=session["session"], reason="stop")
            at.upstream.release.set()
    assert at.upstream.sent == []
    [hold] = await at.parts.reader.rows("SELECT state FROM holds")
    assert hold["state"] == "voided"


async def test_a_repeated_revoke_says_so_does_no_harm_and_is_recorded_again(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for already in (False, True):
        for target in (session["session"], "booking-7"):
            assert (await at.ask("revoke", target=target, reason="again"))["already"] is already
    assert len(await at.events("session.revoked")) == 2
    assert len(await at.events("agent.revoked")) == 2
    assert [alert.kind for alert in await alerts(at)] == ["session.revoked", "agent.revoked"], "told once each"


@pytest.mark.promise("R17")
async def test_teardown_follows_a_revoke_and_is_not_waited_for(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.forget_may_end = anyio.Event()
    with anyio.fail_after(30):
        await at.ask("revoke", target=session["session"], reason="stop")
        await at.upstream.forget_started.wait()
        agent_id = (await at.run(lambda tx: at.parts.identity.agent(tx, "booking-7"))).id
        assert at.upstream.forgotten == [(Caller(agent_id, session["session"]), True)]
        at.upstream.forget_may_end.set()


async def test_revoking_an_agent_tears_down_its_sessions_and_what_it_had_for_itself(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    await at.ask("revoke", target="booking-7", reason="stop")
    with anyio.fail_after(30):
        await at.upstream.forget_started.wait()
        while len(at.upstream.forgotten) < 2:
            await anyio.lowlevel.checkpoint()
    agent_id = (await at.run(lambda tx: at.parts.identity.agent(tx, "booking-7"))).id
    assert sorted(at.upstream.forgotten, key=lambda one: one[1]) == [
        (Caller(agent_id, ""), False),
        (Caller(agent_id, session["session"]), True),
    ]


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("everything", "request.invalid", "haltline halt everything"),
        ("nobody", "request.not_found", "no session or agent 'nobody'"),
        ("ses_nothing", "request.not_found", "no session 'ses_nothing'"),
    ],
)
async def test_a_revoke_of_nothing_says_what_to_do(at: Desk, target: str, code: str, words: str) -> None:
    with pytest.raises(Failed, match=words) as refused:
        await at.ask("revoke", target=target, reason="stop")
    assert refused.value.code == code


# halt and resume


@pytest.mark.promise("R16", "P4")
async def test_three_halts_are_independent_and_a_resume_lifts_exactly_one(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for target in (session["session"], "booking-7", "everything"):
        result = await at.ask("halt", target=target, reason=f"stop {target}")
        assert not result["already"]
    for target, code in (("everything", "everything.halted"), ("booking-7", "agent.halted")):
        assert code in refusal(await at.call(session["token"]))
        result = await at.ask("resume", target=target, reason="fixed")
        assert result["was"]["text"] == f"stop {target}"
        assert result["was"]["by"] == "operator:anna"
    assert "session.halted" in refusal(await at.call(session["token"]))
    await at.ask("resume", target=session["session"], reason="fixed")
    assert "isError" not in (await at.call(session["token"]))["result"]


@pytest.mark.promise("R16")
async def test_while_everything_is_halted_no_session_opens(at: Desk) -> None:
    await at.agent()
    await at.ask("halt", target="everything", reason="incident")
    with pytest.raises(Failed, match="everything is halted") as refused:
        await at.session()
    assert refused.value.code == "request.conflict"


@pytest.mark.promise("P4")
async def test_a_halt_outlives_a_restart_and_the_day(tmp_path, at: Desk) -> None:
    folder = tmp_path / "again"
    async with desk(folder) as before:
        await before.agent()
        session = await before.session(expires_in="8h")
        await before.ask("halt", target="booking-7", reason="looping")
        tokens, clock = (before.person, before.local), before.clock
    clock.forward(7 * 3600)
    async with desk(folder, clock=clock, tokens=tokens) as after:
        assert "agent.halted" in refusal(await after.call(session["token"]))
        [halt] = (await after.ask("status"))["halts"]
        assert (halt["target"], halt["text"], halt["by"]) == ("booking-7", "looping", "operator:anna")
        await after.ask("resume", target="booking-7", reason="looked")
        assert "isError" not in (await after.call(session["token"]))["result"]


@pytest.mark.promise("R18")
async def test_an_operators_halt_cancels_and_withholds_what_runs_also_where_a_halt_stands(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    at.upstream.script["slow"] = at.upstream.waiting
    answers = []

    async def call() -> None:
        answers.append(await at.call(session["token"], "payments__slow"))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await at.upstream.started.wait()
            agent_id = (await at.run(lambda tx: at.parts.identity.agent(tx, "booking-7"))).id
            cause = {"code": "budget.day_exceeded", "text": "day cap", "by": "cap day", "cap": "day"}
            await at.run(lambda tx: at.parts.halts.set(tx, "agent", agent_id, **cause))
            result = await at.ask("halt", target="booking-7", reason="looking into it")
            assert result["already"]
            assert result["calls_cancelled"] == 1
    assert "agent.halted" in refusal(answers[0])
    [halt] = (await at.ask("status"))["halts"]
    assert halt["by"] == "cap day", "the first cause stays"


async def test_halting_one_agent_leaves_another_alone(at: Desk) -> None:
    await at.agent()
    await at.agent("bystander")
    bystander = await at.session("bystander")
    await at.ask("halt", target="booking-7", reason="stop")
    assert "isError" not in (await at.call(bystander["token"]))["result"]


@pytest.mark.promise("P10")
async def test_every_stop_is_told_in_the_transaction_that_does_it(at: Desk) -> None:
    await at.agent()
    session = await at.session(task="pay the invoice")
    await at.call(session["token"])
    for target in (session["session"], "booking-7", "everything"):
        await at.ask("halt", target=target, reason="runaway")
    told = await alerts(at)
    assert [alert.kind for alert in told] == ["session.halted", "agent.halted", "everything.halted"]
    first = told[0]
    assert (first.agent, first.session, first.task) == ("booking-7", session["session"], "pay the invoice")
    assert first.by == "operator:anna"
    assert first.text == "runaway"
    assert any("payments__charge" in line for line in first.last_actions)
    assert any(balance.cap == "task" for balance in first.balances)
    assert any(command.startswith(f"haltline resume {session['session']}") for command in first.commands)
    shown = (await at.ask("list_alerts"))["alerts"]
    assert [one["kind"] for one in shown] == ["everything.halted", "agent.halted", "session.halted"]
    assert len((await at.ask("list_alerts", limit=1))["alerts"]) == 1


async def test_resuming_what_is_not_halted_names_the_halt_that_is(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    with pytest.raises(Failed, match="is not halted") as refused:
        await at.ask("resume", target=session["session"], reason="why not")
    assert refused.value.code == "request.conflict"
    await at.ask("halt", target="booking-7", reason="stop")
    with pytest.raises(Failed, match="haltline resume booking-7"):
        await at.ask("resume", target=session["session"], reason="why not")


@pytest.mark.promise("R3", "R16")
async def test_a_resume_can_add_to_the_cap_that_caused_the_halt_until_the_session_ends(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for _ in range(10):
        await at.call(session["token"])
    assert "budget.task_exceeded" in refusal(await at.call(session["token"]))
    result = await at.ask("resume", target=session["session"], reason="a little more", allow="0.10")
    assert result["allowance"] == {"micros": 100_000, "text": "0.10 USD"}
    assert result["was"]["code"] == "budget.task_exceeded"
    for _ in range(2):
        assert "isError" not in (await at.call(session["token"]))["result"]
    assert "budget.task_exceeded" in refusal(await at.call(session["token"]))
    [row] = await at.parts.reader.rows("SELECT * FROM allowances")
    opened = await at.run(lambda tx: at.parts.identity.session(tx, session["session"]))
    assert row["until_us"] == opened.expires_us
    shown = await at.ask("show_session", session=session["session"])
    task = next(one for one in shown["balances"] if one["cap"] == "task")
    assert task["limit"]["micros"] == 600_000
    assert task["remaining"]["micros"] == 0


@pytest.mark.promise("R3", "R16")
async def test_what_is_left_of_an_allowance_is_shown_wherever_its_cap_is_until_it_ends(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for _ in range(11):
        await at.call(session["token"])
    await at.ask("resume", target=session["session"], reason="a little more", allow="0.12")

    async def shown() -> list[Any]:
        return [
            (await at.ask("show_session", session=session["session"]))["allowances"],
            (await at.ask("status"))["allowances"],
            (await at.ask("explain_decision", agent="booking-7", tool="payments__charge", session=session["session"]))[
                "allowances"
            ],
        ]

    for spent, left in ((0, "0.12 USD"), (1, "0.07 USD"), (1, "0.02 USD")):
        for _ in range(spent):
            assert "isError" not in (await at.call(session["token"]))["result"]
        for one in await shown():
            [allowance] = one
            assert (allowance["target"], allowance["cap"], allowance["by"]) == (
                session["session"],
                "task",
                "operator:anna",
            )
            assert (allowance["amount"]["text"], allowance["left"]["text"]) == ("0.12 USD", left)
            assert allowance["until"] == session["expires_at"]
    assert (await at.ask("show_agent", agent="booking-7"))["allowances"] == []
    at.clock.forward(9 * 3600)
    assert (await at.ask("status"))["allowances"] == []


@pytest.mark.promise("R2", "R16")
async def test_what_was_added_to_a_day_ends_with_the_day_and_adds_up_within_it(at: Desk) -> None:
    await at.agent()
    row = await at.run(lambda tx: at.parts.identity.agent(tx, "booking-7"))
    for amount in ("1.00", "0.50"):
        await at.run(
            lambda tx: at.parts.halts.set(tx, "agent", row.id, code="x.day", text="full", by="cap day", cap="day")
        )
        await at.ask("resume", target="booking-7", reason="more", allow=amount)
    shown = await at.ask("show_agent", agent="booking-7")
    assert [(one["target"], one["cap"], one["amount"]["text"], one["left"]["text"]) for one in shown["allowances"]] == [
        ("booking-7", "day", "1.00 USD", "1.00 USD"),
        ("booking-7", "day", "0.50 USD", "0.50 USD"),
    ]
    [day] = [one for one in shown["balances"] if one["cap"] == "day"]
    assert (day["allowance"]["text"], day["limit"]["text"]) == ("1.50 USD", "6.50 USD")
    at.clock.at_us = at.parts.policies.current.day_bounds(at.clock.now_us())[1]
    assert (await at.ask("show_agent", agent="booking-7"))["allowances"] == []


@pytest.mark.promise("R16")
async def test_of_what_was_added_to_one_cap_each_has_its_own_end_and_what_ends_first_is_used_first(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for amount, lasts in (("0.10", "1h"), ("0.20", "30m")):
        await at.run(
            lambda tx: at.parts.halts.set(
                tx, "session", session["session"], code="x.task", text="full", by="cap task", cap="task"
            )
        )
        await at.ask("resume", target=session["session"], reason="more", allow=amount, allow_for=lasts)

    async def shown() -> list[tuple[str, str, str]]:
        found = (await at.ask("show_session", session=session["session"]))["allowances"]
        assert found == (await at.ask("status"))["allowances"]
        return [(one["amount"]["text"], one["left"]["text"], one["until"][11:16]) for one in found]

    assert await shown() == [("0.20 USD", "0.20 USD", "14:43"), ("0.10 USD", "0.10 USD", "15:13")]
    for _ in range(13):
        await at.call(session["token"])
    assert await shown() == [("0.20 USD", "0.05 USD", "14:43"), ("0.10 USD", "0.10 USD", "15:13")]
    await at.call(session["token"])
    await at.call(session["token"])
    assert await shown() == [("0.20 USD", "0.00 USD", "14:43"), ("0.10 USD", "0.05 USD", "15:13")]
    at.clock.forward(30 * 60)
    assert await shown() == [("0.10 USD", "0.00 USD", "15:13")], "0.75 was spent, and 0.60 would be admitted now (R5)"


@pytest.mark.parametrize(
    ("cap", "scope", "lasts_s", "allow", "amount"),
    [
        ("day", "agent", None, "1", 1_000_000),
        ("hour", "agent", 3600, "0.5", 500_000),
        ("calls", "session", -1, "20", 20),
    ],
)
async def test_an_allowance_lasts_as_long_as_the_window_of_its_cap(
    at: Desk, cap: str, scope: str, lasts_s: int | None, allow: str, amount: int
) -> None:
    await at.agent()
    session = await at.session()
    row = await at.run(lambda tx: at.parts.identity.session(tx, session["session"]))
    subject, target = (row.id, row.id) if scope == "session" else (row.agent_id, "booking-7")
    await at.run(
        lambda tx: at.parts.halts.set(tx, scope, subject, code=f"x.{cap}", text="full", by=f"cap {cap}", cap=cap)
    )
    result = await at.ask("resume", target=target, reason="more", allow=allow)
    assert result["allowance"] == (amount if cap == "calls" else {"micros": amount, "text": f"{float(allow):.2f} USD"})
    [stored] = await at.parts.reader.rows("SELECT * FROM allowances")
    day_end = at.parts.policies.current.day_bounds(at.clock.now_us())[1]
    ends = {None: day_end, -1: row.expires_us}.get(lasts_s, at.clock.now_us() + 3600 * 1_000_000)
    assert (stored["amount"], stored["until_us"], stored["cap"]) == (amount, ends, cap)


@pytest.mark.parametrize("allow", ["0", "0.00", "-1", "1e3", "NaN", "0.1234567"])
async def test_an_allowance_that_is_no_amount_lifts_nothing(at: Desk, allow: str) -> None:
    await at.agent()
    session = await at.session()
    for _ in range(11):
        await at.call(session["token"])
    with pytest.raises(Failed, match="allow") as refused:
        await at.ask("resume", target=session["session"], reason="more", allow=allow)
    assert refused.value.code == "request.invalid"
    assert len((await at.ask("status"))["halts"]) == 1


async def test_nothing_can_be_added_where_no_cap_caused_the_halt(at: Desk) -> None:
    await at.agent()
    await at.ask("halt", target="booking-7", reason="stop")
    with pytest.raises(Failed, match="no cap caused this halt"):
        await at.ask("resume", target="booking-7", reason="more", allow="1.00")
    assert len((await at.ask("status"))["halts"]) == 1, "it is lifted wholly or not at all"
