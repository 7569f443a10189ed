"""`haltline stdio` when something is wrong: what the host is answered, what standard error says, and what is repeated."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from support.fake_endpoint import SESSION
from support.stdio_host import INITIALIZE, META, TOKEN, stdio_host

MIB = 1024 * 1024
SECRET = TOKEN.rsplit("_", 1)[1]


def _text(answer):
    """What a refused call tells the model."""
    assert answer["result"]["isError"] is True
    return answer["result"]["content"][0]["text"]


# the broker is away


@pytest.mark.promise("P7")
async def test_while_nothing_listens_the_host_is_told_that_nothing_was_sent_and_the_next_request_tries_again(
    endpoint, host
):
    await host.handshake()
    await endpoint.arrived("GET")
    await endpoint.stop()
    await host.call("pay", 1, {"a": 1})
    answer = await host.read()
    assert _text(answer).startswith(f"Denied [broker.unreachable]: Haltline cannot be reached at {endpoint.url}: ")
    assert "Nothing was sent" in _text(answer)
    refusal = answer["result"]["_meta"]["io.haltline/refusal"]
    assert (refusal["decision"], refusal["reasons"][0]["retryable"]) == ("denied", True)
    await host.call("pay", 2, {"a": 1}, modern=True)
    assert (await host.read())["result"]["resultType"] == "complete"
    await host.ask("tools/list", 3)
    answer = await host.read()
    assert answer["error"]["data"] == {"code": "broker.unreachable"}
    assert "Nothing was sent" in answer["error"]["message"]
    await endpoint.start()
    await host.call("pay", 4, {"a": 1})
    assert (await host.read())["result"]["content"][0]["text"] == "tools/call"
    host.close()
    code, _, said = await host.ended()
    assert code == 0
    assert said.count("Haltline cannot be reached") == 1  # once, not for every request


@pytest.mark.promise("P7")
@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("after", ["the request", "a notification"])
async def test_a_call_whose_connection_breaks_may_have_run_and_is_not_sent_again(endpoint, host, modern, after):
    async def call(asked):
        if after == "a notification":
            await asked.begin()
            await asked.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
        asked.cut()

    endpoint.on["tools/call"] = call
    await host.call("pay", 1, modern=modern)
    if after == "a notification":
        await host.read()
    answer = await host.read()
    assert "it may have been carried out" in _text(answer)
    assert "Do not retry" in _text(answer)
    assert answer["result"]["_meta"]["io.haltline/refusal"]["decision"] == "unknown"
    assert len(endpoint.of("tools/call")) == 1


async def test_a_stream_that_ends_without_its_answer_is_said(endpoint, host):
    async def call(asked):
        await asked.begin()
        await asked.end()

    endpoint.on["tools/call"] = call
    await host.call("pay", 1)
    assert "may have been carried out" in _text(await host.read())


async def test_a_list_before_a_call_that_fails_leaves_the_call_unsent(endpoint, host):
    async def listing(asked):
        asked.cut()

    endpoint.on["tools/list"] = listing
    await host.call("pay", 1, {"a": 1}, modern=True)
    assert "Nothing was sent" in _text(await host.read())
    assert endpoint.of("tools/call") == []


# the session ended


@pytest.mark.parametrize("method", ["tools/call", "tools/list"])
async def test_an_ended_session_is_opened_again_once_and_the_host_does_not_notice(endpoint, host, method):
    live = ["one"]

    async def initialize(asked):
        agreed = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
        await asked.result(agreed, Mcp_Session_Id=live[-1])

    async def answer(asked):
        if asked.headers["mcp-session-id"] != live[-1]:
            await asked.reply(404, b"this MCP session has ended")
        else:
            await asked.result({"content": [], "tools": []})

    endpoint.on |= {"initialize": initialize, method: answer}
    await host.handshake()
    await endpoint.arrived("GET")
    live.append("two")
    for identifier in range(1, 9):
        await host.ask(method, identifier, {"name": "pay", "arguments": {}})
    assert {(await host.read())["id"] for _ in range(8)} == set(range(1, 9))
    assert [one.message for one in endpoint.of("initialize")] == [INITIALIZE, INITIALIZE]
    assert len(endpoint.of("notifications/initialized")) == 2
    assert (await endpoint.arrived("GET", 2)).headers["mcp-session-id"] == "two"


async def test_a_session_that_always_ends_is_said_and_not_tried_for_ever(endpoint, host):
    async def answer(asked):
        await asked.reply(404, b"this MCP session has ended")

    endpoint.on["tools/call"] = answer
    await host.handshake()
    await host.call("pay", 1)
    assert "[bridge.session_ended]" in _text(await host.read())
    assert len(endpoint.of("tools/call")) == 2


async def test_a_session_that_comes_back_with_another_revision_is_not_taken(endpoint, host):
    async def initialize(asked):
        version = "2025-11-25" if len(endpoint.of("initialize")) == 1 else "2025-03-26"
        agreed = {"protocolVersion": version, "capabilities": {}, "serverInfo": {}}
        await asked.result(agreed, Mcp_Session_Id=SESSION)

    async def answer(asked):
        await asked.reply(404, b"this MCP session has ended")

    endpoint.on |= {"initialize": initialize, "tools/call": answer}
    await host.handshake()
    await host.call("pay", 1)
    assert "restart this host's connection" in _text(await host.read())


# the credential


async def _unauthorized(asked):
    said = {"error": "credential.revoked", "error_description": "This credential was revoked."}
    await asked.reply(401, said, WWW_Authenticate='Bearer error="invalid_token"')


async def test_a_dead_credential_is_named_with_the_way_to_a_new_one_and_its_secret_is_not(endpoint, host):
    endpoint.on |= {"initialize": _unauthorized, "tools/call": _unauthorized}
    await host.send(INITIALIZE)
    answer = await host.read()
    assert answer["id"] == 0
    assert answer["error"]["data"] == {"code": "credential.revoked"}
    told = answer["error"]["message"]
    for word in ("HALTLINE_TOKEN (hl_a_0123456789ab_…)", "This credential was revoked", "haltline agents reissue"):
        assert word in told
    await host.call("pay", 1)
    assert _text(await host.read()).startswith("Denied [credential.revoked]: Haltline does not accept ")
    host.close()
    code, _, said = await host.ended()
    assert code == 0
    assert told in said
    assert SECRET not in said + told


async def test_without_a_credential_every_request_is_answered_with_what_is_missing(tmp_path):
    async with stdio_host("http://127.0.0.1:9/mcp", token=None, folder=tmp_path) as host:
        await host.send(INITIALIZE)
        assert "set HALTLINE_TOKEN or HALTLINE_TOKEN_FILE" in (await host.read())["error"]["message"]
        await host.call("pay", 1)
        assert _text(await host.read()).startswith("Denied [client.setting]: no credential: ")
        await host.notify("notifications/initialized")
        host.close()
        code, _, said = await host.ended()
    assert code == 3
    assert "set HALTLINE_TOKEN or HALTLINE_TOKEN_FILE" in said


@pytest.mark.promise("P9")
@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("http://127.0.0.1:9/mcp", "hl_o_0123456789ab_" + SECRET, "an operator's credential"),
        ("http://haltline.example/mcp", TOKEN, "unencrypted"),
        ("ftp://127.0.0.1/mcp", TOKEN, "is not an agents' URL"),
        ("http://127.0.0.1:9/mcp", "two words", "a space or an unprintable character"),
    ],
)
async def test_what_would_be_unsafe_is_not_sent(url, token, words):
    async with stdio_host(url, token=token) as host:
        await host.send(INITIALIZE)
        assert words in (await host.read())["error"]["message"]
        host.close()
        code, _, said = await host.ended()
    assert code == 3
    assert SECRET not in said


async def test_a_credential_file_that_others_can_read_is_not_used(tmp_path):
    file = tmp_path / "bot.token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    async with stdio_host("http://127.0.0.1:9/mcp", "--token-file", str(file), token=None) as host:
        await host.send(INITIALIZE)
        assert f"chmod 600 {file}" in (await host.read())["error"]["message"]


# other answers


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, b"this listener does not answer to that Host", "does not answer to that Host"),
        (404, b"", "answered HTTP 404. Is that the agents' listener"),
        (200, b"<html>", "answered HTTP 200: <html>. Is that"),
        (502, b"\x1b[2Jbad gateway", "HTTP 502: [2Jbad gateway"),
    ],
)
async def test_what_is_no_mcp_answer_is_told_in_a_sentence(endpoint, host, status, body, words):
    async def answer(asked):
        await asked.reply(status, body)

    endpoint.on["tools/list"] = answer
    await host.ask("tools/list", 1)
    assert words in (await host.read())["error"]["message"]


async def test_an_error_about_a_message_that_the_broker_could_not_read_reaches_its_request(endpoint, host):
    async def answer(asked):
        await asked.reply(400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "twice", "data": 1}})

    endpoint.on["tools/call"] = answer
    await host.call("pay", 1)
    assert await host.read() == {"jsonrpc": "2.0", "id": 1, "error": {"code": -32700, "message": "twice", "data": 1}}


# bounds


@pytest.mark.parametrize("as_stream", [False, True])
async def test_an_answer_beyond_the_limit_is_told_to_have_run_and_a_large_one_passes(endpoint, host, as_stream):
    async def call(asked):
        size = asked.message["params"]["arguments"]["mib"] * MIB
        value = {"jsonrpc": "2.0", "id": asked.id, "result": {"text": "x" * size}}
        if as_stream:
            await asked.begin()
            await asked.event(value)
            await asked.end()
        else:
            await asked.reply(200, value)

    endpoint.on["tools/call"] = call
    await host.call("large", 1, {"mib": 15})
    assert len((await host.read())["result"]["text"]) == 15 * MIB
    await host.call("large", 2, {"mib": 17})
    assert _text(await host.read()).startswith("Unknown [answer.too_large]: the answer is larger than 16 MiB")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_a_host_that_does_not_read_makes_the_broker_wait_and_memory_stays(endpoint, host):
    """Forty streams of 1 MiB notifications without end, none of them read."""
    written: list[int] = []
    stuck = asyncio.Event()

    async def call(asked):
        await asked.begin()
        while True:
            try:
                async with asyncio.timeout(2):
                    await asked.event({"jsonrpc": "2.0", "method": "notifications/message", "params": "x" * MIB})
            except TimeoutError:
                written.append(1)
                if len(written) == 40:
                    stuck.set()
                await asked.gone()
                return

    endpoint.on["tools/call"] = call
    await host.handshake()
    before = _resident_mb(host.process.pid)
    for identifier in range(1, 41):
        await host.call("flood", identifier)
    async with asyncio.timeout(30):
        await stuck.wait()
    assert _resident_mb(host.process.pid) - before < 100
    # What is read makes room again.
    assert (await host.read())["method"] == "notifications/message"


async def test_more_requests_than_can_wait_are_told_so_and_the_others_are_answered(endpoint, host):
    go_on = asyncio.Event()

    async def call(asked):
        await go_on.wait()
        await asked.result({"content": []})

    endpoint.on["tools/call"] = call
    for identifier in range(257):
        await host.call("held", identifier)
    answer = await host.read()
    assert answer["id"] == 256
    assert "[bridge.busy]" in _text(answer)
    await endpoint.arrived("tools/call", 256)
    go_on.set()
    assert {(await host.read())["id"] for _ in range(256)} == set(range(256))


async def test_nothing_of_a_modern_host_s_envelope_is_lost_in_the_bridge_s_own_list(endpoint, host):
    await host.call("pay", 1, {"a": 1}, modern=True)
    await host.read()
    assert endpoint.of("tools/list")[0].message["params"] == {"_meta": META}


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB
