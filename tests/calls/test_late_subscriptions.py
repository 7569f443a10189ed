"""Subscriptions whose stop, or whose session's end, comes while the upstream has not answered yet (P3, P11)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx2
import pytest

from haltline.calls.attempts import Attempts
from haltline.gateway.face import Gateway
from haltline.gateway.hearers import SUBSCRIPTIONS_MAX, Place
from haltline.policy.model import Reason
from haltline.upstreams.model import UpstreamSpec
from support.serving import served_face
from support.world import world

POLICY = """
version: "1"
currency: USD
tiers:
  all: {tools: ["*"]}
tools:
  "*": {price: "0.00"}
"""
ONE = "note://one"
LINE = ("", "", "")
HEADERS = {"Accept": "application/json, text/event-stream"}
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


class Notes:
    """Has resources, tells of them all on one line, and answers a subscription once released."""

    def __init__(self) -> None:
        self.spec = UpstreamSpec(name="notes", url="http://127.0.0.1:1/mcp")
        self.capabilities: dict[str, Any] = {"resources": {"subscribe": True}}
        self.sent = 0
        self.quieted: list[str] = []
        self.hold()

    async def list_tools(self) -> list[Any]:
        return []

    async def forget(self, caller: Any, *, session_only: bool) -> None:
        """It keeps nothing of anybody."""

    async def aclose(self) -> None:
        """There is nothing to close."""

    def watch(self, changed: Any) -> None:
        """Its tools never change."""

    async def call(self, call: Any) -> dict[str, Any]:
        if call.method != "resources/subscribe":
            return {"result": {"resources": [], "resourceTemplates": []}}
        call.before_send()
        self.sent += 1
        self.started.set()
        await self.release.wait()
        return {"result": {}}

    def hold(self) -> None:
        self.started, self.release = anyio.Event(), anyio.Event()

    def on_told(self, told: Any) -> None:
        """It never tells."""

    def line_of(self, caller: Any, peer: Any) -> tuple[str, str, str]:
        return LINE

    def quiet(self, line: Any, uri: str) -> None:
        assert line == LINE
        self.quieted.append(uri)


class Setting:
    def __init__(self, w: Any, gateway: Any, url: str, http: Any) -> None:
        self.w, self.url, self.http = w, url, http
        self.notes = w.upstream
        self.streams = gateway._streams

    async def credential(self) -> tuple[Any, str]:
        """Of an agent that has no open session."""
        agent = await self.w.agent("a", "all")
        return agent, await self.w.run(lambda tx: self.w.parts.identity.issue_agent_credential(tx, agent))

    async def post(self, headers: dict[str, str], method: str, params: dict[str, Any], number: int = 1) -> Any:
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return await self.http.post(self.url, json=message, headers=headers)

    async def initialized(self, token: str) -> dict[str, str]:
        """What a client of the handshake era sends with every request."""
        headers = {"Authorization": f"Bearer {token}"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        answer = await self.post(headers, "initialize", params)
        return {**headers, "Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}

    async def subscribe(self, headers: dict[str, str], uri: str, number: int, answers: list[Any]) -> None:
        answers.append((await self.post(headers, "resources/subscribe", {"uri": uri}, number)).json())


@pytest.fixture
async def s(tmp_path):
    async with late(tmp_path) as setting:
        yield setting


@asynccontextmanager
async def late(folder):
    async with world(folder, policy=POLICY, upstreams=[Notes()]) as w:
        gateway = Gateway(w.parts, w.broker, w.doorman, Attempts(w.parts.writer, w.parts.audit), "0.1.0")
        async with served_face(gateway) as url, httpx2.AsyncClient(headers=HEADERS, timeout=10) as http:
            yield Setting(w, gateway, url, http)


async def revoke(w: Any, agent: Any) -> None:
    """The one session that this agent has open."""
    reason = Reason("session.revoked", "revoked")

    def unit(tx: Any) -> None:
        (opened,) = w.parts.identity.sessions(tx, agent_id=agent.id, all_states=False, most=9)
        w.parts.identity.revoke_session(tx, opened.id)
        tx.after_commit(lambda: w.parts.calls.stop(session_ids=[opened.id], reason=reason))

    await w.run(unit)


@pytest.mark.promise("P3", "R24")
async def test_a_stream_ends_with_the_session_that_its_first_subscription_opened_though_that_was_stopped_under_way(s):
    agent, token = await s.credential()
    headers = {"Authorization": f"Bearer {token}", **MODERN}
    params = {"notifications": {"toolsListChanged": True, "resourceSubscriptions": [ONE]}, "_meta": META}
    ended: list[Any] = []

    async def listen() -> None:
        ended.append((await s.post(headers, "subscriptions/listen", params)).text)

    with anyio.fail_after(30):  # sooner than the stream looks for its session by itself
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await s.notes.started.wait()
            await revoke(s.w, agent)
    assert "acknowledged" not in ended[0]
    assert s.w.parts.calls.streams.count_of(agent.id) == 0


@pytest.mark.promise("P11")
async def test_of_a_session_that_ended_while_it_subscribed_nothing_is_left_here_or_with_the_upstream(s):
    _, token = await s.w.session(await s.w.agent("a", "all"))
    headers = await s.initialized(token)
    await s.post(headers, "logging/setLevel", {"level": "error"})
    answers: list[Any] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(s.subscribe, headers, ONE, 2, answers)
            await s.notes.started.wait()
            assert (await s.http.delete(s.url, headers=headers)).status_code == 204
            s.notes.release.set()
    assert "has ended" in answers[0]["error"]["message"]
    assert s.notes.quieted == [ONE]
    assert (s.streams.subscriptions._sessions, s.streams._hearers._at) == ({}, {})
    assert await s.w.parts.reader.rows("SELECT * FROM conversations") == []


@pytest.mark.promise("P11", "P5")
async def test_a_session_that_ended_while_it_subscribed_takes_nothing_from_another_that_hears_of_the_same(s):
    _, token = await s.w.session(await s.w.agent("a", "all"))
    ending, staying = await s.initialized(token), await s.initialized(token)
    s.notes.release.set()
    await s.subscribe(staying, ONE, 2, [])
    s.notes.hold()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(s.subscribe, ending, ONE, 2, [])
            await s.notes.started.wait()
            await s.http.delete(s.url, headers=ending)
            s.notes.release.set()
    assert s.notes.quieted == []
    assert [list(hearer.places) for hearer in s.streams.subscriptions._sessions.values()] == [[ONE]]


@pytest.mark.promise("P11")
async def test_subscriptions_under_way_at_once_are_no_more_together_than_one_session_may_have(s):
    _, token = await s.w.session(await s.w.agent("a", "all"))
    headers = await s.initialized(token)
    s.notes.release.set()
    await s.subscribe(headers, ONE, 2, [])
    (hearer,) = s.streams.subscriptions._sessions.values()
    for number in range(SUBSCRIPTIONS_MAX - 2):
        s.streams._hearers.join(hearer, f"note://{number}", Place("notes", LINE, "notes__resources"))
    s.notes.hold()
    answers: list[Any] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number, uri in enumerate(("note://last", "note://other", ONE)):
                tasks.start_soon(partial(s.subscribe, headers, uri, 3 + number, answers))
            while s.notes.sent < 4:
                await anyio.sleep(0.005)
            s.notes.release.set()
    assert [one["error"]["message"] for one in answers if "error" in one] == ["at most 256 subscriptions"]
    assert len(hearer.places) == SUBSCRIPTIONS_MAX
    assert len(s.notes.quieted) == 1
    assert s.notes.quieted[0] not in hearer.places
