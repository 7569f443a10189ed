"""Whole calls through `Broker.call`: what is recorded, held, sent, settled and answered on every way a call can end."""

from __future__ import annotations

import sqlite3

import anyio
import pytest

from haltline.calls.admission import Dead
from haltline.calls.call import NoSuchTool
from haltline.calls.recovery import charge_due, doubt_left_holds
from haltline.calls.refusals import META_KEY
from haltline.identity import Unknown
from haltline.policy.model import Reason
from haltline.store.database import connect_writer
from support.world import Request, SetClock, world


@pytest.fixture
async def w(tmp_path):
    async with world(tmp_path) as made:
        yield made


def text(answer):
    return answer["result"]["content"][0]["text"]


def code(answer):
    assert answer["result"]["isError"] is True
    return answer["result"]["_meta"][META_KEY]["reasons"][0]["code"]


async def _session(w, tier="experimental", handle="booking-7", **more):
    return await w.session(await w.agent(handle, tier), **more)


@pytest.mark.promise("P1", "R30")
async def test_a_call_is_recorded_with_all_it_was_decided_from_before_it_leaves(w):
    session, token = await _session(w)
    seen = []

    async def look(call):
        seen.extend(await w.events("call."))
        w.upstream.send(call)
        return {"result": {"content": []}}

    w.upstream.script["charge"] = look
    await w.call(token, arguments={"amount": 3})
    assert [event["kind"] for event in seen] == ["call.allowed"]
    event = seen[0]
    assert (event["agent"], event["session"], event["tool"], event["upstream"]) == (
        "booking-7",
        session,
        "payments__charge",
        "payments",
    )
    assert event["amount_micros"] == 50_000
    assert event["policy"] == w.parts.policies.current.version
    assert event["facts"]["task"] == [0, 0]
    assert event["tool_digest"] == w.parts.catalog.tool("payments__charge").digest
    assert "sha256" in event["payloads"]["arguments"]


OUTCOMES = {
    "answer": ("charge", "_answer", ("settled", 50_000), "call.succeeded", None),
    "tool error, charged": ("charge", "tool_error", ("settled", 50_000), "call.failed", None),
    "tool error, free by policy": ("refund", "tool_error", ("settled", 0), "call.failed", None),
    "protocol error": ("charge", "protocol_error", ("settled", 50_000), "call.failed", None),
    "never left": ("charge", "unsent", ("voided", None), "call.voided", "upstream.unreachable"),
    "lost after it left": ("charge", "unknown", ("in_doubt", None), "call.in_doubt", "upstream.lost"),
    "adapter broke after it left": ("charge", "broken", ("in_doubt", None), "call.in_doubt", "upstream.failed"),
    "adapter broke before": ("charge", "broken_unsent", ("voided", None), "call.voided", "upstream.failed"),
}


@pytest.mark.promise("P7", "R10", "R11")
@pytest.mark.parametrize(("tool", "script", "hold", "kind", "refused"), OUTCOMES.values(), ids=OUTCOMES)
async def test_every_hold_ends_once_and_says_how(w, tool, script, hold, kind, refused):
    _, token = await _session(w)
    w.upstream.script[tool] = getattr(w.upstream, script)
    answer = await w.call(token, f"payments__{tool}")
    assert [(state, charged) for _, state, _, charged in await w.holds()] == [hold]
    assert (await w.events("call."))[-1]["kind"] == kind
    assert len(w.parts.calls) == 0
    if refused:
        assert code(answer) == refused
        assert ("may have run" in text(answer)) == (hold[0] == "in_doubt")


@pytest.mark.promise("P11")
async def test_an_answer_passes_as_it_came(w):
    _, token = await _session(w)
    strange = {
        "result": {
            "content": [{"type": "new", "x": None}],
            "structuredContent": None,
            "_meta": {"a": None},
            "later": 2**70,
        }
    }

    async def script(call):
        w.upstream.send(call)
        return strange

    w.upstream.script["charge"] = script
    assert await w.call(token) == strange


