"""Answers over HTTP that come after their deadline: heard, within bounds, and by nobody who called (R10)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.http_late import LATE_MAX, LATE_OF_ONE_MAX
from haltline.upstreams.model import Caller, OutcomeUnknown, UpstreamCall, UpstreamSpec
from support.nasty_http import MIB, NastyHttp, nasty_http
from support.upstream_calls import ANN, BOB, Sent, closing, text_of
from support.world import world

pytestmark = pytest.mark.promise("R10")
PATIENCE_S = 30
POLICY = """
tiers: {roomy: {tools: ["*"], caps: {day: "100.00"}}}
tools:
  shop__held: {price: {result: structuredContent.cost, at_most: "0.40"}, timeout_s: 0.3}
  "*": {price: "0.05"}
"""


class Late:
    """Calls that are given up, and what came after."""

    def __init__(self, shop: HttpUpstream) -> None:
        self.shop = shop
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.heard: list[dict[str, Any]] = []
        self.came = anyio.Event()

    async def give_up(self, tool: str, caller: Caller = ANN, name: str = "", deadline_s: float = 0.3) -> None:
        def late(answer: dict[str, Any]) -> None:
            self.answers.append((name, answer))
            self.came.set()

        params = {"name": tool, "arguments": {}, "_meta": {"progressToken": f"p{name}"}}
        call = UpstreamCall(caller, params, deadline_s, lambda: None, self.heard.append, late)
        with pytest.raises(OutcomeUnknown, match="did not answer within"):
            await self.shop.call(call)


@pytest.fixture
async def nasty(request: pytest.FixtureRequest) -> AsyncIterator[NastyHttp]:
    async with nasty_http(getattr(request, "param", "modern")) as server:
        yield server


@asynccontextmanager
async def warm(shop: HttpUpstream) -> AsyncIterator[Late]:
    """Which era it speaks is known, so that a deadline is that of an answer."""
    async with closing(shop):
        await Sent()(shop, "good")
        yield Late(shop)


def upstream(server: NastyHttp, **more: Any) -> HttpUpstream:
    return HttpUpstream(UpstreamSpec("shop", url=server.url, max_result_bytes=8 * MIB), **more)


@pytest.mark.parametrize("nasty", ["modern", "handshake"], indirect=True)
@pytest.mark.parametrize("tool", ["held", "held_stream"])
async def test_an_answer_after_the_deadline_is_heard_once_and_what_is_told_meanwhile_is_not(
    nasty: NastyHttp, tool: str
) -> None:
    async with warm(upstream(nasty)) as late:
        shop = late.shop
        await late.give_up(tool)
        told = len(late.heard)
        nasty.release.set()
        with anyio.fail_after(PATIENCE_S):
            await late.came.wait()
        [(_, answer)] = late.answers
        assert text_of(answer) == "good"
        assert len(late.heard) == told
        assert len(shop._overtime) == 0
        assert shop._line._pool._busy == set()


async def test_a_connection_is_closed_when_the_time_for_late_answers_is_over(nasty: NastyHttp) -> None:
    async with warm(upstream(nasty, late_s=0.1)) as late:
        shop = late.shop
        await late.give_up("held_stream")
        with anyio.fail_after(PATIENCE_S):
            while len(shop._overtime):
                await anyio.sleep(0.01)
        nasty.release.set()
        assert late.answers == []
        assert shop._line._pool._busy == set()


async def test_a_late_answer_that_is_too_large_is_not_read(nasty: NastyHttp) -> None:
    async with warm(upstream(nasty)) as late:
        shop = late.shop
        await late.give_up("held_large")
        nasty.release.set()
        with anyio.fail_after(PATIENCE_S):
            while len(shop._overtime):
                await anyio.sleep(0.01)
        assert late.answers == []


async def test_so_many_are_waited_for_and_so_many_of_one_agent(nasty: NastyHttp) -> None:
    others = [Caller(f"agent_{number}", "s") for number in range(LATE_MAX)]
    async with warm(upstream(nasty)) as late:
        shop = late.shop
        async with anyio.create_task_group() as tasks:
            for number in range(LATE_OF_ONE_MAX + 3):
                tasks.start_soon(late.give_up, "held", ANN, f"ann{number}")
        assert len(shop._overtime) == LATE_OF_ONE_MAX
        async with anyio.create_task_group() as tasks:
            for one in others:
                tasks.start_soon(late.give_up, "held", one, one.agent_id, 0.6)
        assert len(shop._overtime) == LATE_MAX
        nasty.release.set()
        with anyio.fail_after(PATIENCE_S):
            while len(shop._overtime):
                await anyio.sleep(0.01)
        assert sum(name.startswith("ann") for name, _ in late.answers) == LATE_OF_ONE_MAX
        assert len({name for name, _ in late.answers}) == len(late.answers) == LATE_MAX


@pytest.mark.promise("R17")
async def test_a_stop_ends_what_is_waited_for_of_that_agent_alone(nasty: NastyHttp) -> None:
    async with warm(upstream(nasty)) as late:
        shop = late.shop
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(late.give_up, "held", ANN, "ann")
            tasks.start_soon(late.give_up, "held", Caller(ANN.agent_id, "another"), "another")
            tasks.start_soon(late.give_up, "held", BOB, "bob")
        await shop.forget(ANN, session_only=True)
        await anyio.sleep(0)
        assert len(shop._overtime) == 2
        await shop.forget(ANN, session_only=False)
        await anyio.sleep(0)
        assert len(shop._overtime) == 1
        nasty.release.set()
        with anyio.fail_after(PATIENCE_S):
            await late.came.wait()
        assert [name for name, _ in late.answers] == ["bob"]


async def test_the_broker_records_it_and_its_call_stays_in_doubt(nasty: NastyHttp, tmp_path) -> None:
    nasty.tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("good", "held")]
    async with closing(upstream(nasty)) as shop, world(tmp_path, policy=POLICY, upstreams=(shop,)) as w:
        _, token = await w.session(await w.agent(tier="roomy"))
        first = await w.call(token, "shop__held")
        assert "may have run" in first["result"]["content"][0]["text"]
        assert not (await w.call(token, "shop__good"))["result"].get("isError")
        nasty.release.set()
        with anyio.fail_after(PATIENCE_S):
            while not (found := await w.events("call.late_answer")):
                await anyio.sleep(0.01)
        assert (found[0]["hold"], found[0]["would_charge_micros"]) == ("in_doubt", 400_000)
        [hold] = await w.run(w.parts.ledger.in_doubt)
        assert hold.why.endswith("a late answer says that it succeeded, at 0.40")
