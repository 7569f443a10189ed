"""What agents hear by themselves, with the official client of both eras against real upstreams of both (P3, P5, P11)."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, ToolsListChanged
from mcp_types import PromptListChangedNotification, ResourceUpdatedNotification, ToolListChangedNotification

from haltline.calls.attempts import Attempts
from haltline.gateway.face import Gateway
from haltline.policy.model import Reason
from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import UpstreamSpec
from haltline.upstreams.stdio import StdioUpstream
from support.serving import served_face
from support.world import world

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
SCRIPT = Path(__file__).parents[1] / "support" / "telling_server.py"
POLICY = """
version: "1"
currency: USD
tiers:
  all: {tools: ["*"]}
  blind: {tools: ["telling__touch*"]}
tools:
  "*": {price: "0.00"}
"""
ONE, TWO = "note://one", "note://two"
HEAR_S = 30


class Heard:
    """The notifications that one official client of the handshake era got."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._more = anyio.Event()

    async def __call__(self, message: Any) -> None:
        self.all.append(message)
        self._more.set()

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.all if isinstance(message, kind)]

    @property
    def uris(self) -> list[str]:
        return [str(message.params.uri) for message in self.of(ResourceUpdatedNotification)]

    async def until(self, said) -> None:
        with anyio.fail_after(HEAR_S):
            while not said():
                self._more = anyio.Event()
                await self._more.wait()


class Setting:
    def __init__(self, w, url):
        self.w = w
        self.url = url

    async def token(self, handle, tier="all"):
        return (await self.session(handle, tier))[1]

    async def session(self, handle, tier="all"):
        agent = await self.w.agent(handle, tier)
        return await self.w.session(agent)

    @asynccontextmanager
    async def client(self, token, era="auto", heard=None):
        timeout = httpx2.Timeout(5, read=30)
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=timeout) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode=era, message_handler=heard) as client:
                if era == "legacy":
                    await self.standing()
                yield client

    async def standing(self, count=None):
        """Until its stream stands."""
        wanted = count or self.opened + 1
        self.opened = wanted
        with anyio.fail_after(HEAR_S):
            while len(self.gateway._streams._hearers._listening) < wanted:
                await anyio.sleep(0.005)

    async def heard_upstream(self, client):
        """Until what the upstream tells in this client's own session is listened to: what it says before is lost."""
        await touch(client, ONE)
        upstream = self.w.parts.catalog.upstream("telling")
        with anyio.fail_after(HEAR_S):
            for ear in list(upstream._ears._ears.values()) if isinstance(upstream, HttpUpstream) else ():
                await ear.ready.wait()

    mine = ""
    opened = 0
    gateway: Any = None


@pytest.fixture(scope="module")
def telling():
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "http"], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)
    process.stdout.close()


KINDS = ["both", "handshake", "stdio"]
EVERYWHERE = pytest.mark.parametrize("s", [*KINDS, "stdio modern"], indirect=True)


@pytest.fixture(params=KINDS)
async def s(request, tmp_path):
    """A broker before an upstream that speaks both eras, only the older one, or is a program, of both or the newer one."""
    if request.param.startswith("stdio"):
        args = (str(SCRIPT), *request.param.split())
        upstream: Any = StdioUpstream(UpstreamSpec("telling", command=sys.executable, args=args))
    else:
        url = request.getfixturevalue("telling")
        upstream = HttpUpstream(UpstreamSpec("telling", url=url), handshake_only=request.param == "handshake")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(upstream.aclose)
        w = await stack.enter_async_context(world(tmp_path, policy=POLICY, upstreams=[upstream]))
        gateway = Gateway(w.parts, w.broker, w.doorman, Attempts(w.parts.writer, w.parts.audit), "0.1.0")
        w.parts.catalog.on_change(gateway.forget_lists)
        setting = Setting(w, await stack.enter_async_context(served_face(gateway)))
        setting.gateway = gateway
        setting.kind = request.param.split()[0]
        setting.mine = "touch" if request.param == "stdio modern" else "touch_mine"  # it has no session to tell alone
        yield setting


async def touch(client, uri, tool="touch"):
    result = await client.call_tool(f"telling__{tool}", {"uri": uri})
    assert not result.is_error, result