async def test_what_travels_on_is_the_raw_message_under_the_upstreams_own_name(w):
    _, token = await _session(w)
    request = Request(token, "payments__charge", {"amount": 1})
    request.params["_meta"] = {"progressToken": 0, "vendor": None}
    await w.send(request)
    assert w.upstream.sent == [
        {"name": "charge", "arguments": {"amount": 1}, "_meta": {"progressToken": 0, "vendor": None}}
    ]


@pytest.mark.promise("P6", "R6", "R22")
@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("payments__unpriced", "charge.unpriced"),
        ("tasks__add", None),
        ("payments__nothing", None),
        ("nonsense", None),
        ("", None),
    ],
)
async def test_what_is_not_allowed_is_refused_and_leaves_an_event(w, tool, said):
    _, token = await _session(w)
    answer = await w.call(token, tool)
    if said is None:
        assert answer == NoSuchTool(tool)
    else:
        assert code(answer) == said
    assert [event["kind"] for event in await w.events("call.")] == ["call.denied"]
    assert w.upstream.sent == []
    assert await w.holds() == []


@pytest.mark.promise("R23")
@pytest.mark.parametrize(("token", "said"), [(None, "missing"), ("hl_s_x", "malformed"), ("", "missing")])
async def test_a_token_that_is_nobodys_is_unauthorized(w, token, said):
    answer = await w.call(token)
    assert isinstance(answer, Unknown)
    assert answer.code == f"credential.{said}"


@pytest.mark.promise("R23")
async def test_an_ended_credential_is_told_why_for_a_while_and_then_unauthorized(w):
    session, revoked = await _session(w)
    _, expired = await _session(w, handle="other", lasts_s=60)
    await w.run(lambda tx: w.parts.identity.revoke_session(tx, session))
    w.clock.forward(61)
    assert code(await w.call(revoked)) == "session.revoked"
    assert code(await w.call(expired)) == "session.expired"
    assert w.upstream.sent == []
    assert [event["reasons"][0]["code"] for event in await w.events("call.denied")] == [
        "session.revoked",
        "session.expired",
    ]
    w.clock.forward(901)
    assert (await w.call(revoked)).code == "credential.revoked"
    assert (await w.call(expired)).code == "credential.expired"


# caps and halts


@pytest.mark.promise("P2", "R3", "P4")
async def test_a_cap_halts_the_session_until_a_person_lifts_it_and_running_calls_finish(w):
    session, token = await _session(w)
    slow = Request(token, "payments__slow")
    w.upstream.script["slow"] = w.upstream.waiting
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(w.send, slow)
        await w.upstream.started.wait()
        for _ in range(8):
            assert "isError" not in (await w.call(token))["result"]
        held = await w.call(token)
        assert code(held) == "budget.cap_held"
        assert await w.halts() == []
        w.upstream.release.set()
    assert text(slow.delivered[0]) == "late"
    answer = await w.call(token)
    assert code(answer) == "budget.task_exceeded"
    assert text(answer).startswith("Halted [budget.task_exceeded]: task cap 0.50 USD, spent 0.50, this call 0.05")
    assert [(halt.scope, halt.subject_id, halt.cap) for halt in await w.halts()] == [("session", session, "task")]
    assert code(await w.call(token, "payments__look")) == "session.halted"
    assert sum(charged for *_, charged in await w.holds()) == 500_000


@pytest.mark.promise("R18")
async def test_a_halt_by_a_cap_lets_running_calls_deliver(w):
    _, token = await _session(w)
    slow = Request(token, "payments__look")
    w.upstream.script["look"] = w.upstream.waiting
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(w.send, slow)
        await w.upstream.started.wait()
        for _ in range(10):
            await w.call(token)
        assert code(await w.call(token)) == "budget.task_exceeded"
        w.upstream.release.set()
    assert text(slow.delivered[0]) == "late"


