"""Rounds of elicitation are one call: one hold, one price, one id; the state between them is sealed and used once (R14)."""

from __future__ import annotations

import anyio
import pytest

from haltline.calls.recovery import charge_due, doubt_left_holds
from haltline.calls.refusals import META_KEY
from haltline.calls.rounds import ROUND_S, BadState, Round, Rounds
from support.world import POLICY, Request, SetClock, world

ASKED = {
    "resultType": "input_required",
    "inputRequests": {"who": {"method": "elicitation/create", "params": {"message": "who?"}}},
    "requestState": "the upstream's own",
}


@pytest.fixture
async def w(tmp_path):
    async with world(tmp_path) as made:

        async def asks_first(call):
            made.upstream.send(call)
            if "inputResponses" not in call.params:
                return {"result": ASKED}
            return {"result": {"content": [{"type": "text", "text": "paid"}], "resultType": "complete"}}

        made.upstream.script["charge"] = asks_first
        yield made


def again(token, state, arguments=None, tool="payments__charge"):
    request = Request(token, tool, arguments or {"amount": 3})
    request.params |= {"requestState": state, "inputResponses": {"who": {"action": "accept"}}}
    return request


async def first(w, tier="experimental", handle="booking-7"):
    session, token = await w.session(await w.agent(handle, tier))
    answer = await w.call(token, arguments={"amount": 3})
    return session, token, answer["result"]["requestState"]


async def go_on(w, request):
    returned = await w.send(request)
    return request.delivered[0] if request.delivered else returned


def refused(answer):
    data = answer.get("error", {}).get("data") or answer["result"]["_meta"]
    return data[META_KEY]["reasons"][0]["code"]


@pytest.mark.promise("R14")
async def test_two_rounds_are_one_call_with_one_price(w):
    _, token, state = await first(w)
    assert "the upstream's own" not in state
    assert [held[1:] for held in await w.holds()] == [("held", 50_000, None)]
    answer = await go_on(w, again(token, state))
    assert answer["result"]["content"][0]["text"] == "paid"
    assert [held[1:] for held in await w.holds()] == [("settled", 50_000, 50_000)]
    assert [sent.get("requestState") for sent in w.upstream.sent] == [None, "the upstream's own"]
    events = await w.events("call.")
    assert [event["kind"] for event in events] == [
        "call.allowed", "call.input_required", "call.continued", "call.succeeded",
    ]  # fmt: skip
    assert len({event["call"] for event in events}) == 1
    assert len(w.parts.calls) == 0


@pytest.mark.promise("R14")
async def test_a_state_is_used_once(w):
    _, token, state = await first(w)
    await go_on(w, again(token, state))
    assert refused(await go_on(w, again(token, state))) == "args.request_state"
    assert len(w.upstream.sent) == 2


@pytest.mark.promise("R14", "P5")
async def test_a_state_belongs_to_its_agent_its_session_its_tool_and_its_arguments(w):
    _, token, state = await first(w)
    _, other = await w.session(await w.agent("other", "experimental"))
    sibling = (await w.session(await w.run(lambda tx: w.parts.identity.agent(tx, "booking-7"))))[1]
    stolen = [
        again(other, state),
        again(sibling, state),
        again(token, state, {"amount": 4}),
        again(token, state, tool="payments__refund"),
        again(token, state[:-4] + "AAAA"),
        again(token, "made up"),
        again(token, ""),
    ]
    for request in stolen:
        assert refused(await go_on(w, request)) == "args.request_state"
    assert len(w.upstream.sent) == 1
    assert "content" in (await go_on(w, again(token, state)))["result"]


@pytest.mark.promise("R14", "P2")
async def test_a_free_round_is_not_continued_as_a_priced_call(w):
    _, token = await w.session(await w.agent("x", "roomy"))
    prompt = Request(token, "payments__charge", {"amount": 3})
    prompt.method = "prompts/get"
    state = (await go_on(w, prompt))["result"]["requestState"]
    assert refused(await go_on(w, again(token, state))) == "args.request_state"
    assert len(w.upstream.sent) == 1


@pytest.mark.promise("R14", "P3")
async def test_each_round_asks_again_whether_its_agent_is_stopped(w):
    session, token, state = await first(w)
    await w.run(
        lambda tx: w.parts.halts.set(tx, "session", session, code="operator.halt", text="look", by="operator:anna")
    )
    assert refused(await go_on(w, again(token, state))) == "session.halted"
    assert len(w.upstream.sent) == 1
    halt = (await w.halts())[0]
    await w.run(lambda tx: w.parts.halts.lift(tx, halt, by="operator:anna", reason="fine"))
    assert "content" in (await go_on(w, again(token, state)))["result"]


