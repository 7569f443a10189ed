"""The standing stream over real HTTP: who gets one, how it ends, and what a slow reader costs."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from haltline.wire import messages
from haltline.wire.messages import Unauthorized
from haltline.wire.standing import RETRY_MS, WAITING_MAX, NoStream, Standing, until_gone
from support.serving import served_face

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class Face:
    """Keeps every stream that is asked for."""

    name = "face"
    version = "1"
    instructions = "for tests"
    capabilities: dict[str, Any] = {"tools": {"listChanged": True}}

    def __init__(self) -> None:
        self.standing: list[Standing] = []
        self.over = ""
        self.more = anyio.Event()

    async def admit(self, token, source):
        return Unauthorized("credential.unknown", "nobody") if token != "alive" else None

    def mirrored_schema(self, tool):
        return None

    async def handle(self, exchange):
        return messages.result({})

    async def session_over(self, session_key):
        self.over = session_key

    async def stand(self, request):
        if self.standing and request.source == "refuse":
            return NoStream("not now")
        self.standing.append(request.standing)
        self.more.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_gone, request.receive, tasks.cancel_scope.cancel)
            await request.standing.run()
            tasks.cancel_scope.cancel()
        return None


@pytest.fixture
async def face():
    return Face()


@pytest.fixture
async def http(face):
    async with served_face(face) as url:
        async with httpx.AsyncClient(
            base_url=url.removesuffix("/mcp"), headers={"Authorization": "Bearer alive"}, timeout=10
        ) as client:
            yield client


async def session_of(http) -> dict[str, str]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    return {"mcp-session-id": answer.headers["mcp-session-id"], "accept": "text/event-stream"}


async def test_a_get_with_a_session_opens_a_stream_that_says_what_is_told(face, http):
    headers = await session_of(http)
    async with http.stream("GET", "/mcp", headers=headers) as reply:
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
        await face.more.wait()
        face.standing[0].tell(CHANGED)
        face.standing[0].end()
        lines = [line async for line in reply.aiter_lines()]
    assert [json.loads(line[6:]) for line in lines if line.startswith("data: ")] == [CHANGED]


@pytest.mark.parametrize(("version", "told"), [("2025-11-25", True), ("2025-06-18", False), (None, False)])
async def test_a_client_that_takes_the_wish_is_told_to_wait_before_it_opens_its_stream_again(face, http, version, told):
    headers = {**await session_of(http), **({"mcp-protocol-version": version} if version else {})}
    async with http.stream("GET", "/mcp", headers=headers) as reply:
        await face.more.wait()
        face.standing[0].end()
        lines = [line async for line in reply.aiter_lines()]
    assert (f"retry: {RETRY_MS}" in lines) is told


async def test_the_face_hears_of_a_session_that_its_client_ends(face, http):
    headers = await session_of(http)
    assert (await http.delete("/mcp", headers=headers)).status_code == 204
    assert face.over == headers["mcp-session-id"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"accept": "application/json"}, 406),
        ({"mcp-session-id": "a.b"}, 404),
        ({"authorization": "Bearer dead"}, 401),
        ({"mcp-session-id": None}, 405),
    ],
)
async def test_without_a_session_a_credential_or_room_for_a_stream_there_is_none(http, change, status):
    headers = {**await session_of(http), **change}
    answer = await http.get("/mcp", headers={name: value for name, value in headers.items() if value is not None})
    assert answer.status_code == status


async def test_a_slow_reader_loses_the_newest_and_costs_no_memory():
    sent: list[bytes] = []
    reading = anyio.Event()

    async def send(message):
        if message["type"] == "http.response.body":
            await reading.wait()
            sent.append(message["body"])

    standing = Standing(send)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(standing.run)
        taken = [standing.tell({"n": number}) for number in range(10 * WAITING_MAX)]
        assert taken.count(True) == WAITING_MAX
        standing.end()
        reading.set()
    assert len(sent) == WAITING_MAX + 1


async def test_the_same_change_waits_once():
    sent: list[bytes] = []

    async def send(message):
        sent.append(message.get("body", b""))

    standing = Standing(send)
    for _ in range(5):
        standing.tell(CHANGED, once=True)
    standing.end({"last": True})
    await standing.run()
    assert [body for body in sent if b"list_changed" in body] == sent[1:2]
    assert b'"last":true' in sent[2]


async def test_a_quiet_stream_is_kept_open_by_comments():
    pinged = anyio.Event()

    async def send(message):
        if message.get("body", b"").startswith(b": "):
            pinged.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Standing(send, ping_s=0.01).run)
        with anyio.fail_after(30):
            await pinged.wait()
        tasks.cancel_scope.cancel()


@pytest.mark.promise("P3")
async def test_what_waits_when_it_is_stopped_is_not_written():
    sent: list[bytes] = []
    standing = Standing(lambda message: _keep(sent, message))
    standing.tell(CHANGED)
    standing.muted = lambda: True
    await standing.run()
    assert b"".join(sent) == b""


async def _keep(sent, message):
    sent.append(message.get("body", b""))
