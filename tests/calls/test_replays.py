"""A retry with its idempotency key gets the first answer again and is never sent twice, whatever became of the first (R13)."""

from __future__ import annotations

import itertools
import sqlite3

import anyio
import pytest

from haltline.calls.recovery import charge_due, doubt_left_holds
from haltline.calls.refusals import META_KEY
from haltline.calls.replays import ANSWER_MAX_BYTES, KEPT_S
from haltline.policy.model import Reason
from haltline.upstreams.model import NotSent, Peer
from haltline.wire.eras import IDEMPOTENCY_KEY
from support.scripted import ScriptedUpstream
from support.world import Request, SetClock, world

ASKED = {
    "resultType": "input_required",
    "inputRequests": {"who": {"method": "elicitation/create"}},
    "requestState": "x",
}


@pytest.fixture
async def w(tmp_path):
    async with world(tmp_path) as made:
        paid = itertools.count(1)

        async def counted(call):
            made.upstream.send(call)
            return {"result": {"content": [{"type": "text", "text": f"paid {next(paid)}"}]}}

        made.upstream.script["charge"] = counted
        yield made


def keyed(token, key="k-1", arguments=None, tool="payments__charge", **params):
    request = Request(token, tool, {"amount": 3} if arguments is None else arguments)
    request.params |= {"_meta": {IDEMPOTENCY_KEY: key}, **params}
    return request


async def said(w, request):
    returned = await w.send(request)
    return request.delivered[0] if request.delivered else returned


def text(answer):
    return answer["result"]["content"][0]["text"]


def code(answer):
    data = answer.get("error", {}).get("data") or answer["result"]["_meta"]
    return data[META_KEY]["reasons"][0]["code"]


async def opened(w, tier="experimental", handle="booking-7"):
    return (await w.session(await w.agent(handle, tier)))[1]


@pytest.mark.promise("R13", "P2")
async def test_a_retry_gets_the_first_answer_again_unsent_uncharged_and_recorded(w):
    token = await opened(w)
    first = await said(w, keyed(token))
    again = await said(w, keyed(token))
    assert text(first) == "paid 1"
    assert again == first
    assert len(w.upstream.sent) == 1
    assert [held[1:] for held in await w.holds()] == [("settled", 50_000, 50_000)]
    events = await w.events("call.")
    assert [event["kind"] for event in events] == ["call.allowed", "call.succeeded", "call.replayed"]
    assert events[2]["replay_of"] == events[0]["call"]
    assert events[2]["idempotency"] == events[0]["idempotency"]
    assert len(w.parts.calls) == 0


@pytest.mark.promise("R13")
async def test_without_a_key_or_with_another_one_it_is_a_new_call(w):
    token = await opened(w)
    answers = [text(await said(w, keyed(token, key))) for key in ("a", "b")]
    answers += [text(await w.call(token, arguments={"amount": 3})) for _ in range(2)]
    assert answers == ["paid 1", "paid 2", "paid 3", "paid 4"]


@pytest.mark.promise("R13", "P5")
async def test_a_key_belongs_to_its_agent_and_tool_and_holds_in_all_sessions_of_the_agent(w):
    agent = await w.agent("booking-7", "experimental")
    tokens = [(await w.session(agent))[1] for _ in range(2)]
    other = await opened(w, handle="other")
    assert text(await said(w, keyed(tokens[0]))) == "paid 1"
    assert text(await said(w, keyed(tokens[1]))) == "paid 1"
    assert text(await said(w, keyed(other))) == "paid 2"
    assert text(await said(w, keyed(tokens[0], tool="payments__refund"))) == "done"


@pytest.mark.promise("R13")
@pytest.mark.parametrize("arguments", [{"amount": 4}, {}, {"amount": 3, "more": None}, {"amount": 2**70}])
async def test_other_arguments_are_refused_and_not_sent(w, arguments):
    token = await opened(w)
    await said(w, keyed(token))
    answer = await said(w, keyed(token, arguments=arguments))
    assert code(answer) == "args.idempotency_mismatch"
    assert "a new call needs a new key" in text(answer)
    assert len(w.upstream.sent) == 1
    assert (await w.events("call."))[-1]["kind"] == "call.denied"