@pytest.mark.promise("P10")
async def test_a_halt_by_a_cap_commits_its_alert_with_cause_actions_balances_and_command(w):
    session, token = await _session(w)
    for _ in range(11):
        await w.call(token)
    halted = (await w.events("session.halted"))[0]
    row = await w.parts.reader.row("SELECT event_seq, body FROM alerts")
    assert row["event_seq"] == halted["seq"]
    for part in (
        "booking-7",
        session,
        "task cap 0.50 USD, spent 0.50, this call 0.05",
        "call.succeeded payments__charge",
        f"haltline resume {session}",
        "0.50 USD",
    ):
        assert part in row["body"].decode(), part


@pytest.mark.promise("P2")
async def test_16_callers_of_1000_calls_against_a_cap_for_50_get_exactly_50(tmp_path):
    policy = "version: '1'\ncurrency: USD\ntiers: {t: {tools: ['*'], caps: {day: '5.00'}}}\ntools: {payments__charge: {price: '0.10'}}\n"
    async with world(tmp_path, policy=policy) as w:
        _, token = await _session(w, "t")

        async def caller():
            for _ in range(1_000):
                await w.call(token)

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(caller)
        assert len(w.upstream.sent) == 50
        assert await w.parts.reader.rows("SELECT DISTINCT state FROM holds WHERE state <> 'settled'") == []
        assert (await w.parts.reader.row("SELECT sum(charged_micros) FROM holds"))[0] == 5_000_000
        assert len(await w.events("call.denied")) == 15_950


# stops


@pytest.mark.promise("P3", "R17")
@pytest.mark.parametrize(("script", "state"), [("waiting", "in_doubt"), ("waiting_unsent", "voided")])
async def test_a_stop_withholds_the_result_and_what_had_left_stays_in_doubt(w, script, state):
    session, token = await _session(w)
    w.upstream.script["slow"] = getattr(w.upstream, script)
    got = []
    async with anyio.create_task_group() as tasks:

        async def call():
            got.append(await w.call(token, "payments__slow"))

        tasks.start_soon(call)
        await w.upstream.started.wait()
        w.parts.calls.stop(session_ids=[session], reason=Reason("session.revoked", "revoked by anna; do not retry"))
        w.upstream.release.set()
    assert code(got[0]) == "session.revoked"
    assert [(held[1]) for held in await w.holds()] == [state]
    assert (await w.events("call."))[-1]["withheld"] == "session.revoked"
    assert len(w.upstream.sent) == (script == "waiting")


@pytest.mark.promise("P3", "R17")
async def test_a_stop_while_the_answer_waits_for_a_slow_reader_withholds_it(w):
    session, token = await _session(w)
    request = Request(token, "payments__charge")
    request.slow_reader = anyio.Event()
    returned = []
    async with anyio.create_task_group() as tasks:

        async def call():
            returned.append(await w.send(request))

        tasks.start_soon(call)
        with anyio.fail_after(30):
            while not await w.events("call.succeeded"):
                pass
        w.parts.calls.stop(session_ids=[session], reason=Reason("agent.halted", "halted by anna"))
        request.slow_reader.set()
    assert request.delivered == []
    assert code(returned[0]) == "agent.halted"


@pytest.mark.promise("P5")
async def test_its_own_caller_can_cancel_a_call_and_nobody_elses_is_touched(w):
    _, token = await _session(w)
    _, other = await _session(w, handle="bystander")
    w.upstream.script["slow"] = w.upstream.waiting
    mine, theirs = Request(token, "payments__slow"), Request(other, "payments__slow")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(w.send, theirs)
        tasks.start_soon(w.send, mine)
        with anyio.fail_after(30):
            while len(w.upstream.sent) < 2:
                await anyio.lowlevel.checkpoint()
        mine.running.cancel()
        with anyio.fail_after(30):
            while not await w.events("call.in_doubt"):
                pass
        w.upstream.release.set()
    assert text(theirs.delivered[0]) == "late"
    assert "it may have run" in text(mine.delivered[0])