@EVERYWHERE
@pytest.mark.promise("P11", "P5")
async def test_a_session_hears_of_what_it_subscribed_to_and_no_other_hears_of_it(s):
    a, b = Heard(), Heard()
    async with s.client(await s.token("a"), "legacy", a) as one, s.client(await s.token("b"), "legacy", b) as other:
        assert one.server_capabilities.resources.subscribe is True
        await one.subscribe_resource(ONE)
        await other.subscribe_resource(TWO)
        await touch(one, ONE)
        await touch(other, TWO)
        await a.until(lambda: a.uris)
        await b.until(lambda: b.uris)
        heard = len(a.uris)
        await touch(one, TWO, s.mine)
        await touch(one, ONE, s.mine)
        await a.until(lambda: len(a.uris) > heard)
        b.all.clear()
        await touch(other, TWO)
        await b.until(lambda: b.uris)
        assert (set(a.uris), set(b.uris)) == ({ONE}, {TWO})


@pytest.mark.promise("P11")
async def test_after_unsubscribing_nothing_is_heard_of_it(s):
    heard = Heard()
    async with s.client(await s.token("a"), "legacy", heard) as client:
        await client.subscribe_resource(ONE)
        await client.subscribe_resource(TWO)
        await client.unsubscribe_resource(ONE)
        await touch(client, ONE)
        await touch(client, TWO)
        await heard.until(lambda: TWO in heard.uris)
        assert ONE not in heard.uris


@pytest.mark.promise("P5")
async def test_of_two_sessions_of_one_agent_each_hears_of_its_own_and_one_s_end_leaves_the_other_its_own(s):
    a, b = Heard(), Heard()
    agent = await s.w.agent("a", "all")
    tokens = [(await s.w.session(agent))[1] for _ in range(2)]
    async with s.client(tokens[1], "legacy", b) as other:
        async with s.client(tokens[0], "legacy", a) as one:
            await one.subscribe_resource(ONE)
            await other.subscribe_resource(ONE)
            await other.subscribe_resource(TWO)
            await one.unsubscribe_resource(ONE)
            await touch(one, ONE)
            await touch(one, TWO)
            await b.until(lambda: {ONE, TWO} <= set(b.uris))
            assert a.uris == []
        b.all.clear()
        await touch(other, ONE)
        await b.until(lambda: ONE in b.uris)


@pytest.mark.promise("P11", "P5")
async def test_a_subscription_of_the_newer_era_tells_what_was_asked_for_and_nothing_else(s):
    async with s.client(await s.token("a")) as client, s.client(await s.token("b")) as other:
        async with (
            client.listen(resource_subscriptions=[ONE]) as mine,
            other.listen(resource_subscriptions=[TWO]) as theirs,
        ):
            assert list(mine.honored.resource_subscriptions) == [ONE]
            assert mine.honored.tools_list_changed is None
            for toucher in (client, other):  # of a program each has one of its own
                await touch(toucher, TWO)
                await touch(toucher, ONE)
            with anyio.fail_after(HEAR_S):
                assert await anext(mine) == ResourceUpdated(uri=ONE)
                assert await anext(theirs) == ResourceUpdated(uri=TWO)


@EVERYWHERE
@pytest.mark.promise("P11")
async def test_whoever_listens_is_told_when_the_tools_have_changed(s):
    heard = Heard()
    async with s.client(await s.token("a"), "legacy", heard) as one, s.client(await s.token("b")) as other:
        assert one.server_capabilities.tools.list_changed is True
        async with other.listen(tools_list_changed=True) as changes:
            before = len((await one.list_tools()).tools)
            await s.heard_upstream(one)
            await one.call_tool("telling__grow", {})
            await heard.until(lambda: heard.of(PromptListChangedNotification))
            if s.kind == "stdio":  # it grew in the agent's own process
                s.gateway.forget_lists()
            await heard.until(lambda: heard.of(ToolListChangedNotification))
            with anyio.fail_after(HEAR_S):
                assert await anext(changes) == ToolsListChanged()
            if s.kind != "stdio":
                assert len((await one.list_tools()).tools) == before + 1


@pytest.mark.promise("P11")
async def test_an_upstream_that_says_that_its_tools_changed_is_believed_though_the_list_reads_as_before(s):
    async with s.client(await s.token("a"), "legacy") as one, s.client(await s.token("b")) as other:
        async with other.listen(tools_list_changed=True) as changes:
            await s.heard_upstream(one)
            await one.call_tool("telling__announce", {})
            with anyio.fail_after(HEAR_S):
                assert await anext(changes) == ToolsListChanged()