@pytest.mark.promise("R13", "P6")
@pytest.mark.parametrize("key", ["", "x" * 256, 7, None, ["a"], {}, True, "a\nb"])
async def test_a_key_that_is_none_is_a_clear_refusal(w, key):
    answer = await said(w, keyed(await opened(w), key))
    assert code(answer) == "args.idempotency_key"
    assert "1 to 255" in text(answer)
    assert w.upstream.sent == []


@pytest.mark.promise("R13", "P7")
async def test_a_key_that_still_runs_is_refused_and_may_be_asked_later(w):
    token = await opened(w)
    w.upstream.script["slow"] = w.upstream.waiting
    first = keyed(token, tool="payments__slow")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(w.send, first)
        await w.upstream.started.wait()
        answer = await said(w, keyed(token, tool="payments__slow"))
        w.upstream.release.set()
    assert code(answer) == "call.running"
    assert answer["result"]["_meta"][META_KEY]["reasons"][0]["retryable"] is True
    assert text(await said(w, keyed(token, tool="payments__slow"))) == text(first.delivered[0]) == "late"
    assert len(w.upstream.sent) == 1


@pytest.mark.promise("R13", "R10", "R11")
@pytest.mark.parametrize(("script", "then"), [("unknown", "call.in_doubt"), ("unsent", None)])
async def test_in_doubt_is_never_resent_and_what_never_left_frees_its_key(w, script, then):
    token = await opened(w)
    done = w.upstream.script.pop("charge")
    w.upstream.script["charge"] = getattr(w.upstream, script)
    await said(w, keyed(token))
    w.upstream.script["charge"] = done
    sent = len(w.upstream.sent)
    answer = await said(w, keyed(token))
    if then:
        assert code(answer) == then
        assert text(answer).startswith("Unknown [call.in_doubt]")
        assert len(w.upstream.sent) == sent
    else:
        assert text(answer) == "paid 1"
        assert await said(w, keyed(token)) == answer
        assert [held[1] for held in await w.holds()] == ["voided", "settled"]


@pytest.mark.promise("R13", "R10")
async def test_an_operators_word_about_a_call_in_doubt_counts_for_its_key(w):
    token = await opened(w)
    done, w.upstream.script["charge"] = w.upstream.script["charge"], w.upstream.unknown
    await said(w, keyed(token, "settled"))
    await said(w, keyed(token, "voided"))
    w.upstream.script["charge"] = done
    calls = [event["call"] for event in await w.events("call.in_doubt")]
    await w.run(lambda tx: w.parts.ledger.settle(tx, calls[0], 50_000, "the books say so"))
    await w.run(lambda tx: w.parts.ledger.void(tx, calls[1], "it did not happen"))
    gone = await said(w, keyed(token, "settled"))
    assert code(gone) == "call.result_gone"
    assert "ran and 0.05 USD was charged, but its result is gone; do not retry" in text(gone)
    assert text(await said(w, keyed(token, "voided"))) == "paid 1"


@pytest.mark.promise("R13")
async def test_a_call_that_was_refused_does_not_use_its_key_up(w):
    token = await opened(w)
    await w.run(lambda tx: w.parts.halts.set(tx, "everything", "everything", code="operator.halt", text="x", by="anna"))
    assert code(await said(w, keyed(token))) == "everything.halted"
    halt = (await w.halts())[0]
    await w.run(lambda tx: w.parts.halts.lift(tx, halt, by="anna", reason="fine"))
    assert text(await said(w, keyed(token, arguments={"amount": 99}))) == "paid 1"


@pytest.mark.promise("R13", "P3")
async def test_a_stop_comes_before_a_replay_and_a_spent_cap_does_not(w):
    agent = await w.agent("booking-7", "experimental")
    session, token = await w.session(agent)
    first = await said(w, keyed(token))
    for _ in range(9):
        await w.call(token)
    assert code(await w.call(token)) == "budget.task_exceeded"
    assert code(await said(w, keyed(token))) == "session.halted"
    halt = (await w.halts())[0]
    await w.run(lambda tx: w.parts.halts.lift(tx, halt, by="anna", reason="fine"))
    assert await said(w, keyed(token)) == first
    assert await w.halts() == []
    await w.run(lambda tx: w.parts.identity.revoke_session(tx, session))
    assert code(await said(w, keyed(token))) == "session.revoked"


