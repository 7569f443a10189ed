"""`haltline stdio` between a host's pipes and a scripted endpoint: what passes, in both eras, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from support.certificates import certificate
from support.fake_endpoint import SESSION, fake_endpoint
from support.stdio_host import INITIALIZE, META, TOKEN, stdio_host

MIB = 1024 * 1024


# what passes


async def test_a_handshake_keeps_its_session_and_its_revision(endpoint, host):
    answer = await host.handshake()
    assert answer["result"]["protocolVersion"] == "2025-11-25"
    await host.ask("tools/list", 1)
    await host.read()
    asked = await endpoint.arrived("tools/list")
    assert asked.headers["mcp-session-id"] == SESSION
    assert asked.headers["mcp-protocol-version"] == "2025-11-25"
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert [one.what for one in endpoint.asked if one.verb == "POST"] == [
        "initialize",
        "notifications/initialized",
        "tools/list",
    ]
    assert "mcp-session-id" not in endpoint.of("initialize")[0].headers


@pytest.mark.promise("P11")
async def test_messages_pass_byte_for_byte_in_both_directions(endpoint, host):
    body = b'{"id":7, "jsonrpc":"2.0","method":"odd/method","params":{"n":null,"big":%s,"x":1e2,"u":"\xc3\xa9\\u00e9"},"extra":[]}'
    body %= b"9" * 5_000
    said = b'{"result":{"a":null,"big":%s,"unknown":{"z":1.0}},"jsonrpc":"2.0","id":7,"more":null}' % (b"8" * 5_000)

    async def answer(asked):
        await asked.reply(200, said)

    endpoint.on["odd/method"] = answer
    await host.send(body)
    assert await host.line() == said + b"\n"
    assert endpoint.of("odd/method")[0].body == body


async def test_an_answer_of_several_lines_becomes_one(endpoint, host):
    async def answer(asked):
        await asked.begin()
        pretty = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"text": "a\nb"}}, indent=1)
        await asked.chunk(b"".join(b"data: " + line + b"\r\n" for line in pretty.encode().split(b"\n")) + b"\r\n")
        await asked.end()

    endpoint.on["tools/list"] = answer
    await host.ask("tools/list", 1)
    assert (await host.read())["result"] == {"text": "a\nb"}


async def test_answers_come_as_they_are_ready_and_progress_before_its_result(endpoint, host):
    go_on = asyncio.Event()

    async def answer(asked):
        if asked.message["params"]["name"] == "quick":
            await asked.result({"content": []})
            return
        await asked.begin()
        for step in range(3):
            await asked.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": step}})
        await go_on.wait()
        await asked.event({"jsonrpc": "2.0", "id": asked.id, "result": {"content": []}})
        await asked.end()

    endpoint.on["tools/call"] = answer
    await host.call("slow", "1")
    for step in range(3):
        assert (await host.read())["params"]["progress"] == step
    await host.call("quick", 1)
    assert (await host.read())["id"] == 1
    go_on.set()
    assert (await host.read())["id"] == "1"


async def test_what_the_broker_asks_on_a_stream_reaches_the_host_and_its_answer_goes_back(endpoint, host):
    async def answer(asked):
        await asked.begin()
        await asked.event({"jsonrpc": "2.0", "id": "e-1", "method": "elicitation/create", "params": {"message": "?"}})
        reply = await endpoint.arrived("response")
        await asked.event(
            {"jsonrpc": "2.0", "id": asked.id, "result": {"content": [], "said": reply.message["result"]}}
        )
        await asked.end()

    endpoint.on["tools/call"] = answer
    await host.handshake()
    await host.call("asks", 4)
    assert (await host.read())["method"] == "elicitation/create"
    await host.send({"jsonrpc": "2.0", "id": "e-1", "result": {"action": "accept"}})
    assert (await host.read())["result"]["said"] == {"action": "accept"}
    assert endpoint.of("response")[0].headers["mcp-session-id"] == SESSION


async def test_the_standing_stream_is_read_and_opened_again_where_there_is_one(endpoint, host):
    async def answer(asked):
        await asked.begin()
        await asked.chunk(b"retry: 250\nid: n-%d\n\n" % len(endpoint.of("GET")))
        await asked.event(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": len(endpoint.of("GET"))}}
        )
        await asked.end()

    endpoint.on["GET"] = answer
    await host.handshake()
    assert [(await host.read())["params"]["n"] for _ in range(2)] == [1, 2]
    assert endpoint.of("GET")[0].headers["mcp-session-id"] == SESSION
    assert endpoint.of("GET")[1].headers["last-event-id"] == "n-1"


async def test_no_standing_stream_is_no_trouble(endpoint, host):
    await host.handshake()
    await endpoint.arrived("GET")
    await host.ask("ping", 1)
    await host.read()
    host.close()
    code, _, said = await host.ended()
    assert (code, said, len(endpoint.of("GET"))) == (0, "", 1)


# headers of 2026-07-28


TOOLS = [
    {"name": "plain", "inputSchema": {"type": "object"}},
    {
        "name": "région",
        "inputSchema": {
            "type": "object",
            "properties": {
                "where": {"type": "string", "x-mcp-header": "Region"},
                "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            },
        },
    },
]


async def test_headers_say_what_the_body_says_and_the_tools_are_listed_once(endpoint, host):
    async def listing(asked):
        page = asked.message["params"].get("cursor")
        await asked.result({"tools": TOOLS[1:]} if page else {"tools": TOOLS[:1], "nextCursor": "2"})

    endpoint.on["tools/list"] = listing
    for identifier in (1, 2):
        await host.call("région", identifier, {"where": "Zürich", "deep": {"n": 3}}, modern=True)
        await host.read()
    await host.call("plain", 3, {"a": 1}, modern=True)
    await host.read()
    await host.call("not there", 4, {"a": 1}, modern=True)
    await host.read()
    await host.call("not there", 5, {"a": 1}, modern=True)
    await host.read()
    assert len(endpoint.of("tools/list")) == 4  # two pages, and once more for a name that nobody knows
    called = endpoint.of("tools/call")[0].headers
    assert called["mcp-protocol-version"] == "2026-07-28"
    assert called["mcp-method"] == "tools/call"
    assert called["mcp-name"] == "=?base64?csOpZ2lvbg==?="
    assert called["mcp-param-region"] == "=?base64?WsO8cmljaA==?="
    assert called["mcp-param-n"] == "3"
    assert endpoint.of("tools/list")[0].message["params"]["_meta"] == META
    assert "mcp-session-id" not in called


async def test_a_list_that_passes_by_is_learnt_from(endpoint, host):
    async def listing(asked):
        await asked.result({"tools": TOOLS})

    endpoint.on["tools/list"] = listing
    await host.ask("tools/list", 1, modern=True)
    await host.read()
    await host.call("région", 2, {"where": "here"}, modern=True)
    await host.read()
    assert endpoint.of("tools/call")[0].headers["mcp-param-region"] == "here"
    assert len(endpoint.of("tools/list")) == 1


async def test_a_changed_definition_is_listed_anew_and_the_call_repeated_once(endpoint, host):
    async def listing(asked):
        await asked.result(
            {"tools": TOOLS if len(endpoint.of("tools/list")) > 1 else [{**TOOLS[1], "inputSchema": {}}]}
        )

    async def call(asked):
        if "mcp-param-region" in asked.headers:
            await asked.result({"content": []})
        else:
            await asked.error(-32020, "the header is missing")

    endpoint.on |= {"tools/list": listing, "tools/call": call}
    await host.call("région", 1, {"where": "here"}, modern=True)
    assert (await host.read())["result"] == {"content": []}
    await host.call("région", 2, {}, modern=True)
    assert (await host.read())["error"]["code"] == -32020
    assert len(endpoint.of("tools/call")) == 3


# cancelling and leaving


async def _held(asked):
    await asked.gone()


async def test_at_2026_07_28_a_cancelled_request_is_closed_and_not_answered(endpoint, host):
    closed = asyncio.Event()

    async def held(asked):
        await asked.gone()
        closed.set()

    endpoint.on["tools/call"] = held
    await host.call("held", 1, modern=True)
    await endpoint.arrived("tools/call")
    await host.notify("notifications/cancelled", {"requestId": 1})
    async with asyncio.timeout(10):
        await closed.wait()
    await host.ask("tools/list", 2, modern=True)
    assert (await host.read())["id"] == 2
    assert endpoint.of("notifications/cancelled") == []


async def test_in_the_handshake_era_a_cancellation_is_forwarded(endpoint, host):
    async def call(asked):
        notice = await endpoint.arrived("notifications/cancelled")
        await asked.result({"reason": notice.message["params"]["reason"]})

    endpoint.on["tools/call"] = call
    await host.handshake()
    await host.call("held", 1)
    await host.notify("notifications/cancelled", {"requestId": 1, "reason": "enough"})
    assert (await host.read())["result"] == {"reason": "enough"}
    order = [one.what for one in endpoint.asked]
    assert order.index("tools/call") < order.index("notifications/cancelled")
    (notice,) = endpoint.of("notifications/cancelled")
    before = [one.connection for one in endpoint.asked if one is not notice]
    assert notice.connection not in before  # one that was accepted long ago could be read before the call's


@pytest.mark.parametrize("how", ["the host closes", "SIGTERM"])
async def test_when_the_host_ends_calls_are_cancelled_and_the_session_is_deleted_within_a_second(endpoint, host, how):
    closed = asyncio.Event()

    async def held(asked):
        await asked.gone()
        closed.set()

    endpoint.on["tools/call"] = held
    await host.handshake()
    await host.call("held", 1)
    await endpoint.arrived("tools/call")
    await host.call("held", 2, modern=True)
    await endpoint.arrived("tools/call", 2)
    if how == "SIGTERM":
        host.process.send_signal(signal.SIGTERM)
    else:
        host.close()
    code, took, said = await host.ended()
    assert (code, said) == (0, "")
    assert took < 5
    assert endpoint.of("notifications/cancelled")[0].message["params"]["requestId"] == 1
    assert endpoint.of("DELETE")[0].headers["mcp-session-id"] == SESSION
    async with asyncio.timeout(10):
        await closed.wait()


async def test_a_broker_that_hangs_does_not_hold_the_end(endpoint, host):
    await host.handshake()
    endpoint.on |= {"tools/call": _held, "notifications/cancelled": _held, "DELETE": _held}
    await host.call("held", 1)
    await endpoint.arrived("tools/call")
    host.close()
    code, took, _ = await host.ended()
    assert code == 0
    assert took < 5


async def test_a_cancelled_request_that_is_closed_without_an_answer_is_none(endpoint, host):
    async def call(asked):
        await endpoint.arrived("notifications/cancelled")
        asked.cut()

    endpoint.on["tools/call"] = call
    await host.handshake()
    await host.call("held", 1)
    await host.notify("notifications/cancelled", {"requestId": 1})
    await endpoint.arrived("notifications/cancelled")
    await host.ask("tools/list", 2)
    assert (await host.read())["id"] == 2
    host.close()
    code, _, said = await host.ended()
    assert (code, said) == (0, "")


async def test_a_host_that_stops_reading_for_good_ends_the_bridge(endpoint, host):
    await host.handshake()
    host.process._transport.get_pipe_transport(1).close()
    await host.ask("tools/list", 1)
    code, _, said = await host.ended()
    assert (code, said) == (0, "")
    assert len(endpoint.of("DELETE")) == 1


async def test_over_tls_only_a_trusted_certificate_gets_anything(tmp_path):
    server, _ = certificate(tmp_path, "localhost")
    async with fake_endpoint(server) as endpoint:
        url = f"https://localhost:{endpoint.port}/mcp"
        async with stdio_host(url, SSL_CERT_FILE=str(tmp_path / "cert.pem")) as host:
            assert "result" in await host.handshake()
        async with stdio_host(url) as host:
            await host.send(INITIALIZE)
            assert "Nothing was sent" in (await host.read())["error"]["message"]
    assert len(endpoint.of("initialize")) == 1


# what a host may get wrong


async def test_broken_lines_are_answered_and_not_fatal(endpoint, host):
    wrong = [
        (b"{broken", -32700, None),
        (b'"\xff"', -32700, None),
        (b"[" * 100_000, -32700, None),
        (b"[]", -32600, None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"a"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":9,"method":null}', -32600, 9),
        (b'{"a":"' + b"x" * (4 * MIB) + b'"}', -32600, None),
    ]
    for line, code, identifier in wrong:
        await host.send(line)
        answer = await host.read()
        assert (answer["error"]["code"], answer["id"]) == (code, identifier), line[:40]
    await host.send(b"\r\n  ")
    await host.ask("tools/list", 3)
    assert (await host.read())["id"] == 3
    assert [one.what for one in endpoint.asked] == ["tools/list"]


async def test_an_id_in_use_is_refused_and_free_again_after_its_answer(endpoint, host):
    go_on = asyncio.Event()

    async def call(asked):
        await go_on.wait()
        await asked.result({"content": []})

    endpoint.on["tools/call"] = call
    await host.call("a", 1)
    await host.call("a", 1)
    assert "still being answered" in (await host.read())["error"]["message"]
    go_on.set()
    assert (await host.read())["result"] == {"content": []}
    await host.call("a", 1)
    assert (await host.read())["result"] == {"content": []}


async def test_initialize_goes_out_as_it_came(endpoint, host):
    await host.send(INITIALIZE)
    await host.read()
    assert endpoint.of("initialize")[0].message == INITIALIZE
