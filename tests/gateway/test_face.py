"""What an agent's MCP client sees, over real HTTP with the official client of both eras (P11, R22, R23)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from haltline.calls.attempts import Attempts
from haltline.calls.refusals import META_KEY
from haltline.gateway.brokered import for_era
from haltline.gateway.face import Gateway
from haltline.policy.model import Reason
from support.scripted import ScriptedUpstream, text_result
from support.serving import served_face
from support.world import world

ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])
STRUCTURED = {
    "name": "quote",
    "title": "Quote",
    "description": "quotes",
    "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "outputSchema": {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]},
    "annotations": {"readOnlyHint": True, "vendorHint": None},
    "_meta": {"vendor.example/a": None},
    "icons": [{"src": "https://example.org/i.png"}],
}
POLICY = """
version: "1"
currency: USD
tiers:
  experimental: {tools: ["payments__charge", "payments__quote"], caps: {task: "0.50"}}
  roomy: {tools: ["*"], caps: {task: "100.00"}}
tools:
  payments__charge: {price: "0.05"}
  payments__quote: {price: "0.00"}
  payments__slow: {price: "0.10"}
"""


class Setting:
    """A gateway on a port, its world, and clients of it."""

    def __init__(self, w, url, folder):
        self.w = w
        self.url = url
        self.folder = folder

    async def token(self, tier="experimental", handle="bot"):
        agent = await self.w.agent(handle, tier)
        _, token = await self.w.session(agent)
        return token

    @asynccontextmanager
    async def client(self, token, era, **more):
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
            async with Client(streamable_http_client(self.url, http_client=http), mode=era, **more) as client:
                yield client


@pytest.fixture
async def s(tmp_path):
    upstream = ScriptedUpstream()
    upstream.tools.append(STRUCTURED)
    async with world(tmp_path, policy=POLICY, upstreams=[upstream]) as w:
        gateway = Gateway(w.parts, w.broker, w.doorman, Attempts(w.parts.writer, w.parts.audit), "0.1.0")
        async with served_face(gateway) as url:
            yield Setting(w, url, tmp_path)


def reason(result):
    assert result.is_error
    return result.meta[META_KEY]["reasons"][0]["code"]


@ERAS
@pytest.mark.promise("P11", "R22")
async def test_only_granted_tools_are_listed_with_every_field_they_came_with(s, era):
    async with s.client(await s.token(), era) as client:
        tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == ["payments__charge", "payments__quote"]
    quote = tools[1].model_dump(by_alias=True, exclude_none=True)
    for key in ("title", "description", "inputSchema", "outputSchema", "icons"):
        assert quote[key] == STRUCTURED[key]


@pytest.mark.promise("P11")
async def test_a_list_is_private_in_one_page_and_raw_to_the_last_null(s):
    token = await s.token()
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {"Authorization": f"Bearer {token}", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    request: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    async with httpx2.AsyncClient() as http:
        result = (await http.post(s.url, json=request, headers=headers)).json()["result"]
        request["params"]["cursor"] = "2"
        beyond = (await http.post(s.url, json=request, headers=headers)).json()
    quote = result["tools"][1]
    assert quote["_meta"].pop("io.haltline/price")["text"] == "0.00"
    assert quote == {**STRUCTURED, "name": "payments__quote"}
    assert (result["cacheScope"], result["ttlMs"], result["resultType"]) == ("private", 0, "complete")
    assert beyond["error"]["code"] == -32602


@pytest.mark.promise("P11", "R6")
async def test_what_a_list_is_kept_for_is_its_grant_its_prices_and_the_policy(s):
    """What is made once for all grants is never told to one whose prices or tools are others."""
    policies = s.folder / "policies" / "policy.yaml"
    agents = {handle: await s.w.agent(handle, "experimental") for handle in ("bot", "vip")}
    tokens = {handle: (await s.w.session(agent))[1] for handle, agent in agents.items()}
    tokens["narrow"] = (await s.w.session(agents["bot"], tools=("payments__quote",)))[1]

    async def listed() -> dict[str, dict[str, str]]:
        found = {}
        for name, token in tokens.items():
            async with s.client(token, "auto") as client:
                tools = (await client.list_tools()).tools
            found[name] = {tool.name: tool.meta["io.haltline/price"]["text"] for tool in tools}
        return found

    both = {"payments__charge": "0.05", "payments__quote": "0.00"}
    assert await listed() == {"bot": both, "vip": both, "narrow": {"payments__quote": "0.00"}}
    dearer = policies.read_text().replace('{price: "0.05"}', '{price: "0.07", price_for: {agents: {vip: "0.01"}}}')
    policies.write_text(dearer.replace('"payments__quote"]', '"payments__slow"]'))
    assert s.w.parts.policies.reload()
    assert await listed() == {
        "bot": {"payments__charge": "0.07", "payments__slow": "0.10"},
        "vip": {"payments__charge": "0.01", "payments__slow": "0.10"},
        "narrow": {},
    }


@ERAS
@pytest.mark.promise("P11")
async def test_structured_content_and_meta_pass(s, era):
    async def quote(call):
        s.w.upstream.send(call)
        return text_result("5", structuredContent={"price": 5.5, "big": 2**60}, _meta={"vendor.example/x": [1]})

    s.w.upstream.script["quote"] = quote
    async with s.client(await s.token(), era) as client:
        await client.list_tools()
        result = await client.call_tool("payments__quote", {"n": 1})
    assert result.structured_content == {"price": 5.5, "big": 2**60}
    assert result.meta["vendor.example/x"] == [1]


@ERAS
@pytest.mark.promise("R22")
async def test_a_refusal_is_a_readable_result_also_where_the_tool_has_an_output_schema(s, era):
    async with s.client(await s.token(), era) as client:
        await client.list_tools()
        bad = await client.call_tool("payments__quote", {"n": "many"})
        assert reason(bad) == "args.schema"
        assert bad.structured_content is None
        outside = await client.call_tool("payments__slow", {})
        assert reason(outside) == "scope.tool"
        assert outside.content[0].text.startswith("Denied [scope.tool]:")


@ERAS
@pytest.mark.promise("R22")
async def test_a_name_that_no_upstream_has_is_a_protocol_error(s, era):
    async with s.client(await s.token(), era) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("payments__nothing", {})
    assert caught.value.error.code == -32602


@ERAS
@pytest.mark.promise("R22", "P4")
async def test_while_halted_the_list_stays_and_every_call_says_the_cause(s, era):
    async with s.client(await s.token(), era) as client:
        results = [await client.call_tool("payments__charge", {}) for _ in range(12)]
        assert [reason(result) for result in results[10:]] == ["budget.task_exceeded", "session.halted"]
        assert "budget.task_exceeded" in results[11].content[0].text
        assert len((await client.list_tools()).tools) == 2


@ERAS
@pytest.mark.promise("R23")
async def test_a_dead_credential_connects_lists_nothing_and_is_told_why(s, era):
    agent = await s.w.agent()
    session, token = await s.w.session(agent)
    await s.w.run(lambda tx: s.w.parts.identity.revoke_session(tx, session))
    async with s.client(token, era) as client:
        assert (await client.list_tools()).tools == []
        assert reason(await client.call_tool("payments__charge", {})) == "session.revoked"


@ERAS
@pytest.mark.promise("P11")
async def test_progress_arrives_in_order_before_the_result_under_the_callers_own_token(s, era):
    async def slow(call):
        s.w.upstream.send(call)
        token = call.params["_meta"]["progressToken"]
        for step in range(20):
            params = {"progressToken": token, "progress": step, "total": 20}
            call.on_notification({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        return text_result()

    s.w.upstream.script["slow"] = slow
    seen = []

    async def note(progress, total, message):
        seen.append(progress)

    async with s.client(await s.token("roomy"), era) as client:
        await client.call_tool("payments__slow", {}, progress_callback=note)
    assert seen == sorted(seen)
    assert len(seen) == 20


@ERAS
@pytest.mark.promise("P11", "P7")
async def test_a_client_that_gives_up_cancels_its_call_and_the_outcome_is_recorded(s, era):
    s.w.upstream.script["slow"] = s.w.upstream.waiting
    async with s.client(await s.token("roomy"), era) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "payments__slow", {})
            await s.w.upstream.started.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(30):
            while not await s.w.events("call.in_doubt"):
                pass
        await client.list_tools()


@pytest.mark.promise("R23")
async def test_attempts_with_unknown_tokens_become_one_event_with_a_count(tmp_path):
    async with world(tmp_path, policy=POLICY) as w:
        attempts = Attempts(w.parts.writer, w.parts.audit)
        gateway = Gateway(w.parts, w.broker, w.doorman, attempts, "0.1.0")
        async with served_face(gateway) as url, httpx2.AsyncClient(headers={"Authorization": "Bearer x"}) as http:
            for method in ("initialize", "tools/list", "tools/call", "ping", "nonsense"):
                request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "a"}}
                assert (await http.post(url, json=request)).status_code == 401
        await attempts.flush()
        await attempts.flush()
        events = await w.events("credential.refused")
    assert [(event["actor"], event["code"], event["count"]) for event in events] == [
        ("unknown:127.0.0.1", "credential.malformed", 5)
    ]


def test_the_result_type_follows_the_callers_era():
    assert for_era(text_result(), modern=True)["result"]["resultType"] == "complete"
    assert for_era({"result": {"resultType": "complete", "a": None}}, modern=False) == {"result": {"a": None}}
    assert for_era({"result": {"resultType": "other"}}, modern=True) == {"result": {"resultType": "other"}}
    assert for_era({"error": {"code": 1}}, modern=True) == {"error": {"code": 1}}


@ERAS
@pytest.mark.promise("P3", "R17")
async def test_while_halted_no_upstream_is_asked_for_a_list_and_a_stopped_list_is_withheld(s, era):
    s.w.upstream.capabilities["resources"] = {}
    agent = await s.w.agent("lister", "roomy")
    session, token = await s.w.session(agent)
    async with s.client(token, era) as client:
        s.w.upstream.script["resources/list"] = s.w.upstream.waiting
        got = []
        async with anyio.create_task_group() as tasks:

            async def ask():
                got.append(await client.list_resources())

            tasks.start_soon(ask)
            await s.w.upstream.started.wait()
            s.w.parts.calls.stop(session_ids=[session], reason=Reason("session.halted", "halted by anna"))
            s.w.upstream.release.set()
        assert got[0].resources == []
        await s.w.run(
            lambda tx: s.w.parts.halts.set(tx, "session", session, code="operator.halt", text="x", by="operator:a")
        )
        sent = len(s.w.upstream.sent)
        assert (await client.list_resources()).resources == []
        assert len(s.w.upstream.sent) == sent


@pytest.mark.promise("R23")
async def test_nobody_learns_anything_without_a_credential_not_even_what_is_wrong(s):
    async with httpx2.AsyncClient(headers={"Authorization": "Bearer x"}) as http:
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "payments__charge"}}
        for headers in (
            {"Mcp-Session-Id": "made.up"},
            {"MCP-Protocol-Version": "2026-07-28"},
            {"MCP-Protocol-Version": "1"},
        ):
            assert (await http.post(s.url, json=request, headers=headers)).status_code == 401
