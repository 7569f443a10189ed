"""A program is spoken to in the era of the agent's client where it speaks that one, else in the other, translated."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.upstreams.isolation import OWN
from haltline.upstreams.model import Caller, NotSent, Peer, UpstreamCall, UpstreamSpec
from haltline.upstreams.stdio import StdioUpstream
from haltline.upstreams.telling import SUBSCRIBE, UNSUBSCRIBE
from support.upstream_calls import ANN, BOB, alive, closing, text_of

SCRIPT = Path(__file__).parents[1] / "support" / "era_stdio.py"
VERSION = "io.modelcontextprotocol/protocolVersion"
INFO = {"name": "ann's client", "version": "1"}
NEW = Peer(capabilities={"elicitation": {}}, info=INFO, log_level="warning")
OLD = Peer(capabilities={"elicitation": {}}, info=INFO, log_level="warning", handshake=True)
PEERS = pytest.mark.parametrize("peer", [NEW, OLD], ids=["new", "old"])


def program(mode: str, **more: Any) -> StdioUpstream:
    return StdioUpstream(UpstreamSpec("tool", command=sys.executable, args=("-S", str(SCRIPT), mode), **more))


@asynccontextmanager
async def opened(mode: str, **more: Any) -> AsyncIterator[StdioUpstream]:
    async with closing(program(mode, **more)) as tool:
        yield tool


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """The broker's loop alone: what differs is what is said, not how it is read."""
    return "asyncio", {"use_uvloop": True}


class Asked:
    """One request of an agent's client."""

    def __init__(self, peer: Peer, caller: Caller = ANN) -> None:
        self.peer = peer
        self.caller = caller
        self.heard: list[dict[str, Any]] = []

    async def __call__(
        self, tool: StdioUpstream, name: str, method: str = "tools/call", meta: Any = None, **arguments: Any
    ) -> dict[str, Any]:
        params: dict[str, Any] = {"name": name, "arguments": arguments} if method == "tools/call" else {"uri": name}
        if meta is not None:
            params["_meta"] = meta
        call = UpstreamCall(
            self.caller, params, 20, lambda: None, self.heard.append, method=method, peer=self.peer
        )  # fmt: skip
        return await tool.call(call)


async def said(tool: StdioUpstream, name: str, peer: Peer, caller: Caller = ANN, **more: Any) -> Any:
    return json.loads(text_of(await Asked(peer, caller)(tool, name, **more)))


@pytest.mark.promise("P11", "R32")
@pytest.mark.parametrize(
    ("mode", "processes", "eras"),
    [
        ("both", 2, ["2026-07-28", None]),
        ("modern", 1, ["2026-07-28", "2026-07-28"]),
        ("handshake", 1, [None, None]),
        ("silent", 1, [None, None]),
        ("exits", 1, [None, None]),
    ],
)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
async def test_each_client_meets_the_program_in_its_own_era_where_that_is_spoken_in_a_process_for_each(
    mode: str, processes: int, eras: list[str | None], listed: bool
) -> None:
    async with opened(mode) as tool:
        if listed:
            assert [one["name"] for one in await tool.list_tools()] == ["pid"]
            assert tool.capabilities["resources"]["subscribe"] is True
        got = [(await said(tool, "params", peer)).get("_meta", {}).get(VERSION) for peer in (NEW, OLD)]
        assert got == eras
        pids = [await said(tool, "pid", peer) for peer in (NEW, OLD, NEW, OLD)]
        assert len(set(pids)) == processes
        bobs = await said(tool, "pid", NEW, BOB)
        assert bobs not in pids
        await tool.forget(ANN, session_only=False)
        with anyio.fail_after(20):
            while any(alive(pid) for pid in pids):
                await anyio.sleep(0.01)
        assert alive(bobs)
        assert tool.asks_in_mid_call() is (mode not in {"both", "modern"})


async def test_a_program_that_says_nothing_to_the_newer_era_is_asked_soon_and_once() -> None:
    async with opened("silent") as tool:
        began = time.monotonic()
        await tool.list_tools()
        assert time.monotonic() - began < 10
        assert await said(tool, "heard", NEW) == [
            "initialize",
            "notifications/initialized",
            "logging/setLevel",
            "tools/call",
        ]


@pytest.mark.promise("R11")
async def test_a_program_that_hangs_at_what_it_does_not_know_is_asked_the_other_way_round_after_two_starts() -> None:
    async with opened("hangs", connect_timeout_s=0.4) as tool:
        for _ in range(2):
            with pytest.raises(NotSent, match="does not start"):
                await tool.list_tools()
        tool._slots[*OWN, ""].not_before = 0
        assert await tool.list_tools()
        assert await said(tool, "pid", NEW) != await said(tool, "pid", NEW, BOB)


