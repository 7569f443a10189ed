"""One endpoint, both eras, over real HTTP: negotiation, headers against body, cancelling, ids in flight, hostile bodies."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from haltline.wire import messages
from haltline.wire.eras import IDEMPOTENCY_KEY
from haltline.wire.messages import Unauthorized
from support.serving import served_face

MODERN = "2026-07-28"
SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


class Face:
    """Echoes, waits to be cancelled, reports progress; `dead` is the one token that is nobody's."""

    name = "face"
    version = "1"
    instructions = "for tests"
    capabilities: dict[str, Any] = {"tools": {}}

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.started = anyio.Event()
        self.cancelled = anyio.Event()
        self.release = anyio.Event()

    async def admit(self, token, source):
        return Unauthorized("credential.unknown", "nobody") if token in {None, "dead"} else None

    def mirrored_schema(self, tool):
        return SCHEMA if tool == "regional" else None

    async def handle(self, exchange):
        denied = await self.admit(exchange.token, exchange.source)
        if denied is not None:
            return denied
        self.handled.append(exchange.method)
        if exchange.method != "tools/call":
            cached = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if exchange.modern else {}
            return messages.result({"tools": [], **cached}) if exchange.method == "tools/list" else None
        return await self._call(exchange, exchange.params["name"])

    async def _call(self, exchange, tool):
        if tool == "broken":
            raise ValueError("a secret inside")
        if tool == "progress":
            for step in range(3):
                exchange.notify(
                    {
                        "jsonrpc": "2.0",
                        "method": "notifications/progress",
                        "params": {"progressToken": 1, "progress": step},
                    }
                )
        if tool == "slow":
            scope = anyio.CancelScope()
            exchange.on_cancel = scope.cancel
            with scope:
                self.started.set()
                await self.release.wait()
            if scope.cancelled_caught:
                self.cancelled.set()
                return messages.error(messages.INTERNAL_ERROR, "cancelled")
        content = [{"type": "text", "text": tool}]
        return messages.result({"content": content, **({"resultType": "complete"} if exchange.modern else {})})