@pytest.mark.promise("R14", "R3")
async def test_a_spent_cap_does_not_stop_what_was_paid_for_before(w):
    _, token, state = await first(w)
    for _ in range(9):
        await w.call(token, "payments__refund")
    assert refused(await w.call(token, "payments__refund")) == "budget.cap_held"
    assert "content" in (await go_on(w, again(token, state)))["result"]


@pytest.mark.promise("R14", "R10")
async def test_an_abandoned_round_ends_in_doubt_and_a_late_one_is_refused(tmp_path):
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:

        async def asks(call):
            w.upstream.send(call)
            return {"result": ASKED}

        w.upstream.script["charge"] = asks
        _, token, state = await first(w)
        clock.forward(ROUND_S + 1)
        assert refused(await go_on(w, again(token, state))) == "args.request_state"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(charge_due, w.parts)
            with anyio.fail_after(30):
                while not await w.events("call.in_doubt"):
                    pass
            tasks.cancel_scope.cancel()
        assert [held[1] for held in await w.holds()] == ["in_doubt"]


@pytest.mark.promise("R14")
async def test_a_round_outlives_a_restart(tmp_path):
    clock = SetClock()
    async with world(tmp_path, clock=clock) as w:
        w.upstream.script["charge"] = lambda call: _asked(w, call)
        _, token, state = await first(w)
    async with world(tmp_path, clock=clock) as w:
        assert await doubt_left_holds(w.parts, 3600) == 0
        assert "content" in (await go_on(w, again(token, state)))["result"]


async def _asked(w, call):
    w.upstream.send(call)
    return {"result": ASKED}


def test_a_seal_opens_for_its_own_key_alone():
    rounds = Rounds(bytes(32))
    one = Round("call_1", "n", None)
    assert rounds.open(rounds.seal(one)) == one
    assert rounds.seal(one) != rounds.seal(one)
    with pytest.raises(BadState):
        Rounds(bytes([1]) * 32).open(rounds.seal(one))


@pytest.mark.promise("R14")
@pytest.mark.parametrize("state", ["", "a", "ab"], ids=["no spare bits", "two", "four"])
def test_a_seal_is_valid_in_one_spelling_alone(state):
    rounds = Rounds(bytes(32))
    sealed = rounds.seal(Round("call_1", "n", state))
    body = sealed.rstrip("=")
    for number, letter in enumerate(body):
        for other in "Ag":
            if other != letter:
                with pytest.raises(BadState):
                    rounds.open(sealed[:number] + other + sealed[number + 1 :])
    for spelled in (body + "!" + sealed[len(body) :], "\n" + sealed, sealed + "=", body + "A", *_last_changed(sealed)):
        with pytest.raises(BadState):
            rounds.open(spelled)


def _last_changed(sealed):
    """Every other last letter: some differ in bits alone that a decoder passes over."""
    body = sealed.rstrip("=")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return [body[:-1] + one + sealed[len(body) :] for one in letters if one != body[-1]]


@pytest.mark.promise("R26")
@pytest.mark.parametrize(("known", "charged"), [(True, 100_000), (False, 400_000)])
async def test_a_call_that_goes_on_settles_under_the_policy_that_admitted_it(tmp_path, known, charged):
    priced = POLICY.replace(
        'payments__charge: {price: "0.05"}',
        'payments__charge: {price: {result: structuredContent.cost, at_most: "0.40"}}',
    )
    async with world(tmp_path, policy=priced) as w:

        async def asks_first(call):
            w.upstream.send(call)
            if "inputResponses" not in call.params:
                return {"result": ASKED}
            return {"result": {"content": [], "structuredContent": {"cost": "0.10"}, "resultType": "complete"}}

        w.upstream.script["charge"] = asks_first
        _, token, state = await first(w)
        (w.parts.policies.folder / "policy.yaml").write_text(POLICY)
        assert w.parts.policies.reload()
        if not known:
            w.parts.policies._recent.clear()
        await go_on(w, again(token, state))
        assert [held[1:] for held in await w.holds()] == [("settled", 400_000, charged)]
        before, after = (await w.events("call.input"))[0], (await w.events("call.succeeded"))[0]
        assert before["policy"] == after["policy"] != w.parts.policies.current.version
