"""What a session of the handshake era set for itself, met by a gateway that remembers nothing, as after a restart."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from haltline.calls.attempts import Attempts
from haltline.gateway.face import Gateway
from haltline.gateway.remembered import KEPT_US, Remembered, Set, Wish
from haltline.upstreams import faults
from haltline.upstreams.telling import SUBSCRIBE, UNSUBSCRIBE, line_of, unheard, updated
from haltline.wire.conversations import OF_ONE_OWNER_MAX
from support.scripted import ScriptedUpstream
from support.serving import served_face
from support.world import world

POLICY = """
version: "1"
currency: USD
tiers:
  all: {tools: ["*"]}
  blind: {tools: ["notes__charge"]}
tools:
  "*": {price: "0.00"}
"""
ONE, TWO = "note://one", "note://two"


class Notes(ScriptedUpstream):
    """Has resources that can be subscribed to; `away` of the next requests find it unreachable."""

    def __init__(self) -> None:
        super().__init__("notes", tools=("charge",))
        self.capabilities = {"resources": {"subscribe": True}, "logging": {}}
        self.told: Any = unheard
        self.levels: list[str | None] = []
        self.subscribed: list[tuple[str, str]] = []
        self.quieted: list[str] = []
        self.away = 0
        self.lines: set[Any] = set()

    async def call(self, call):
        if call.method not in {SUBSCRIBE, UNSUBSCRIBE}:
            self.levels.append(call.peer.log_level)
            return await super().call(call)
        if self.away:
            self.away -= 1
            raise faults.unreachable("notes")
        call.before_send()
        self.subscribed.append((call.method.rpartition("/")[2], call.params["uri"]))
        self.lines.add(self.line_of(call.caller, call.peer))
        return {"result": {}}

    def on_told(self, told):
        self.told = told

    def line_of(self, caller, peer):
        return line_of("agent", caller, peer)

    def quiet(self, line, uri):
        self.quieted.append(uri)

    def tell(self, uri: str) -> None:
        for line in self.lines:
            self.told(line, updated(uri))


class Host:
    """A client of the handshake era: one session, whichever gateway serves it."""

    def __init__(self, token: str) -> None:
        told = {"capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        self._told = {"protocolVersion": "2025-11-25", **told}
        self.headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        self.url = ""
        self.http: httpx.AsyncClient
        self.heard: list[str] = []

    async def initialize(self) -> None:
        reply = await self.post("initialize", self._told)
        self.headers["Mcp-Session-Id"] = reply.headers["mcp-session-id"]

    async def post(self, method: str, params: dict[str, Any], token: str | None = None) -> httpx.Response:
        headers = self.headers if token is None else {**self.headers, "Authorization": f"Bearer {token}"}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await self.http.post(self.url, json=message, headers=headers)

    async def work(self) -> None:
        reply = await self.post("tools/call", {"name": "notes__charge", "arguments": {"amount": 1}})
        assert not reply.json()["result"].get("isError"), reply.text

    async def listen(self) -> None:
        async with self.http.stream("GET", self.url, headers=self.headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    self.heard.append(json.loads(line[6:])["params"].get("uri"))


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
async def w(tmp_path, notes):
    async with world(tmp_path, policy=POLICY, upstreams=[notes]) as made:
        yield made


@asynccontextmanager
async def running(w, host):
    """A gateway that has just started."""
    w.clock.forward(1)
    gateway = Gateway(w.parts, w.broker, w.doorman, Attempts(w.parts.writer, w.parts.audit), "0.1.0")
    async with served_face(gateway) as url, httpx.AsyncClient(timeout=30) as http:
        host.url, host.http = url, http
        yield gateway


async def until(said) -> None:
    with anyio.fail_after(30):
        while not said():
            await anyio.sleep(0.005)


async def settled(w, notes):
    """A session with a level and two subscriptions, one of which it has given up."""
    session, token = await w.session(await w.agent("a", "all"))
    host = Host(token)
    async with running(w, host):
        await host.initialize()
        await host.post("logging/setLevel", {"level": "error"})
        for uri in (ONE, TWO):
            assert "result" in (await host.post("resources/subscribe", {"uri": uri})).json()
        await host.post("resources/unsubscribe", {"uri": TWO})
    notes.subscribed.clear()
    return host, session


@pytest.mark.promise("P11", "R25")
async def test_a_session_that_comes_back_has_its_level_at_once_and_is_subscribed_again_by_a_call_of_its_own(w, notes):
    host, _ = await settled(w, notes)
    async with running(w, host):
        await host.work()
        assert notes.levels[-1] == "error"
        await until(lambda: notes.subscribed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.listen)
            await until(lambda: ONE in host.heard)  # what it may have missed
            host.heard.clear()
            notes.tell(ONE)
            notes.tell(TWO)
            await until(lambda: host.heard)
            tasks.cancel_scope.cancel()
    assert notes.subscribed == [("subscribe", ONE)]
    assert host.heard == [ONE]
    methods = [one.get("method") for one in await w.events("call.allowed")]
    assert methods.count("resources/subscribe") == 3


@pytest.mark.promise("P11")
async def test_opening_its_stream_is_enough_to_be_subscribed_again(w, notes):
    host, _ = await settled(w, notes)
    async with running(w, host), anyio.create_task_group() as tasks:
        tasks.start_soon(host.listen)
        await until(lambda: ONE in host.heard)
        tasks.cancel_scope.cancel()


@pytest.mark.promise("P11")
async def test_what_changed_while_no_stream_was_open_is_told_when_one_is(w, notes):
    host, _ = await settled(w, notes)
    async with running(w, host) as gateway:
        await host.work()
        await until(lambda: notes.subscribed)
        for _ in range(2):
            notes.tell(ONE)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.listen)
                await until(lambda: host.heard)
                tasks.cancel_scope.cancel()
            assert host.heard == [ONE]
            host.heard.clear()
            await until(lambda: not gateway._streams._hearers._listening)


@pytest.mark.promise("P11")
async def test_an_upstream_that_is_away_after_a_restart_is_asked_again(w, notes):
    host, _ = await settled(w, notes)
    notes.away = 1
    async with running(w, host):
        await host.work()
        await until(lambda: notes.subscribed == [("subscribe", ONE)])


@pytest.mark.promise("P6", "P9")
async def test_what_is_no_longer_granted_is_not_subscribed_to_again_and_is_forgotten(w, notes, tmp_path):
    host, _ = await settled(w, notes)
    (tmp_path / "policies" / "policy.yaml").write_text(
        POLICY.replace('all: {tools: ["*"]}', 'all: {tools: ["notes__charge"]}')
    )
    w.parts.policies.reload()
    async with running(w, host):
        await host.work()
        rows = "SELECT wishes FROM conversations"
        with anyio.fail_after(30):
            while (await w.parts.reader.row(rows))["wishes"] != "[]":
                await anyio.sleep(0.005)
    assert notes.subscribed == []
    assert [one["tool"] for one in await w.events("call.denied")] == ["notes__resources"]


@pytest.mark.promise("P5", "R23")
async def test_a_session_is_known_by_its_credential_and_a_wrong_one_loses_it_nothing(w, notes):
    host, _ = await settled(w, notes)
    wrong = host.headers["Authorization"].split()[1][:-8] + "00000000"
    async with running(w, host):
        assert (await host.post("tools/call", {"name": "notes__charge"}, wrong)).status_code in {401, 404}
    assert notes.subscribed == []
    async with running(w, host):
        await host.work()
        await until(lambda: notes.subscribed)


@pytest.mark.promise("P5")
async def test_a_session_that_was_forgotten_for_newer_ones_is_not_subscribed_again_by_itself(w, notes):
    host, _ = await settled(w, notes)
    async with running(w, host):
        await host.work()
        await until(lambda: notes.subscribed and ONE in notes.subscribed[0])
        await host.post("resources/subscribe", {"uri": ONE})
        notes.subscribed.clear()
        mine = host.headers["Mcp-Session-Id"]
        for _ in range(OF_ONE_OWNER_MAX):
            await host.initialize()
        host.headers["Mcp-Session-Id"] = mine
        await host.work()
        assert notes.levels[-1] == "error"
        await until(lambda: notes.quieted)
    assert notes.subscribed == []


async def test_a_session_that_its_client_ended_is_forgotten(w, notes):
    host, _ = await settled(w, notes)
    async with running(w, host):
        assert (await host.http.delete(host.url, headers=host.headers)).status_code == 204
    assert await w.parts.reader.rows("SELECT * FROM conversations") == []


async def test_what_is_remembered_is_bounded_for_each_credential_and_in_time(w):
    remembered = Remembered(w.parts)
    what = Set("info", {ONE: Wish("notes", "notes__resources")})
    token = (await w.session(await w.agent("a", "all")))[1]
    other = (await w.session(await w.agent("b", "all")))[1]
    await remembered.keep("theirs", other, what)
    for number in range(OF_ONE_OWNER_MAX + 3):
        w.clock.forward(1)
        await remembered.keep(f"s{number}", token, replace(what, log_level="debug"))
    assert await remembered.recall("s2") == Set()
    assert await remembered.recall("s3") == replace(what, log_level="debug")
    assert await remembered.recall("theirs") == what
    w.clock.forward(KEPT_US / 1_000_000 + 1)
    await remembered.keep("new", token, what)
    assert await remembered.recall("theirs") == Set()
    await remembered.keep("new", token, Set())
    assert await w.parts.reader.rows("SELECT * FROM conversations") == []
