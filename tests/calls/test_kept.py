"""A client of 2026-07-28 and an upstream that asks in the middle of a call: one call, kept open between the rounds (R14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from haltline.calls import kept
from haltline.policy.model import Reason
from haltline.upstreams.model import NOBODY, UpstreamCall
from support.scripted import ScriptedUpstream, text_result
from support.world import POLICY, World, world
from support.world import Request as Plain

QUESTION = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "elicitation/create",
    "params": {"message": "who?", "requestedSchema": {}},
}
CAN_ELICIT = replace(NOBODY, capabilities={"elicitation": {}})


class Asking(ScriptedUpstream):
    """`charge` asks its client `questions`, and answers with what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[dict[str, Any]] = [QUESTION]
        self.heard: list[dict[str, Any]] = []
        self.cancelled = anyio.Event()
        self.script["charge"] = self.ask_first

    def asks_in_mid_call(self) -> bool:
        return True

    async def ask_first(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        try:
            for question in self.questions:
                assert call.peer.ask is not None
                call.on_notification(
                    {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
                )
                self.heard.append(await call.peer.ask(question))
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return text_result("paid")


@pytest.fixture
async def w(tmp_path):
    async with world(tmp_path, upstreams=[Asking()]) as made:
        yield made


def request(token: str, state: str | None = None, brought: Any = None, progress: int | None = None) -> Plain:
    made = Plain(token, "payments__charge", {"amount": 3})
    made.peer = CAN_ELICIT
    if state is not None:
        made.params |= {"requestState": state, "inputResponses": brought}
    if progress is not None:
        made.params["_meta"] = {"progressToken": progress}
    return made


async def ask(w: World, made: Plain) -> dict[str, Any]:
    with anyio.fail_after(30):
        returned = await w.send(made)
    return made.delivered[0] if made.delivered else returned


async def first(w: World) -> tuple[str, str, dict[str, Any]]:
    session, token = await w.session(await w.agent())
    answer = await ask(w, request(token))
    return session, token, answer["result"]


def accepted(result: dict[str, Any]) -> dict[str, Any]:
    return {key: {"action": "accept", "content": {"name": "Ann"}} for key in result["inputRequests"]}


def code(answer: dict[str, Any]) -> str:
    return answer["result"]["_meta"]["io.haltline/refusal"]["reasons"][0]["code"]


@pytest.mark.promise("R14", "P11")
async def test_what_an_upstream_asks_in_mid_call_comes_as_a_round_and_the_answer_goes_back_into_the_same_call(w):
    _, token, asked = await first(w)
    assert asked["resultType"] == "input_required"
    assert list(asked["inputRequests"].values()) == [{"method": QUESTION["method"], "params": QUESTION["params"]}]
    assert [held[1:] for held in await w.holds()] == [("held", 50_000, None)]
    answer = await ask(w, request(token, asked["requestState"], accepted(asked)))
    assert answer["result"]["content"][0]["text"] == "paid"
    assert w.upstream.heard == [{"result": {"action": "accept", "content": {"name": "Ann"}}}]
    assert len(w.upstream.sent) == 1, "it was sent once"
    assert [held[1:] for held in await w.holds()] == [("settled", 50_000, 50_000)]
    events = await w.events("call.")
    assert [event["kind"] for event in events] == [
        "call.allowed", "call.input_required", "call.continued", "call.succeeded",
    ]  # fmt: skip
    assert len({event["call"] for event in events}) == 1
    assert (len(w.parts.calls), len(w.parts.calls.kept)) == (0, 0)


@pytest.mark.promise("R14")
async def test_it_may_ask_again_and_what_was_left_out_is_asked_for_again(w):
    w.upstream.questions = [QUESTION, QUESTION]
    _, token, asked = await first(w)
    again = (await ask(w, request(token, asked["requestState"], {"something else": {}})))["result"]
    assert again["inputRequests"] == asked["inputRequests"]
    later = (await ask(w, request(token, again["requestState"], accepted(again))))["result"]
    assert later["inputRequests"].keys() != asked["inputRequests"].keys()
    answer = await ask(w, request(token, later["requestState"], accepted(later)))
    assert answer["result"]["content"][0]["text"] == "paid"
    assert len(w.upstream.sent) == 1


@pytest.mark.promise("P11")
async def test_progress_is_told_under_the_token_of_the_request_that_is_worked_on(w):
    w.upstream.questions = [QUESTION, QUESTION]
    _, token = await w.session(await w.agent())
    one = request(token, progress=5)
    asked = (await ask(w, one))["result"]
    two = request(token, asked["requestState"], accepted(asked), progress=6)
    asked = (await ask(w, two))["result"]
    three = request(token, asked["requestState"], accepted(asked))
    await ask(w, three)
    told = [[one["params"]["progressToken"] for one in made.notices] for made in (one, two, three)]
    assert told == [[5], [6], []]


@pytest.mark.promise("P11")
@pytest.mark.parametrize(
    ("question", "capabilities", "wanted"),
    [
        ({"method": "sampling/createMessage", "params": {}}, {"elicitation": {}}, -32601),
        ({"method": "made/up", "params": {}}, {"elicitation": {}}, -32601),
        ({"method": "elicitation/create", "params": {"mode": "url"}}, {"elicitation": {}}, -32602),
        ({"method": "elicitation/create", "params": {}}, {"elicitation": {"url": {}}}, -32602),
    ],
)
async def test_an_upstream_is_told_what_the_client_does_not_offer(w, question, capabilities, wanted):
    w.upstream.questions = [question]
    _, token = await w.session(await w.agent())
    made = request(token)
    made.peer = replace(NOBODY, capabilities=capabilities)
    assert (await ask(w, made))["result"]["content"][0]["text"] == "paid"
    assert w.upstream.heard[0]["error"]["code"] == wanted


@pytest.mark.promise("P11")
@pytest.mark.parametrize(
    ("question", "capabilities"),
    [
        ({"method": "sampling/createMessage", "params": {"maxTokens": 5}}, {"sampling": {}}),
        ({"method": "roots/list"}, {"roots": {}}),
        ({"method": "elicitation/create", "params": {"mode": "url"}}, {"elicitation": {"url": {}}}),
        ({"method": "elicitation/create", "params": {"mode": "form"}}, {"elicitation": {"form": {}, "url": {}}}),
    ],
)
async def test_sampling_roots_and_each_kind_of_elicitation_are_brought_to_who_offers_them(w, question, capabilities):
    w.upstream.questions = [question]
    _, token = await w.session(await w.agent())
    made = request(token)
    made.peer = replace(NOBODY, capabilities=capabilities)
    assert list((await ask(w, made))["result"]["inputRequests"].values()) == [question]


@pytest.mark.promise("R17", "P3")
async def test_a_stop_between_two_rounds_ends_the_call_that_waits_and_it_is_in_doubt(w):
    session, token, asked = await first(w)
    w.parts.calls.stop(reason=Reason("session.revoked", "stop"), session_ids=[session])
    with anyio.fail_after(30):
        await w.upstream.cancelled.wait()
    answer = await ask(w, request(token, asked["requestState"], accepted(asked)))
    assert code(answer) == "upstream.lost"
    assert (w.upstream.heard, len(w.upstream.sent)) == ([], 1), "nothing is sent a second time"
    assert [held[1] for held in await w.holds()] == ["in_doubt"]


@pytest.mark.promise("R17", "P3")
async def test_a_stop_in_a_later_round_cancels_it_and_withholds_what_comes(w):
    asking, entered = w.upstream.ask_first, anyio.Event()

    async def asks_then_works(call: UpstreamCall) -> dict[str, Any]:
        await asking(call)
        return await _later(call, entered.set)

    w.upstream.script["charge"] = asks_then_works
    session, token, asked = await first(w)
    made, answers = request(token, asked["requestState"], accepted(asked)), []

    async def second() -> None:
        answers.append(await ask(w, made))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(second)
        with anyio.fail_after(30):
            await entered.wait()
        w.parts.calls.stop(reason=Reason("session.revoked", "stop"), session_ids=[session])
    assert (code(answers[0]), made.delivered) == ("session.revoked", [])
    assert [held[1] for held in await w.holds()] == ["in_doubt"]
    assert len(w.parts.calls.kept) == 0


@pytest.mark.promise("R14", "R10")
async def test_a_call_that_nobody_comes_back_for_is_ended_at_its_upstream(w):
    w.parts.calls.kept.round_s = 0.01
    await first(w)
    with anyio.fail_after(30):
        await w.upstream.cancelled.wait()
    assert len(w.parts.calls.kept) == 0


@pytest.mark.promise("R14", "R10")
async def test_after_a_restart_a_call_that_waited_is_in_doubt_and_never_sent_again(tmp_path):
    async with world(tmp_path, upstreams=[Asking()]) as w:
        _, token, asked = await first(w)
    async with world(tmp_path, upstreams=[Asking()]) as w:
        answer = await ask(w, request(token, asked["requestState"], accepted(asked)))
        assert code(answer) == "upstream.lost"
        assert w.upstream.sent == []
        assert [held[1] for held in await w.holds()] == ["in_doubt"]


@pytest.mark.promise("P5")
async def test_one_agent_keeps_so_many_calls_and_no_more(w):
    _, token = await w.session(await w.agent("many", "roomy"))
    for _ in range(kept.KEPT_PER_AGENT_MAX):
        assert (await ask(w, request(token)))["result"]["resultType"] == "input_required"
    assert "content" in (await ask(w, request(token)))["result"]
    assert "too many calls" in w.upstream.heard[-1]["error"]["message"]
    _, other = await w.session(await w.agent("other", "roomy"))
    assert (await ask(w, request(other)))["result"]["resultType"] == "input_required"


@pytest.mark.promise("P5")
async def test_one_call_asks_so_much_at_once_and_no_more(w):
    async def asks_much(call: UpstreamCall) -> dict[str, Any]:
        w.upstream.send(call)

        async def one() -> None:
            assert call.peer.ask is not None
            w.upstream.heard.append(await call.peer.ask(QUESTION))

        async with anyio.create_task_group() as tasks:
            for _ in range(kept.QUESTIONS_MAX + 1):
                tasks.start_soon(one)
        return text_result("paid")

    w.upstream.script["charge"] = asks_much
    _, token, asked = await first(w)
    while "content" not in asked:
        asked = (await ask(w, request(token, asked["requestState"], accepted(asked))))["result"]
    refused = [one for one in w.upstream.heard if "error" in one]
    assert (len(w.upstream.heard), len(refused)) == (kept.QUESTIONS_MAX + 1, 1)


async def _later(call: UpstreamCall, then: Callable[[], None]) -> dict[str, Any]:
    then()
    await anyio.sleep_forever()
    raise AssertionError


@pytest.mark.promise("R11", "R10")
@pytest.mark.parametrize(("sent", "state"), [(True, "in_doubt"), (False, "voided")])
@pytest.mark.parametrize("ends", ["cancelled", "overdue"])
async def test_a_call_that_ends_before_it_asks_is_in_doubt_if_anything_left(tmp_path, ends, sent, state):
    policy = POLICY.replace('payments__charge: {price: "0.05"}', 'payments__charge: {price: "0.05", timeout_s: 0.3}')
    async with world(tmp_path, upstreams=[Asking()], policy=policy if ends == "overdue" else POLICY) as w:
        begun = anyio.Event()

        def begin(call: UpstreamCall) -> None:
            if sent:
                w.upstream.send(call)
            begun.set()

        w.upstream.script["charge"] = lambda call: _later(call, lambda: begin(call))
        _, token = await w.session(await w.agent())
        made = request(token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, w, made)
            with anyio.fail_after(30):
                await begun.wait()
            assert made.running is not None
            if ends == "cancelled":
                made.running.cancel()
        assert [held[1] for held in await w.holds()] == [state]
        if ends == "overdue":
            assert code(made.delivered[0]) == ("upstream.timeout" if sent else "upstream.unreachable")