@pytest.mark.promise("P7")
async def test_a_task_killed_from_outside_still_records_its_outcome(w):
    _, token = await _session(w)
    w.upstream.script["slow"] = w.upstream.waiting
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(w.call, token, "payments__slow")
        await w.upstream.started.wait()
        tasks.cancel_scope.cancel()
    assert [held[1] for held in await w.holds()] == ["in_doubt"]
    assert len(w.parts.calls) == 0


# the store fails


class Fragile:
    """A database connection whose COMMIT fails while `broken`."""

    def __init__(self):
        self.broken = False

    def connect(self, path):
        outer = self

        class Connection(sqlite3.Connection):
            def execute(self, sql, *rest):
                if outer.broken and sql == "COMMIT":
                    raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, *rest)

        made = connect_writer(path)
        made.close()
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)
        connection.execute("PRAGMA synchronous = FULL")
        return connection


@pytest.fixture
def fragile():
    return Fragile()


@pytest.mark.promise("P1", "P6")
async def test_without_a_record_nothing_is_sent(tmp_path, fragile):
    async with world(tmp_path, connect=fragile.connect) as w:
        _, token = await _session(w)
        fragile.broken = True
        assert code(await w.call(token)) == "store.unavailable"
        assert code(await w.call(token)) == "store.unavailable"
        assert w.upstream.sent == []
        fragile.broken = False
        assert await w.unrecorded.write()
        assert "isError" not in (await w.call(token))["result"]
        assert [held[1] for held in await w.holds()] == ["settled"]


@pytest.mark.promise("R12", "P7")
async def test_an_outcome_that_cannot_be_written_is_told_stops_dispatch_and_is_written_later(tmp_path, fragile):
    async with world(tmp_path, connect=fragile.connect) as w:
        _, token = await _session(w)

        async def then_break(call):
            w.upstream.send(call)
            fragile.broken = True
            return {"result": {"content": []}}

        w.upstream.script["charge"] = then_break
        answer = await w.call(token)
        assert "it ran; the outcome is not recorded; do not retry" in text(answer)
        assert w.broker._health.problem is not None
        assert code(await w.call(token, "payments__look")) == "store.unavailable"
        assert len(w.upstream.sent) == 1
        assert not await w.unrecorded.write()
        fragile.broken = False
        assert await w.unrecorded.write()
        assert w.broker._health.problem is None
        assert [held[1:] for held in await w.holds()] == [("settled", 50_000, 50_000)]


# after a crash, and at the deadline


@pytest.mark.promise("R10", "P7")
async def test_a_hold_that_a_crash_left_open_is_in_doubt_and_charged_at_its_own_deadline(tmp_path):
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:
        _, token = await _session(w, tier="roomy")
        for tool in ("charge", "look"):
            await w.call(token, f"payments__{tool}")
        await w.run(lambda tx: tx.execute("UPDATE holds SET state = 'held', charged_micros = NULL, ended_us = NULL"))
    async with world(tmp_path, clock=clock) as w:
        assert await doubt_left_holds(w.parts, 3600) == 2
        assert [event["kind"] for event in await w.events("call.in_doubt")] == ["call.in_doubt"] * 2
        assert w.upstream.sent == []
        clock.forward(3601)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(charge_due, w.parts)
            with anyio.fail_after(30):
                while len(await w.events("call.resolved")) < 2:
                    pass
            tasks.cancel_scope.cancel()
        assert {held[0]: held[1:] for held in await w.holds()} == {
            "payments__charge": ("settled", 50_000, 50_000),
            "payments__look": ("voided", 0, None),
        }


# agent credentials (R24)