@pytest.mark.promise("P6", "R25")
async def test_a_resource_that_is_not_granted_is_not_subscribed_to_and_that_is_recorded(s):
    heard = Heard()
    async with (
        s.client(await s.token("a", "blind"), "legacy", heard) as one,
        s.client(await s.token("b", "blind")) as two,
    ):
        with pytest.raises(MCPError, match="scope.tool"):
            await one.subscribe_resource(ONE)
        async with two.listen(resource_subscriptions=[ONE], tools_list_changed=True) as changes:
            assert not changes.honored.resource_subscriptions
            assert changes.honored.tools_list_changed is True
        await touch(one, ONE)
    denied = await s.w.events("call.denied")
    assert [one["method"] for one in denied] == ["resources/subscribe"] * 2
    assert heard.uris == []


@pytest.mark.promise("P1")
async def test_a_subscription_is_recorded_as_a_call_and_its_frames_are_not(s):
    async with s.client(await s.token("a")) as client:
        async with client.listen(resource_subscriptions=[ONE]) as changes:
            await touch(client, ONE)
            with anyio.fail_after(HEAR_S):
                await anext(changes)
    methods = [one.get("method") for one in await s.w.events("call.allowed")]
    assert methods == ["resources/subscribe", None]


@pytest.mark.promise("P3", "R17")
async def test_a_stop_closes_the_streams_of_the_stopped_and_no_other(s):
    a, b = Heard(), Heard()
    agent = await s.w.agent("a", "all")
    (stopped_id, stopped), (_, kept) = await s.w.session(agent), await s.w.session(agent)
    async with s.client(stopped, "legacy", a) as one, s.client(kept, "legacy", b) as other:
        await one.subscribe_resource(ONE)
        await other.subscribe_resource(ONE)
        revoked = Reason("session.revoked", "revoked")

        def revoke(tx):
            s.w.parts.identity.revoke_session(tx, stopped_id)
            tx.after_commit(lambda: s.w.parts.calls.stop(session_ids=[stopped_id], reason=revoked))

        await s.w.run(revoke)
        await touch(other, ONE)
        await b.until(lambda: b.uris)
        assert a.uris == []
        assert len(s.gateway._streams._hearers._listening) == 1


@pytest.mark.promise("P3")
async def test_who_is_halted_can_open_no_stream_and_is_told_why(s):
    async with s.client(await s.token("a")) as client:
        await s.w.run(
            lambda tx: s.w.parts.halts.set(tx, "everything", "everything", code="operator.halt", text="no", by="me")
        )
        with pytest.raises(MCPError, match=r"everything.halted"):
            async with client.listen(tools_list_changed=True):
                pass


async def test_streams_are_no_running_calls_and_end_in_good_order_when_the_broker_drains(s):
    async with s.client(await s.token("a")) as client:
        async with client.listen(tools_list_changed=True) as changes:
            calls = s.w.parts.calls
            assert (len(calls), calls.running_of("any")) == (0, 0)
            calls.streams.close()
            with anyio.fail_after(HEAR_S):
                assert [one async for one in changes] == []
        with pytest.raises(MCPError, match=r"broker.stopping"):
            async with client.listen(tools_list_changed=True):
                pass


@pytest.mark.promise("P3", "R24")
async def test_the_stream_of_an_agent_s_own_credential_ends_with_the_session_that_its_call_opened(s):
    heard = Heard()
    agent = await s.w.agent("a", "all")
    token = await s.w.run(lambda tx: s.w.parts.identity.issue_agent_credential(tx, agent))
    async with s.client(token, "legacy", heard) as client:
        await client.subscribe_resource(ONE)
        (opened,) = await s.w.run(
            lambda tx: s.w.parts.identity.sessions(tx, agent_id=agent.id, all_states=False, most=9)
        )
        (hearer,) = s.gateway._streams._hearers._listening
        stream = hearer.stream
        s.w.parts.calls.stop(session_ids=[opened.id], reason=Reason("session.revoked", "revoked"))
        assert stream.stopped is not None
        assert stream.session_id == opened.id


@pytest.mark.promise("P6")
async def test_what_is_no_subscription_is_said_to_be_none(s):
    token = await s.token("a")
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "subscriptions/listen",
    }
    wrong = [
        None,
        {"resourceSubscriptions": "note://one"},
        {"resourceSubscriptions": [1]},
        {"resourceSubscriptions": ["a"] * 999},
    ]
    async with httpx2.AsyncClient(headers=headers) as http:
        for asked in wrong:
            params = {"notifications": asked, "_meta": meta}
            message = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
            answer = (await http.post(s.url, json=message)).json()
            assert answer["error"]["code"] == -32602, asked
    assert s.w.parts.calls.streams.count_of("any") == 0
