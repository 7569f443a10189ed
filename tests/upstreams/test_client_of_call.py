"""The agent's own client reaches the upstream: its name, capabilities and log level; what it is asked, it answers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import Caller, Peer, UpstreamCall, UpstreamSpec
from haltline.wire.http import read_body, send_reply
from haltline.wire.strict_json import dumps, parse
from support.serving import served

ANN = Caller("agt_ann", "ses_1")
INFO = {"name": "ann's client", "version": "9"}


class AskingUpstream:
    """A raw upstream of the handshake era (and, where `modern`, of 2026-07-28) that asks its client in every call."""

    def __init__(self, *, modern: bool = False) -> None:
        self.modern = modern
        self.heard: list[dict[str, Any]] = []
        self.answered = anyio.Event()

    async def __call__(self, scope, receive, send):
        if scope["method"] != "POST":
            await send_reply(send, 405)
            return
        message = parse(await read_body(scope, receive, max_bytes=1 << 20, declared=None))
        self.heard.append(message)
        method = message.get("method")
        if method is None:
            self.answered.set()
            await send_reply(send, 202)
        elif method == "server/discover":
            await self._say(
                send, message, {"supportedVersions": ["2026-07-28"], "capabilities": {}} if self.modern else None
            )
        elif method == "initialize":
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "u", "version": "1"},
            }
            await self._say(send, message, result)
        elif method == "tools/call":
            await self._ask(send, message)
        else:
            await self._say(send, message, {})

    async def _say(self, send, message, result):
        if "id" not in message:
            await send_reply(send, 202)
            return
        said = {"error": {"code": -32601, "message": "no"}} if result is None else {"result": result}
        body = dumps({"jsonrpc": "2.0", "id": message["id"], **said})
        await send_reply(send, 200, body, kind=b"application/json", headers=[(b"mcp-session-id", b"s1")])

    async def _ask(self, send, message):
        async def event(value):
            await send({"type": "http.response.body", "body": b"data: " + dumps(value) + b"\n\n", "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        question = {
            "jsonrpc": "2.0",
            "id": "q7",
            "method": "elicitation/create",
            "params": {"message": "sure?", "new": None},
        }
        await event(question)
        await self.answered.wait()
        await event({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}})
        await send({"type": "http.response.body", "body": b""})


def _call(peer, **params):
    return UpstreamCall(
        caller=ANN, params={"name": "pay", **params}, deadline_s=5, before_send=lambda: None,
        on_notification=lambda _: None, peer=peer,
    )  # fmt: skip


@pytest.mark.promise("P11")
@pytest.mark.parametrize("modern", [False, True], ids=["one era", "both eras"])
async def test_a_client_of_the_handshake_era_meets_the_upstream_in_its_own_era(modern):
    upstream = AskingUpstream(modern=modern)
    asked = []

    async def ask(message):
        asked.append(message)
        return {"result": {"action": "accept", "content": {"x": None}}}

    peer = Peer(capabilities={"elicitation": {}}, info=INFO, log_level="warning", ask=ask, handshake=True)
    async with served(upstream) as url:
        line = HttpUpstream(UpstreamSpec(name="u", url=f"{url}/mcp"))
        assert (await line.call(_call(peer)))["result"] == {"content": []}
        await line.aclose()
    methods = [message.get("method") for message in upstream.heard]
    assert methods[:5] == [
        "server/discover",
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "tools/call",
    ]
    introduced = upstream.heard[1]["params"]
    assert (introduced["capabilities"], introduced["clientInfo"]) == ({"elicitation": {}}, INFO)
    assert [message["params"] for message in asked] == [{"message": "sure?", "new": None}]
    assert upstream.heard[5] == {"jsonrpc": "2.0", "id": "q7", "result": {"action": "accept", "content": {"x": None}}}


async def test_a_client_that_cannot_be_asked_lets_the_upstream_know():
    upstream = AskingUpstream()
    async with served(upstream) as url:
        line = HttpUpstream(UpstreamSpec(name="u", url=f"{url}/mcp"))
        await line.call(_call(Peer(handshake=True)))
        await line.aclose()
    answer = next(message for message in upstream.heard if "method" not in message)
    assert answer["error"]["code"] == -32601


async def test_clients_that_say_different_things_of_themselves_share_no_session():
    upstream = AskingUpstream()
    upstream.answered.set()
    async with served(upstream) as url:
        line = HttpUpstream(UpstreamSpec(name="u", url=f"{url}/mcp"))
        for info in (INFO, INFO, {"name": "other", "version": "1"}):
            await line.call(_call(Peer(info=info, handshake=True)))
        await line.aclose()
    names = [
        message["params"]["clientInfo"]["name"] for message in upstream.heard if message.get("method") == "initialize"
    ]
    assert names == ["ann's client", "other"]