@pytest.mark.promise("R24")
async def test_an_agent_credential_opens_a_session_continues_it_and_opens_another_when_idle_or_elsewhere(w):
    agent = await w.agent(tier="roomy")
    token = await w.run(lambda tx: w.parts.identity.issue_agent_credential(tx, agent))
    for key in ("", "", "mcp-1", ""):
        assert "isError" not in (await w.call(token, key=key))["result"]
    assert len(await w.events("session.opened")) == 2
    w.clock.forward(8 * 3600)
    await w.call(token)
    assert len(await w.events("session.opened")) == 3
    sessions = {event["session"] for event in await w.events("call.succeeded")}
    assert len(sessions) == 3


@pytest.mark.promise("R19", "R24")
async def test_a_revoked_agents_credential_says_so(w):
    agent = await w.agent(tier="roomy")
    token = await w.run(lambda tx: w.parts.identity.issue_agent_credential(tx, agent))
    await w.call(token)
    await w.run(lambda tx: w.parts.identity.revoke_agent(tx, agent))
    assert code(await w.call(token)) == "agent.revoked"
    who = await w.run(lambda tx: w.doorman.principal(tx, token, "", w.parts.policies.current, open_session=False))
    assert isinstance(who, Dead)


@pytest.mark.promise("R9")
async def test_a_clock_set_forward_stops_dispatch_until_it_is_put_right(tmp_path):
    class Stepping(SetClock):
        ahead_us = 0

        @property
        def stepped_us(self):
            return self.ahead_us

    clock = Stepping()
    async with world(tmp_path, clock=clock) as w:
        _, token = await _session(w)
        clock.ahead_us = 3_600_000_000
        assert code(await w.call(token)) == "clock.stepped"
        assert "3600 s" in w.broker._health.problem
        assert [event["reasons"][0]["code"] for event in await w.events("call.denied")] == ["clock.stepped"]
        assert w.upstream.sent == []
        clock.ahead_us = 0
        assert "isError" not in (await w.call(token))["result"]


@pytest.mark.promise("P4", "R24")
async def test_a_new_connection_is_no_way_round_a_halt_of_a_session_that_an_agent_credential_opened(w):
    agent = await w.agent()
    token = await w.run(lambda tx: w.parts.identity.issue_agent_credential(tx, agent))
    for _ in range(11):
        await w.call(token, key="one")
    [halt] = await w.halts()
    sent = len(w.upstream.sent)
    assert "session.halted" in (await w.call(token, key="two"))["result"]["content"][0]["text"]
    w.clock.forward(3600)  # longer than it may be idle
    assert "session.halted" in (await w.call(token, key=""))["result"]["content"][0]["text"]
    assert len(w.upstream.sent) == sent
    await w.run(lambda tx: w.parts.halts.lift(tx, halt, by="anna", reason="looked"))
    assert "isError" not in (await w.call(token, key="two"))["result"]


@pytest.mark.promise("R16", "R24")
@pytest.mark.parametrize("scope", ["everything", "agent"])
async def test_a_halt_also_stops_the_sessions_that_an_agent_credential_would_open(w, scope):
    agent = await w.agent(tier="roomy")
    token = await w.run(lambda tx: w.parts.identity.issue_agent_credential(tx, agent))
    subject = "everything" if scope == "everything" else agent.id
    await w.run(lambda tx: w.parts.halts.set(tx, scope, subject, code="operator.halt", text="stop", by="operator:anna"))
    assert code(await w.call(token)) == f"{scope}.halted"
    assert await w.events("session.opened") == []
    assert len(await w.events("call.denied")) == 1


@pytest.mark.promise("R26")
async def test_without_a_readable_policy_every_call_is_refused_and_recorded(tmp_path):
    async with world(tmp_path, policy="version: '1'\ntires: {}\n") as w:
        _, token = await _session(w)
        assert code(await w.call(token)) == "policy.error"
        assert len(await w.events("call.denied")) == 1
        assert w.broker._health.problem is not None
