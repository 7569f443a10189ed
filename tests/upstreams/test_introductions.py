"""An agent whose client says something else of itself each time takes room from itself, not from others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.isolation import INTRODUCTIONS_MAX, OWN, Held, leaving
from haltline.upstreams.model import Caller, NotSent, OutcomeUnknown, Peer, UpstreamCall, UpstreamSpec
from haltline.upstreams.stdio import StdioUpstream
from haltline.wire.http import read_body, send_reply
from haltline.wire.strict_json import dumps, parse
from support.serving import served
from support.upstream_calls import ANN, BOB, text_of

SCRIPT = Path(__file__).parents[1] / "support" / "nasty_stdio.py"


def _call(tool: str, caller: Caller = ANN, version: int = 0, ask: Any = None, deadline_s: float = 10) -> UpstreamCall:
    peer = Peer(info={"name": "client", "version": str(version)}, ask=ask, handshake=True)
    params = {"name": tool, "arguments": {}}
    return UpstreamCall(caller, params, deadline_s, lambda: None, lambda _: None, peer=peer)


def _program(**more: Any) -> StdioUpstream:
    return StdioUpstream(UpstreamSpec("tool", command=sys.executable, args=("-S", str(SCRIPT)), **more))


class Sessions:
    """An upstream of the handshake era whose sessions are numbered; the tool `wait` answers when `go` is set."""

    def __init__(self) -> None:
        self.opened = 0
        self.ended: list[str] = []
        self.waiting = anyio.Event()
        self.go = anyio.Event()

    async def __call__(self, scope, receive, send):
        session_id = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        if scope["method"] == "DELETE":
            self.ended.append(session_id)
        if scope["method"] != "POST":
            await send_reply(send, 405 if scope["method"] == "GET" else 200)
            return
        message = parse(await read_body(scope, receive, max_bytes=1 << 20, declared=None))
        if "id" not in message:
            await send_reply(send, 202)
            return
        body, headers = await self._answer(message, session_id)
        said = dumps({"jsonrpc": "2.0", "id": message["id"], **body})
        await send_reply(send, 200, said, kind=b"application/json", headers=headers)

    async def _answer(self, message, session_id):
        if message["method"] == "server/discover":
            return {"error": {"code": -32601, "message": "no"}}, []
        if message["method"] == "initialize":
            self.opened += 1
            info = {"name": "u", "version": "1"}
            offered = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            return {"result": offered}, [(b"mcp-session-id", b"s%d" % self.opened)]
        if message["params"]["name"] == "wait":
            self.waiting.set()
            await self.go.wait()
        return {"result": {"content": [{"type": "text", "text": session_id}]}}, []


@pytest.mark.parametrize("isolation", ["agent", "session", "shared"])
async def test_many_introductions_of_one_agent_end_its_own_oldest_http_session_and_never_one_in_use(isolation):
    server = Sessions()
    async with served(server) as url:
        shop = HttpUpstream(UpstreamSpec("shop", url=f"{url}/mcp", isolation=isolation), handshake_only=True)
        bobs = text_of(await shop.call(_call("which", BOB, 1000)))
        held: list[str] = []

        async def hold() -> None:
            held.append(text_of(await shop.call(_call("wait"))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await server.waiting.wait()
            for version in range(1, INTRODUCTIONS_MAX + 3):
                await shop.call(_call("which", version=version))
            assert server.ended == ["s3", "s4", "s5"]
            server.go.set()
        assert held == ["s2"]
        assert text_of(await shop.call(_call("which", BOB, 1000))) == bobs
        await shop.aclose()


async def test_an_agent_all_of_whose_http_sessions_are_in_use_is_told_to_wait_and_others_are_not():
    server = Sessions()
    async with served(server) as url:
        shop = HttpUpstream(UpstreamSpec("shop", url=f"{url}/mcp"), handshake_only=True)
        async with anyio.create_task_group() as tasks:
            for version in range(INTRODUCTIONS_MAX):
                tasks.start_soon(shop.call, _call("wait", version=version))
            with anyio.fail_after(30):
                while server.opened < INTRODUCTIONS_MAX:
                    await anyio.lowlevel.checkpoint()
            with pytest.raises(NotSent) as caught:
                await shop.call(_call("which", version=99))
            assert caught.value.code == "upstream.busy"
            await shop.call(_call("which", BOB))
            server.go.set()
        await shop.call(_call("which", version=99))
        await shop.aclose()
    assert server.ended[0] == "s1"


async def test_many_introductions_of_one_agent_end_its_own_oldest_process():
    tool = _program()
    bobs = text_of(await tool.call(_call("pid", BOB)))
    pids = [text_of(await tool.call(_call("pid", version=version))) for version in range(INTRODUCTIONS_MAX + 1)]
    assert text_of(await tool.call(_call("pid", BOB))) == bobs
    assert text_of(await tool.call(_call("pid", version=1))) == pids[1]
    assert text_of(await tool.call(_call("pid", version=0))) not in pids
    await tool.aclose()


def test_where_all_room_is_taken_an_idle_one_of_the_agent_that_has_most_ends():
    def held(agent: str, session: str, *, idle: bool = True) -> Held:
        return Held((agent, session, "x"), agent, idle)

    own = Held((*OWN, ""), "", idle=True)
    taken = [own, held("bob", "1"), held("ann", "1", idle=False), held("ann", "2"), held("ann", "3")]
    eve = held("eve", "1")
    assert leaving("u", eve, taken, 5) is None
    assert leaving("u", eve, taken, 4) == ("ann", "2", "x")
    with pytest.raises(NotSent, match="in use"):
        leaving("u", eve, [own, held("ann", "1", idle=False)], 1)


async def test_a_question_of_a_program_is_put_to_nobody_while_a_call_that_was_called_off_may_run():
    asked: list[dict[str, Any]] = []

    async def ask(message: dict[str, Any]) -> dict[str, Any]:
        asked.append(message)
        return {"result": {"answered": True}}

    tool = _program()
    await tool.call(_call("pid"))  # started
    with pytest.raises(OutcomeUnknown, match="did not answer"):
        await tool.call(_call("hold", deadline_s=0.3))
    assert '"error"' in text_of(await tool.call(_call("asks", ask=ask)))
    assert asked == []
    await tool.call(_call("release"))  # answers what was called off
    assert '"answered"' in text_of(await tool.call(_call("asks", ask=ask)))
    assert [one["method"] for one in asked] == ["sampling/createMessage"]
    await tool.aclose()
