"""A stream that its upstream closes before the answer is taken up where it says; the call is never sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import OutcomeUnknown, UpstreamSpec
from support.nasty_http import NastyHttp, nasty_http
from support.upstream_calls import Sent, closing, text_of


@pytest.fixture
async def older() -> AsyncIterator[NastyHttp]:
    async with nasty_http("handshake") as server:
        yield server


def upstream(server: NastyHttp) -> HttpUpstream:
    return HttpUpstream(UpstreamSpec("shop", url=server.url))


def taken_up(server: NastyHttp) -> list[Any]:
    """The event ids and sessions with which streams were taken up."""
    return [
        (headers["last-event-id"], headers.get("mcp-session-id") in server.sessions)
        for verb, headers, _ in server.requests
        if verb == "GET" and "last-event-id" in headers
    ]


@pytest.mark.promise("P11", "R11")
async def test_a_stream_that_pauses_is_taken_up_as_often_as_it_does_and_the_call_sent_once(older: NastyHttp) -> None:
    sent = Sent()
    async with closing(upstream(older)) as shop:
        assert text_of(await sent(shop, "paused")) == "good"
        assert taken_up(older) == [("first", True), ("second", True)]
    assert [heard["params"]["data"] for heard in sent.heard] == ["first", "second"]
    assert (sent.asked, len(older.calls("paused"))) == (1, 1)


@pytest.mark.promise("P5", "R10")
async def test_a_stream_that_cannot_be_taken_up_is_an_unknown_outcome_and_the_call_is_not_sent_again(
    older: NastyHttp,
) -> None:
    sent = Sent()
    async with closing(upstream(older)) as shop:
        with pytest.raises(OutcomeUnknown) as raised:
            await sent(shop, "paused_and_gone")
        assert taken_up(older) == [("gone", True)]
    assert raised.value.code == "upstream.lost"
    assert (sent.asked, len(older.calls("paused_and_gone"))) == (1, 1)


@pytest.mark.promise("P7", "R10")
async def test_a_stream_that_pauses_for_ever_ends_with_the_call_s_deadline_and_is_called_off(older: NastyHttp) -> None:
    async with closing(upstream(older)) as shop:
        with pytest.raises(OutcomeUnknown) as raised:
            await Sent()(shop, "paused_forever", deadline_s=0.5)
        with anyio.fail_after(30):
            while not older.notices("notifications/cancelled"):
                await anyio.sleep(0.01)
    assert raised.value.code == "upstream.timeout"


@pytest.mark.promise("P5", "R10")
async def test_at_2026_07_28_a_closed_stream_is_the_end_of_its_call() -> None:
    async with nasty_http() as modern, closing(upstream(modern)) as shop:
        with pytest.raises(OutcomeUnknown) as raised:
            await Sent()(shop, "paused")
        assert (raised.value.code, taken_up(modern)) == ("upstream.lost", [])