@pytest.mark.promise("P11")
async def test_the_program_meets_the_agent_s_client_and_its_level_in_each_request() -> None:
    async with opened("modern") as tool:
        for peer in (NEW, OLD):
            params = await said(tool, "params", peer, meta={"progressToken": 7, "x/y": None}, a=1)
            meta = params.pop("_meta")
            assert params == {"name": "params", "arguments": {"a": 1}}
            token = meta.pop("progressToken")
            assert type(token) is int
            assert meta == {
                "x/y": None,
                VERSION: "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
                "io.modelcontextprotocol/clientInfo": INFO,
                "io.modelcontextprotocol/logLevel": "warning",
            }
        other = Peer(info={"name": "another", "version": "2"})
        pids = {await said(tool, "pid", peer) for peer in (NEW, OLD, other)}
        assert len(pids) == 1, "who asks is in each request, so that one process serves all clients of an agent"


@pytest.mark.promise("P11")
async def test_input_that_is_required_comes_back_as_it_is_and_is_brought_with_the_next_request() -> None:
    async with opened("both") as tool:
        answer = (await Asked(NEW)(tool, "input"))["result"]
        assert (answer["resultType"], answer["requestState"]) == ("input_required", "s")
        params = {"name": "input", "inputResponses": {"who": {"action": "decline"}}, "requestState": "s"}
        call = UpstreamCall(ANN, params, 20, lambda: None, lambda _: None, peer=NEW)
        assert json.loads(text_of(await tool.call(call))) == [{"who": {"action": "decline"}}, "s"]


@PEERS
@pytest.mark.promise("P11", "R32")
async def test_progress_and_logs_reach_their_call_in_either_era(peer: Peer) -> None:
    async with opened("both") as tool:
        asked = Asked(peer)
        await asked(tool, "progress", meta={"progressToken": "mine"})
        assert [one["params"] for one in asked.heard] == [
            {"progressToken": "mine", "progress": 1},
            {"level": "info", "data": "a log"},
        ]


@PEERS
@pytest.mark.promise("R17")
async def test_a_call_that_is_called_off_is_told_to_the_program_in_either_era(peer: Peer) -> None:
    async with opened("both") as tool:
        await said(tool, "pid", peer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: Asked(peer)(tool, "hold"))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert "notifications/cancelled" in await said(tool, "heard", peer)


class Told:
    """What an upstream told, and on which line."""

    def __init__(self, tool: StdioUpstream) -> None:
        self.all: list[tuple[Any, str]] = []
        self.changes = 0
        self._more = anyio.Event()
        tool.on_told(self._take)
        tool.watch(self._changed)

    def _take(self, line: Any, message: dict[str, Any]) -> bool:
        self.all.append((line, message["params"].get("uri", message["method"])))
        self._more.set()
        return True

    def _changed(self) -> None:
        self.changes += 1
        self._more.set()

    async def until(self, heard: Any) -> None:
        with anyio.fail_after(20):
            while not heard():
                self._more = anyio.Event()
                await self._more.wait()


@PEERS
@pytest.mark.parametrize("mode", ["both", "modern", "handshake"])
@pytest.mark.promise("P11", "P5")
async def test_what_was_subscribed_to_is_told_on_its_line_until_it_is_no_longer_wanted(mode: str, peer: Peer) -> None:
    async with opened(mode) as tool:
        told, ann = Told(tool), Asked(peer)
        line = tool.line_of(ANN, peer)
        assert await ann(tool, "note://one", SUBSCRIBE) in ({"result": {}}, {"result": {"resultType": "complete"}})
        await ann(tool, "touch", uri="note://one")
        await told.until(lambda: (line, "note://one") in told.all)
        await ann(tool, "note://two", SUBSCRIBE)
        await ann(tool, "note://one", UNSUBSCRIBE)
        told.all.clear()
        tool.quiet(line, "note://one")  # does no harm
        if tool.asks_in_mid_call():
            return  # such a program is trusted to say no more of it
        await ann(tool, "touch", uri="note://one")
        await ann(tool, "touch", uri="note://two")
        await told.until(lambda: told.all)
        assert set(told.all) == {(line, "note://two")}


@pytest.mark.promise("P11")
async def test_of_two_clients_of_an_agent_in_one_process_each_hears_of_its_own() -> None:
    async with opened("modern") as tool:
        told = Told(tool)
        first, second = NEW, Peer(info={"name": "another", "version": "2"})
        lines = [tool.line_of(ANN, peer) for peer in (first, second)]
        for peer in (first, second):
            await Asked(peer)(tool, "note://one", SUBSCRIBE)
        tool.quiet(lines[0], "note://one")
        await Asked(first)(tool, "touch", uri="note://one")
        await told.until(lambda: told.all)
        assert told.all == [(lines[1], "note://one")]