class Here(httpx.AsyncClient):
    """A client of one URL."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(**options)
        self._url = url

    def build_request(self, method, url, **options):
        return super().build_request(method, self._url if url == "" else url, **options)


@pytest.fixture
async def face():
    return Face()


@pytest.fixture
async def url(face):
    async with served_face(face) as at:
        yield at


@pytest.fixture
async def http(url):
    async with Here(url, headers={"Authorization": "Bearer alive"}) as client:
        yield client


def _modern(method="tools/call", params=None, *, number=1, key=None, **headers):
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    meta |= {} if key is None else {IDEMPOTENCY_KEY: key}
    params = {**(params if params is not None else {"name": "echo", "arguments": {}}), "_meta": meta}
    sent = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, "Mcp-Name": str(params.get("name", "")), **headers}
    return {"json": {"jsonrpc": "2.0", "id": number, "method": method, "params": params}, "headers": sent}


def _handshake(method="tools/call", params=None, *, number: Any = 1, session="", **headers):
    sent = {"MCP-Protocol-Version": "2025-11-25", **({"Mcp-Session-Id": session} if session else {}), **headers}
    params = params if params is not None else {"name": "echo", "arguments": {}}
    return {"json": {"jsonrpc": "2.0", "id": number, "method": method, "params": params}, "headers": sent}


async def _initialize(http, version="2025-11-25"):
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await http.post("", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    return answer.json()["result"], answer.headers["mcp-session-id"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.promise("P11")
async def test_the_official_client_connects_lists_and_calls_in_either_era(url, mode):
    import httpx2

    async with httpx2.AsyncClient(headers={"Authorization": "Bearer alive"}) as transport:
        async with Client(streamable_http_client(url, http_client=transport), mode=mode) as client:
            assert (await client.list_tools()).tools == []
            result = await client.call_tool("echo", {})
            assert result.content[0].text == "echo"


@pytest.mark.parametrize(
    ("asked", "got"), [("2025-06-18", "2025-06-18"), ("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25")]
)
async def test_the_handshake_agrees_on_a_version_both_know(http, asked, got):
    result, _ = await _initialize(http, asked)
    assert result["protocolVersion"] == got


async def test_discover_names_the_versions_and_is_private(http):
    result = (await http.post("", **_modern("server/discover", {}))).json()["result"]
    assert result["supportedVersions"][0] == MODERN
    assert (result["cacheScope"], result["resultType"]) == ("private", "complete")


MISMATCHES = {
    "another method in the header": {"Mcp-Method": "tools/list"},
    "another tool in the header": {"Mcp-Name": "other"},
    "another version in the header": {"MCP-Protocol-Version": "2025-11-25"},
    "an encoded other tool": {"Mcp-Name": "=?base64?b3RoZXI=?="},
    "an argument that the body lacks": {"Mcp-Param-Region": "eu", "name": "regional"},
}


@pytest.mark.parametrize("headers", MISMATCHES.values(), ids=MISMATCHES)
async def test_a_header_that_disagrees_with_the_body_is_refused_before_the_face(http, face, headers):
    headers = dict(headers)
    name = headers.pop("name", "echo")
    answer = await http.post("", **_modern(params={"name": name, "arguments": {}}, **headers))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    assert face.handled == []


async def test_a_header_given_twice_is_refused(http, face):
    request = _modern()
    headers = [*request["headers"].items(), ("mcp-name", "echo")]
    answer = await http.post("", json=request["json"], headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"], face.handled) == (400, -32020, [])


HOSTILE = {
    "not JSON": (b"{", 400, -32700),
    "a duplicate key": (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', 400, -32700),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', 400, -32700),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, -32600),
    "another JSON-RPC": (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, -32600),
    "a number as method": (b'{"jsonrpc":"2.0","id":1,"method":7}', 400, -32600),
    "a list as params": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 400, -32600),
    "an object as id": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', 400, -32600),
    "true as id": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', 400, -32600),
    "null as id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600),
    "a case-folded method": (b'{"jsonrpc":"2.0","id":1,"Method":"tools/call"}', 400, -32600),
    "5 MiB": (b'"' + b"x" * (5 << 20) + b'"', 413, -32600),
}


@pytest.mark.parametrize(("body", "status", "code"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_body_gets_a_calm_answer_and_reaches_nobody(http, face, body, status, code):
    answer = await http.post("", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert face.handled == []


async def test_content_that_is_not_json_is_refused_by_its_type(http):
    assert (await http.post("", content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
    assert (await http.post("", json={}, headers={"Accept": "image/png"})).status_code == 406


async def test_other_http_methods_are_refused(http):
    answer = await http.get("")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, DELETE")


@pytest.mark.parametrize("method", ["initialize", "ping", "tools/list", "tools/call", "prompts/list", "nonsense"])
@pytest.mark.parametrize("token", ["", "Bearer dead", "Basic YWxpdmU=", "Bearer"])
@pytest.mark.promise("R23")
async def test_every_method_asks_who_calls(http, face, method, token):
    answer = await http.post("", **_handshake(method, Authorization=token))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert face.handled == []


async def test_a_token_in_the_query_is_not_read(url):
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{url}?token=alive&access_token=alive", **_handshake())).status_code == 401


async def test_an_unknown_method_is_method_not_found(http):
    assert (await http.post("", **_handshake("nonsense"))).json()["error"]["code"] == -32601
    assert (await http.post("", **_modern("ping", {}))).json()["error"]["code"] == -32601
    assert (await http.post("", **_modern("initialize", {}))).status_code == 404


async def test_what_breaks_inside_is_not_told(http):
    answer = await http.post("", **_modern(params={"name": "broken"}))
    assert answer.json()["error"]["code"] == -32603
    assert "secret" not in answer.text


async def test_progress_arrives_before_the_result_on_one_stream(http):
    answer = await http.post("", **_modern(params={"name": "progress"}, Accept="application/json, text/event-stream"))
    assert answer.headers["content-type"] == "text/event-stream"
    events = [line for line in answer.text.splitlines() if line.startswith("data:")]
    assert ["progress" in event.split('"method"')[-1] for event in events] == [True, True, True, True]
    assert '"result"' in events[-1]
    assert [f'"progress":{n}' in event for n, event in enumerate(events[:3])] == [True] * 3


async def test_a_client_that_takes_json_alone_gets_the_result_alone(http):
    answer = await http.post("", **_modern(params={"name": "progress"}, Accept="application/json"))
    assert answer.json()["result"]["content"][0]["text"] == "progress"


async def test_at_2026_closing_the_connection_cancels(url, face):
    async with httpx.AsyncClient(headers={"Authorization": "Bearer alive"}) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.post(url, timeout=30, **_modern(params={"name": "slow"})))
            await face.started.wait()
            tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        await face.cancelled.wait()


@pytest.mark.promise("R13")
async def test_with_a_key_closing_the_connection_detaches_and_only_a_notice_with_the_key_cancels(http, url, face):
    async with httpx.AsyncClient(headers={"Authorization": "Bearer alive"}) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.post(url, timeout=30, **_modern(params={"name": "slow"}, key="k-1")))
            await face.started.wait()
            tasks.cancel_scope.cancel()
    slow = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
    for key, token in (("k-2", "alive"), ("k-1", "another"), (7, "alive")):
        told = {**slow, "params": {"requestId": 1, "_meta": {IDEMPOTENCY_KEY: key}}}
        answer = await http.post("", json=told, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 202
    await http.post("", **_modern())
    assert not face.cancelled.is_set()
    told = {**slow, "params": {"requestId": 9, "_meta": {IDEMPOTENCY_KEY: "k-1"}}}
    await http.post("", json=told, headers={"MCP-Protocol-Version": MODERN})
    with anyio.fail_after(30):
        await face.cancelled.wait()


async def test_in_the_handshake_era_only_a_notification_cancels_and_only_ones_own(http, url, face):
    _, session = await _initialize(http)
    async with (
        httpx.AsyncClient(headers={"Authorization": "Bearer alive"}) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(
            lambda: other.post(url, timeout=30, **_handshake(params={"name": "slow"}, number="s1", session=session))
        )
        await face.started.wait()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        _, foreign = await _initialize(http)
        for wanted, key in (("s1", foreign), ("s2", session), ([], session)):
            answer = await http.post(
                "", json={**cancel, "params": {"requestId": wanted}}, headers={"Mcp-Session-Id": key}
            )
            assert answer.status_code == 202
            assert not face.cancelled.is_set()
        await http.post("", json={**cancel, "params": {"requestId": "s1"}}, headers={"Mcp-Session-Id": session})
        with anyio.fail_after(30):
            await face.cancelled.wait()


async def test_a_request_id_that_is_in_flight_is_refused_and_the_first_still_answered(http, face):
    _, session = await _initialize(http)
    answers = []
    async with anyio.create_task_group() as tasks:

        async def slow():
            answers.append(
                await http.post("", timeout=30, **_handshake(params={"name": "slow"}, number=7, session=session))
            )

        tasks.start_soon(slow)
        await face.started.wait()
        second = await http.post("", **_handshake(params={"name": "echo"}, number=7, session=session))
        assert second.json()["error"]["code"] == -32600
        face.release.set()
    assert answers[0].json()["result"]["content"][0]["text"] == "slow"
    assert face.handled.count("tools/call") == 1


async def test_a_session_id_that_ended_or_is_anothers_is_not_found(http):
    _, session = await _initialize(http)
    assert (await http.post("", **_handshake(session=session))).status_code == 200
    assert (await http.post("", **_handshake(session=session + "x"))).status_code == 404
    assert (await http.delete("", headers={"Mcp-Session-Id": session})).status_code == 204
    assert (await http.post("", **_handshake(session=session))).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1@evil.example"])
async def test_a_foreign_host_reaches_nothing(http, face, host):
    assert (await http.post("", **_handshake(Host=host))).status_code == 403
    assert (await http.post("", **_handshake(Origin="http://evil.example"))).status_code == 403
    assert face.handled == []
