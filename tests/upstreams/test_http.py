"""Calls over HTTP, against an upstream that misbehaves on a real port."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.errors import ConfigError
from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import NotSent, OutcomeUnknown, UpstreamSpec
from support.certificates import certificate
from support.nasty_http import MIB, NastyHttp, nasty_http
from support.upstream_calls import ANN, BOB, Sent, closing, text_of


@pytest.fixture
async def nasty() -> AsyncIterator[NastyHttp]:
    async with nasty_http() as server:
        yield server


@pytest.fixture
async def older() -> AsyncIterator[NastyHttp]:
    async with nasty_http("handshake") as server:
        yield server


def upstream(server: NastyHttp, **more: Any) -> HttpUpstream:
    return HttpUpstream(UpstreamSpec("shop", url=server.url, max_result_bytes=2 * MIB, **more))


def listening_port(*, backlog: int) -> tuple[socket.socket, int]:
    bound = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    return bound, bound.getsockname()[1]


MISBEHAVIOUR = {
    "huge": "too_large",
    "huge_declared": "too_large",
    "huge_event": "too_large",
    "flood": "too_large",
    "deep": "malformed",
    "bad_utf8": "malformed",
    "nan": "malformed",
    "not_json": "malformed",
    "no_result": "malformed",
    "html": "malformed",
    "zipped": "malformed",
    "wrong_id": "malformed",
    "wrong_id_streamed": "lost",
    "closes": "lost",
    "half": "lost",
    "not_http": "lost",
    "endless_headers": "lost",
    "endless_trailers": "lost",
    "redirect": "http_error",
    "broken": "http_error",
    "forbidden": "http_error",
}


@pytest.mark.promise("P5", "P7", "R10")
@pytest.mark.parametrize("tool", MISBEHAVIOUR)
async def test_whatever_it_answers_instead_is_an_unknown_outcome_soon_and_a_neighbour_notices_nothing(
    nasty: NastyHttp, tool: str
) -> None:
    async with closing(upstream(nasty)) as shop:
        assert text_of(await Sent()(shop, "good")) == "good"
        sent, began = Sent(), time.monotonic()
        slowest = 0.0

        async def neighbour(scope: anyio.CancelScope) -> None:
            nonlocal slowest
            while True:
                at = time.monotonic()
                assert text_of(await Sent()(shop, "good", caller=BOB)) == "good"
                slowest = max(slowest, time.monotonic() - at)
                await anyio.sleep(0.005)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(neighbour, tasks.cancel_scope)
            with pytest.raises(OutcomeUnknown) as caught:
                await sent(shop, tool)
            took = time.monotonic() - began
            tasks.cancel_scope.cancel()
        assert caught.value.code == f"upstream.{MISBEHAVIOUR[tool]}"
        assert sent.asked == 1
        assert len(nasty.calls(tool)) == 1
        assert took < 20
        assert slowest < 5
        assert text_of(await Sent()(shop, "good")) == "good"


@pytest.mark.promise("R10")
@pytest.mark.parametrize("tool", ["never", "endless", "held"])
async def test_what_does_not_end_ends_with_the_deadline_and_its_connection_is_closed(
    nasty: NastyHttp, tool: str
) -> None:
    async with closing(upstream(nasty)) as shop:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown) as caught:
            await Sent()(shop, tool, deadline_s=0.2)
        assert caught.value.code == "upstream.timeout"
        assert str(caught.value) == "shop did not answer within 0.2 s"
        assert 0.15 < time.monotonic() - began < 4
        nasty.release.set()
        assert text_of(await Sent()(shop, "good")) == "good"


async def test_an_error_status_with_a_json_rpc_error_for_this_request_is_a_plain_answer(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        answer = await Sent()(shop, "refused")
    assert answer == {"error": {"code": -32602, "message": "bad arguments", "data": None}}


@pytest.mark.parametrize("tool", ["one_by_one", "until_closed", "interim"])
async def test_odd_but_legal_answers_arrive(nasty: NastyHttp, tool: str) -> None:
    async with closing(upstream(nasty)) as shop:
        assert text_of(await Sent()(shop, tool)) in {"é", "good"}


@pytest.mark.promise("P9")
async def test_a_redirect_is_not_followed_and_says_so(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        with pytest.raises(OutcomeUnknown, match="redirect"):
            await Sent()(shop, "redirect")
    assert len(nasty.calls()) == 1


@pytest.mark.promise("R11")
async def test_a_refused_connection_is_not_sent() -> None:
    bound, port = listening_port(backlog=1)
    bound.close()
    shop = HttpUpstream(UpstreamSpec("shop", url=f"http://127.0.0.1:{port}/mcp"))
    sent = Sent()
    async with closing(shop):
        with pytest.raises(NotSent) as caught:
            await sent(shop, "good")
        assert caught.value.code == "upstream.unreachable"
        assert str(port) not in str(caught.value)
        assert sent.asked == 0
        with pytest.raises(NotSent):
            await shop.list_tools()


@pytest.mark.promise("R11")
async def test_a_name_that_does_not_resolve_is_not_sent() -> None:
    async with closing(HttpUpstream(UpstreamSpec("shop", url="http://nowhere.invalid/mcp"))) as shop:
        with pytest.raises(NotSent):
            await Sent()(shop, "good", deadline_s=5)


@pytest.mark.promise("R11")
async def test_tls_that_fails_is_not_sent(nasty: NastyHttp) -> None:
    address = nasty.url.replace("http:", "https:")
    async with closing(HttpUpstream(UpstreamSpec("shop", url=address, connect_timeout_s=0.5))) as shop:
        with pytest.raises(NotSent) as caught:
            await Sent()(shop, "good")
        assert caught.value.code == "upstream.unreachable"


@pytest.mark.promise("R11")
async def test_an_upstream_that_never_greets_is_not_sent_within_the_time_for_connecting() -> None:
    bound, port = listening_port(backlog=16)
    with bound:
        spec = UpstreamSpec("shop", url=f"http://127.0.0.1:{port}/mcp", connect_timeout_s=0.2)
        async with closing(HttpUpstream(spec)) as shop:
            began, sent = time.monotonic(), Sent()
            with pytest.raises(NotSent):
                await sent(shop, "good")
            assert time.monotonic() - began < 4
            assert sent.asked == 0


class Stopped(Exception):
    pass


@pytest.mark.promise("R17", "P3")
@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_what_the_final_check_raises_comes_through_and_nothing_was_written(era: str) -> None:
    async with nasty_http(era) as nasty, closing(upstream(nasty)) as shop:
        await Sent()(shop, "good")
        connections = nasty.connections
        for _ in range(3):
            with pytest.raises(Stopped):
                await Sent(refuse=Stopped())(shop, "never")
        assert text_of(await Sent()(shop, "good")) == "good"
        assert nasty.calls("never") == []
        assert nasty.connections == connections


async def test_connections_are_used_again(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        for tool in ["good", "streamed", "good", "refused", "good", "one_by_one", "good"]:
            await Sent()(shop, tool)
        assert nasty.connections <= 2


@pytest.mark.promise("R11")
async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        for _ in range(20):
            await Sent()(shop, "answers_then_closes")
            with anyio.fail_after(30):
                sent = Sent()
                assert text_of(await sent(shop, "good")) == "good"
            assert sent.asked == 1


@pytest.mark.promise("R17")
async def test_cancelling_a_stateless_call_closes_its_stream(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sent(), shop, "endless")
            with anyio.fail_after(30):
                await nasty.arrived.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(4):
            await nasty.closed_by_client.wait()


@pytest.mark.promise("R17")
async def test_cancelling_a_call_in_a_session_is_told_at_once(older: NastyHttp) -> None:
    async with closing(upstream(older)) as shop:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sent(), shop, "never")
            with anyio.fail_after(30):
                await older.arrived.wait()
            began = time.monotonic()
            tasks.cancel_scope.cancel()
        assert time.monotonic() - began < 2
        with anyio.fail_after(4):
            while not older.notices("notifications/cancelled"):
                await anyio.sleep(0.005)
    (told,) = older.notices("notifications/cancelled")
    assert told["params"]["requestId"] == older.calls("never")[0]["id"]


@pytest.mark.promise("P9")
async def test_only_configured_headers_and_the_stamped_envelope_are_sent(nasty: NastyHttp) -> None:
    headers = {"Authorization": "Bearer configured", "X-Team": "é", "Host": "evil", "Accept-Encoding": "gzip"}
    meta = {"traceparent": "00-1", "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    async with closing(upstream(nasty, headers=headers)) as shop:
        await Sent()(shop, "good", meta=meta)
    _, sent, message = next(one for one in nasty.requests if one[2]["method"] == "tools/call")
    assert sent["authorization"] == "Bearer configured"
    assert sent["host"] in nasty.url
    assert sent["accept-encoding"] == "identity"
    assert (sent["mcp-protocol-version"], sent["mcp-method"], sent["mcp-name"]) == ("2026-07-28", "tools/call", "good")
    assert message["params"]["_meta"] == {
        "traceparent": "00-1",
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }


async def test_the_envelope_is_taken_off_for_a_session_of_the_handshake_era(older: NastyHttp) -> None:
    meta = {"progressToken": 0, "io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    async with closing(upstream(older)) as shop:
        await Sent()(shop, "good", meta=meta)
        await Sent()(shop, "good", meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"})
    assert [call["params"].get("_meta") for call in older.calls()] == [{"progressToken": 0}, None]


@pytest.mark.parametrize("token", [0, "t", 7])
async def test_what_belongs_to_the_call_is_heard_in_order_and_before_its_answer(older: NastyHttp, token: Any) -> None:
    changes: list[int] = []
    sent = Sent()
    async with closing(upstream(older)) as shop:
        shop.watch(lambda: changes.append(1))
        await sent(shop, "streamed", meta={"progressToken": token})
        with anyio.fail_after(30):
            while sum(1 for _, _, message in older.requests if message and "method" not in message) < 2:
                await anyio.sleep(0.005)
    assert [one["method"] for one in sent.heard] == ["notifications/progress", "notifications/message"]
    assert sent.heard[0]["params"] == {"progressToken": token, "progress": 1}
    assert changes == [1]
    replies = [message for _, _, message in older.requests if message and "method" not in message]
    assert sorted(replies, key=str) == [
        {"jsonrpc": "2.0", "id": "their-1", "result": {}},
        {"jsonrpc": "2.0", "id": 2, "error": {"code": -32601, "message": "Method not found"}},
    ]


@pytest.mark.promise("R32")
@pytest.mark.parametrize(("isolation", "sessions"), [("agent", 2), ("session", 3), ("shared", 1)])
async def test_sessions_are_shared_only_as_configured(older: NastyHttp, isolation: Any, sessions: int) -> None:
    async with closing(upstream(older, isolation=isolation)) as shop:
        again = type(ANN)(ANN.agent_id, "session_3")
        for caller in (ANN, again, BOB, ANN):
            await Sent()(shop, "good", caller=caller)
        assert len(older.sessions) == sessions
        await shop.forget(ANN, session_only=True)
        assert len(older.sessions) == sessions - (isolation == "session")
        await shop.forget(ANN, session_only=False)
        assert len(older.sessions) == (1 if isolation != "shared" else sessions)
    assert older.sessions == set()


async def test_a_session_is_opened_once_for_many_who_come_at_once(older: NastyHttp) -> None:
    older.initialize_gate = asyncio.Event()
    async with closing(upstream(older)) as shop:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(Sent(), shop, "good")
            with anyio.fail_after(30):
                while not older.notices("initialize"):
                    await anyio.sleep(0.005)
            older.initialize_gate.set()
        assert len(older.notices("initialize")) == 1
        assert len(older.calls()) == 10


@pytest.mark.promise("R17")
async def test_a_call_that_waits_for_its_session_is_not_sent_when_the_agent_is_forgotten(older: NastyHttp) -> None:
    older.initialize_gate = asyncio.Event()
    caught: list[BaseException] = []

    async def call(shop: HttpUpstream) -> None:
        with pytest.raises(NotSent) as error:
            await Sent()(shop, "good")
        caught.append(error.value)

    async with closing(upstream(older)) as shop:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, shop)
                while not older.notices("initialize"):
                    await anyio.sleep(0.005)
                await shop.forget(ANN, session_only=False)
    assert len(caught) == 1
    assert older.calls() == []


async def test_a_session_that_is_gone_is_opened_anew_and_the_call_sent_once_more(older: NastyHttp) -> None:
    async with closing(upstream(older)) as shop:
        await Sent()(shop, "good")
        older.sessions.clear()
        sent = Sent()
        assert text_of(await sent(shop, "good")) == "good"
        assert sent.asked == 2


async def test_the_second_sending_is_asked_for_as_well(older: NastyHttp) -> None:
    class OnlyOnce(Sent):
        def before_send(self) -> None:
            super().before_send()
            if self.asked == 2:
                raise Stopped

    async with closing(upstream(older)) as shop:
        await Sent()(shop, "good")
        older.sessions.clear()
        with pytest.raises(Stopped):
            await OnlyOnce()(shop, "good")


async def test_an_upstream_that_changes_its_era_is_found_out_by_listing() -> None:
    async with nasty_http("modern") as nasty, closing(upstream(nasty)) as shop:
        assert len(await shop.list_tools()) == 1
        nasty.era = "handshake"
        with pytest.raises(OutcomeUnknown):
            await Sent()(shop, "good")
        with pytest.raises(OutcomeUnknown):
            await shop.list_tools()
        assert len(await shop.list_tools()) == 1
        assert text_of(await Sent()(shop, "good")) == "good"


@pytest.mark.promise("R32", "P5")
async def test_an_agent_that_holds_its_half_does_not_keep_another_waiting(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty, max_concurrent=4)) as shop:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(Sent(), shop, "held")
            with anyio.fail_after(30):
                while len(nasty.calls("held")) < 2:
                    await anyio.sleep(0.005)
            with pytest.raises(NotSent) as caught:
                await Sent()(shop, "good", deadline_s=0.1)
            assert caught.value.code == "upstream.busy"
            with anyio.fail_after(4):
                assert text_of(await Sent()(shop, "good", caller=BOB)) == "good"
            nasty.release.set()
        assert text_of(await Sent()(shop, "good")) == "good"


@pytest.mark.promise("R32")
async def test_many_agents_at_once_each_get_their_own_answer(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        crossed = 0

        async def agent(number: int) -> None:
            nonlocal crossed
            for turn in range(20):
                canary = f"{number}/{turn}"
                answer = await Sent()(shop, "good", caller=type(ANN)(f"agent_{number}", "s"), meta={"canary": canary})
                crossed += answer["result"]["_meta"]["canary"] != canary

        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(agent, number)
        assert crossed == 0
        assert len(nasty.calls()) == 640


async def test_a_listener_that_breaks_ends_its_own_call_and_no_other(nasty: NastyHttp) -> None:
    def refuse(message: dict[str, Any]) -> None:
        raise RuntimeError(message["method"])

    async with closing(upstream(nasty)) as shop:
        with pytest.raises(RuntimeError, match="notifications/message"):
            await Sent()(shop, "streamed", on_notification=refuse)
        assert text_of(await Sent()(shop, "good")) == "good"


@pytest.mark.promise("R10")
async def test_closing_ends_calls_in_flight_as_unknown(nasty: NastyHttp) -> None:
    shop = upstream(nasty)
    caught: list[OutcomeUnknown] = []

    async def call() -> None:
        with pytest.raises(OutcomeUnknown) as error:
            await Sent()(shop, "never")
        caught.append(error.value)

    with anyio.fail_after(4):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await nasty.arrived.wait()
            await shop.aclose()
    assert [error.code for error in caught] == ["upstream.lost"]


async def test_a_stream_that_goes_on_after_its_answer_costs_only_its_connection(nasty: NastyHttp) -> None:
    async with closing(upstream(nasty)) as shop:
        for tool in ("answers_and_goes_on", "answers_and_lingers"):
            began = time.monotonic()
            assert text_of(await Sent()(shop, tool)) == "good"
            assert time.monotonic() - began < 4
        with anyio.fail_after(30):
            while shop._line._pool._busy:
                await anyio.sleep(0.02)
        assert text_of(await Sent()(shop, "good")) == "good"


async def test_a_header_with_a_line_break_is_refused_when_it_is_opened(nasty: NastyHttp) -> None:
    with pytest.raises(ConfigError, match="line break"):
        upstream(nasty, headers={"X-A": "b\r\nX-C: d"})


async def test_over_tls_with_the_name_checked(tmp_path: Path) -> None:
    server_side, client_side = certificate(tmp_path, "localhost")
    async with nasty_http(tls=server_side) as nasty:
        spec = UpstreamSpec("shop", url=nasty.url)
        async with closing(HttpUpstream(spec, tls=client_side)) as shop:
            for _ in range(3):
                assert text_of(await Sent()(shop, "good")) == "good"
            assert nasty.connections <= 2
        async with closing(HttpUpstream(spec)) as shop:  # not an authority that the system trusts
            with pytest.raises(NotSent):
                await Sent()(shop, "good")
        elsewhere = UpstreamSpec("shop", url=nasty.url.replace("localhost", "127.0.0.1"))
        async with closing(HttpUpstream(elsewhere, tls=client_side)) as shop:
            with pytest.raises(NotSent):
                await Sent()(shop, "good")