@pytest.mark.promise("P11")
async def test_a_resource_that_the_program_does_not_honour_is_said_not_to_be_subscribed_to() -> None:
    async with opened("modern") as tool:
        refused = await Asked(NEW)(tool, "note://none", SUBSCRIBE)
        assert refused["error"]["code"] == -32602


@pytest.mark.promise("P11")
async def test_a_subscription_that_the_program_ends_and_one_whose_process_ended_are_made_again_and_told_of() -> None:
    async with opened("modern") as tool:
        told, ann, line = Told(tool), Asked(NEW), tool.line_of(ANN, NEW)
        await ann(tool, "note://one", SUBSCRIBE)
        await ann(tool, "stop_telling")
        await told.until(lambda: told.all == [(line, "note://one")] and told.changes)
        await _told_again(told, ann, tool)
        told.all.clear()
        first = await said(tool, "pid", NEW)
        with pytest.raises(Exception, match="was lost"):
            await ann(tool, "exit")
        assert await said(tool, "pid", NEW) != first
        await told.until(lambda: told.all)
        await _told_again(told, ann, tool)


async def _told_again(told: Told, ann: Asked, tool: StdioUpstream) -> None:
    told.all.clear()
    with anyio.fail_after(20):
        while not told.all:
            await ann(tool, "touch", uri="note://one")
            await anyio.sleep(0.01)


@pytest.mark.promise("P11")
async def test_a_change_of_the_tools_is_heard_in_the_broker_s_own_process_and_in_an_agent_s() -> None:
    async with opened("both") as tool:
        told = Told(tool)
        await tool.list_tools()
        await Asked(NEW)(tool, "grow")
        await told.until(lambda: told.changes == 1)


@pytest.mark.promise("R32")
async def test_shared_a_program_of_the_newer_era_needs_one_process_for_all_clients_of_it() -> None:
    async with opened("both", isolation="shared") as tool:
        await tool.list_tools()
        pids = [await said(tool, "pid", NEW, caller) for caller in (ANN, BOB)]
        assert len(set(pids)) == 1
        assert len(tool._slots) == 1
        old = [await said(tool, "pid", Peer(handshake=True), caller) for caller in (ANN, BOB)]
        assert len({*pids, *old}) == 2


def answering(log: list[str], name: str, go: anyio.Event) -> Peer:
    async def ask(message: dict[str, Any]) -> dict[str, Any]:
        log.append(f"{name} {message['params']['mark']}")
        await go.wait()
        return {"result": {"of": name}}

    return Peer(ask=ask, handshake=True)


@pytest.mark.promise("P11", "R14", "R32")
async def test_a_question_beside_a_call_that_waits_for_an_answer_is_the_other_call_s() -> None:
    async with opened("handshake") as tool:
        log: list[str] = []
        results: dict[str, Any] = {}
        late, now = anyio.Event(), anyio.Event()
        now.set()

        async def ask(name: str, go: anyio.Event) -> None:
            results[name] = await said(tool, "ask", answering(log, name, go), mark=name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "one", late)
            with anyio.fail_after(20):
                while not log:
                    await anyio.sleep(0.01)
                await ask("two", now)
                await ask("three", now)
            assert list(results) == ["two", "three"]
            late.set()
        assert log == ["one one", "two two", "three three"]
        assert results == {name: {"of": name} for name in ("one", "two", "three")}


@pytest.mark.promise("P11", "R32")
async def test_a_question_beside_a_list_that_is_asked_for_is_the_call_s() -> None:
    async with opened("handshake") as tool:
        log: list[str] = []
        go = anyio.Event()
        go.set()
        peer = answering(log, "one", go)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: Asked(peer)(tool, "", "prompts/list"))  # never answered
            await anyio.wait_all_tasks_blocked()
            assert await said(tool, "ask", peer, mark="x") == {"of": "one"}
            tasks.cancel_scope.cancel()


@pytest.mark.promise("P11", "P5", "R32")
async def test_a_question_of_which_nobody_can_say_whose_it_is_is_refused_in_words() -> None:
    async with opened("handshake") as tool:
        log: list[str] = []
        go = anyio.Event()
        go.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: Asked(answering(log, "holding", go))(tool, "hold"))
            await anyio.wait_all_tasks_blocked()
            assert await said(tool, "ask", answering(log, "asking", go), mark="x") == "refused"
            await said(tool, "release", answering(log, "", go))
        assert log == []
        (error,) = [json.loads(one) for one in await said(tool, "heard", Peer(handshake=True)) if "code" in one]
        assert "ask again when the others have ended" in error["message"]