@pytest.mark.promise("R13", "P3", "R17")
async def test_what_was_withheld_is_not_kept(w):
    session, token = await w.session(await w.agent())
    done = w.upstream.script["charge"]

    async def then_stopped(call):
        answer = await done(call)
        w.parts.calls.stop(session_ids=[session], reason=Reason("session.halted", "halted by anna"))
        return answer

    w.upstream.script["charge"] = then_stopped
    assert code(await said(w, keyed(token))) == "session.halted"
    assert code(await said(w, keyed(token))) in {"call.in_doubt", "call.result_gone"}
    assert len(w.upstream.sent) == 1


@pytest.mark.promise("R13")
@pytest.mark.parametrize("what", ["too large", "a credential"])
async def test_what_is_not_kept_ran_and_was_charged(w, what):
    token = await opened(w)
    said_once = "x" * ANSWER_MAX_BYTES if what == "too large" else token

    async def answers(call):
        w.upstream.send(call)
        return {"result": {"content": [{"type": "text", "text": said_once}]}}

    w.upstream.script["charge"] = answers
    assert text(await said(w, keyed(token))) == said_once
    assert code(await said(w, keyed(token))) == "call.result_gone"
    assert len(w.upstream.sent) == 1


@pytest.mark.promise("R13", "P9")
async def test_an_answer_is_kept_sealed_for_a_day_and_then_gone_but_its_key_is_not_free(tmp_path):
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:
        agent = await w.agent("a", "roomy")
        token = (await w.session(agent, lasts_s=10 * KEPT_S))[1]

        async def answers(call):
            w.upstream.send(call)
            return {"result": {"content": [{"type": "text", "text": "a private number"}]}}

        w.upstream.script["charge"] = answers
        first = await said(w, keyed(token, "a secret key", {"amount": 3}))
        rows = await w.parts.reader.rows("SELECT mark, digest, answer FROM replays")
        stored = b"".join(b"".join(row) for row in rows)
        assert b"private" not in stored
        assert b"secret" not in stored
        clock.forward(KEPT_S - 1)
        assert await said(w, keyed(token, "a secret key")) == first
        clock.forward(2)
        assert code(await said(w, keyed(token, "a secret key"))) == "call.result_gone"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(charge_due, w.parts)
            with anyio.fail_after(20):
                while (await w.parts.reader.row("SELECT count(answer) FROM replays"))[0]:
                    pass
            tasks.cancel_scope.cancel()
        assert len(w.upstream.sent) == 1


@pytest.mark.promise("R13", "R10")
async def test_a_key_outlives_a_restart_and_is_in_doubt_after_a_crash(tmp_path):
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:
        token = await opened(w)
        first = await said(w, keyed(token, "ended"))
        await said(w, keyed(token, "running"))
    with sqlite3.connect(tmp_path / "haltline.db") as connection:
        connection.execute("UPDATE holds SET state = 'held', charged_micros = NULL, ended_us = NULL WHERE rowid = 2")
        connection.execute("UPDATE replays SET answer = NULL, kept_until = NULL WHERE rowid = 2")
    connection.close()
    async with world(tmp_path, clock=clock) as w:
        assert await doubt_left_holds(w.parts, 3600) == 1
        assert await said(w, keyed(token, "ended")) == first
        assert code(await said(w, keyed(token, "running"))) == "call.in_doubt"
        assert w.upstream.sent == []


@pytest.mark.promise("R13", "P1")
async def test_of_many_at_once_with_one_key_one_is_sent(w):
    token = await opened(w)
    answers = []

    async def retry():
        answers.append(await said(w, keyed(token)))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(retry)
    assert len(w.upstream.sent) == 1
    assert all(text(one) == "paid 1" or code(one) == "call.running" for one in answers)
    assert len(await w.holds()) == 1


@pytest.mark.promise("R13")
async def test_an_answer_can_be_had_again_while_its_upstream_is_away(tmp_path):
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:
        token = await opened(w)
        first = await said(w, keyed(token))
    async with world(tmp_path, clock=clock, upstreams=[Away()]) as w:
        assert code(await said(w, keyed(token, "new"))) == "upstream.unavailable"
        assert await said(w, keyed(token)) == first
        assert code(await said(w, keyed(token, tool="payments__pay"))) == "upstream.unavailable"


class Away(ScriptedUpstream):
    async def list_tools(self):
        raise NotSent("upstream.unreachable", "payments cannot be reached")


@pytest.mark.promise("R13", "R25")
async def test_a_prompt_can_be_had_again_too_and_the_key_counts_nowhere_else(w):
    token = await opened(w, "roomy")
    prompt, other = keyed(token), keyed(token)
    prompt.method = other.method = "prompts/get"
    assert await said(w, prompt) == await said(w, other)
    assert len(w.upstream.sent) == 1
    for _ in range(2):
        completion = keyed(token)
        completion.method = "completion/complete"
        await said(w, completion)
    assert len(w.upstream.sent) == 3


# rounds of input


@pytest.fixture
async def asking(w):
    async def asks_first(call):
        w.upstream.send(call)
        if "inputResponses" not in call.params:
            return {"result": ASKED}
        return {"result": {"content": [{"type": "text", "text": "paid"}], "resultType": "complete"}}

    w.upstream.script["charge"] = asks_first
    return w


@pytest.mark.promise("R13", "R14")
async def test_a_question_whose_reply_was_lost_is_asked_again_and_the_call_goes_on_once(asking):
    token = await opened(asking)
    question = await said(asking, keyed(token))
    assert await said(asking, keyed(token)) == question
    state = question["result"]["requestState"]
    more = {"requestState": state, "inputResponses": {"who": {"action": "accept"}}}
    answer = await said(asking, keyed(token, **more))
    assert text(answer) == "paid"
    assert await said(asking, keyed(token, **more)) == answer
    assert await said(asking, keyed(token)) == answer
    assert len(asking.upstream.sent) == 2
    assert [held[1:] for held in await asking.holds()] == [("settled", 50_000, 50_000)]


@pytest.mark.promise("R13", "R14")
async def test_a_key_that_comes_with_a_later_round_counts_from_there(asking):
    token = await opened(asking)
    question = await asking.call(token, arguments={"amount": 3})
    more = {"requestState": question["result"]["requestState"], "inputResponses": {"who": {"action": "accept"}}}
    answer = await said(asking, keyed(token, **more))
    assert await said(asking, keyed(token, **more)) == answer
    used = await said(asking, keyed(token, arguments={"amount": 4}))
    assert code(used) == "args.idempotency_mismatch"
    assert len(asking.upstream.sent) == 2


@pytest.mark.promise("R13", "R14")
async def test_a_question_is_no_answer_once_its_call_has_ended(asking):
    token = await opened(asking)
    question = await said(asking, keyed(token))
    request = Request(token, "payments__charge", {"amount": 3})
    request.params |= {"requestState": question["result"]["requestState"], "inputResponses": {}}
    assert text(await said(asking, request)) == "paid"
    assert code(await said(asking, keyed(token))) == "call.result_gone"


@pytest.mark.promise("R13", "R14")
async def test_a_bad_key_does_not_take_a_round(asking):
    token = await opened(asking)
    question = await said(asking, keyed(token))
    more = {"requestState": question["result"]["requestState"], "inputResponses": {}}
    assert code(await said(asking, keyed(token, "", **more))) == "args.idempotency_key"
    assert text(await said(asking, keyed(token, **more))) == "paid"


async def test_a_client_of_the_handshake_era_has_keys_too(w):
    token = await opened(w)
    requests = [keyed(token, requestState="not ours") for _ in range(2)]
    for request in requests:
        request.peer = Peer(handshake=True)
    assert await said(w, requests[0]) == await said(w, requests[1])
    assert len(w.upstream.sent) == 1


@pytest.mark.parametrize("with_key", [False, True])
async def test_a_call_of_an_agent_that_is_known_reads_no_sums_anew(tmp_path, with_key):
    asked: list[str] = []
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:
        token = await opened(w)
        for number in range(4):
            clock.forward(1)
            request = Request(token, "payments__charge", {"amount": 3 + number})
            await said(w, keyed(token, key=f"k-{number}") if with_key else request)
            w.parts.writer._connection.set_trace_callback(asked.append)  # from the second on it is known
    assert sum(one.startswith("COMMIT") for one in asked) >= 6
    assert [one for one in asked if "coalesce(sum(charged_micros), 0)" in one or "FROM signals" in one] == []
