"""Streams of a real broker process: a revoke closes fifty of them at once and writes nothing more, a drain ends them all."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from anyio.abc import TaskGroup

from support.broker_process import BrokerProcess, broker_process

SCRIPT = Path(__file__).parents[1] / "support" / "telling_server.py"
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  all: {tools: ["*"]}
tools:
  "*": {price: "0.00"}
"""
MODERN = "2026-07-28"
URI = "note://one"
HALF = 25
CLOSED_BELOW_S = 1.0
DRAINED_BELOW_S = 5.0
READY_S = 15


class Listener:
    """One stream: what came on it, when the last of it came, and when it ended."""

    numbers = itertools.count(1)

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self._http = http
        self._authorization = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
        self.messages: list[dict[str, Any]] = []
        self.last_byte = 0.0
        self.ended = 0.0
        self.ready = anyio.Event()
        self.done = anyio.Event()

    async def stand(self) -> None:
        told = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        session = {**self._authorization, "MCP-Protocol-Version": "2025-11-25"}
        reply = await self._ask("initialize", told, session)
        session["Mcp-Session-Id"] = reply.headers["mcp-session-id"]
        async with self._http.stream("GET", "/mcp", headers=session) as stream:
            assert stream.status_code == 200
            await self._ask("resources/subscribe", {"uri": URI}, session)
            self.ready.set()
            await self._read(stream)

    async def listen(self) -> None:
        meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
        wanted = {"resourceSubscriptions": [URI], "toolsListChanged": True}
        params = {"notifications": wanted, "_meta": meta}
        message = {
            "jsonrpc": "2.0",
            "id": f"listen-{next(self.numbers)}",
            "method": "subscriptions/listen",
            "params": params,
        }
        headers = {**self._authorization, "MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
        async with self._http.stream("POST", "/mcp", json=message, headers=headers) as stream:
            assert stream.status_code == 200
            await self._read(stream)

    async def _ask(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        message = {"jsonrpc": "2.0", "id": next(self.numbers), "method": method, "params": params}
        reply = await self._http.post("/mcp", json=message, headers=headers)
        assert "error" not in reply.json(), reply.text
        return reply

    async def _read(self, stream: httpx.Response) -> None:
        async for line in stream.aiter_lines():
            self.last_byte = time.monotonic()
            if line.startswith("data: "):
                self.messages.append(json.loads(line[6:]))
                self.ready.set()
        self.ended = time.monotonic()
        self.done.set()

    def updates(self) -> int:
        return sum(message.get("method") == "notifications/resources/updated" for message in self.messages)


@pytest.fixture
def telling() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "http"], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def broker(tmp_path: Path, telling: str) -> Iterator[BrokerProcess]:
    with broker_process(tmp_path / "broker", upstreams={"telling": {"url": telling}}, policy=POLICY) as running:
        running.await_tools("telling__touch")
        yield running


async def begin(tasks: TaskGroup, http: httpx.AsyncClient, token: str, half: int) -> list[Listener]:
    listeners = [Listener(http, token) for _ in range(2 * half)]
    for number, listener in enumerate(listeners):
        tasks.start_soon(listener.stand if number % 2 else listener.listen)
    with anyio.fail_after(READY_S):
        for listener in listeners:
            await listener.ready.wait()
    return listeners


async def touch(http: httpx.AsyncClient, token: str) -> None:
    params = {"name": "telling__touch", "arguments": {"uri": URI}}
    message = {"jsonrpc": "2.0", "id": next(Listener.numbers), "method": "tools/call", "params": params}
    reply = await http.post("/mcp", json=message, headers={"Authorization": f"Bearer {token}"})
    assert not reply.json()["result"].get("isError"), reply.text


async def heard(listeners: list[Listener], count: int) -> None:
    with anyio.fail_after(READY_S):
        while any(listener.updates() < count for listener in listeners):
            await anyio.sleep(0.01)


def client(broker: BrokerProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=200)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{broker.agents_port}", timeout=30, limits=limits)


@pytest.mark.promise("P3", "P5", "R17")
@pytest.mark.parametrize("act", ["revoke", "halt"])
async def test_a_stop_closes_fifty_streams_within_a_second_and_nothing_is_written_on_them_any_more(
    broker: BrokerProcess, act: str
) -> None:
    victim, bystander = broker.open(["victim", "bystander"], "all")
    async with client(broker) as http, anyio.create_task_group() as tasks:
        stopped = await begin(tasks, http, victim.token, HALF)
        others = await begin(tasks, http, bystander.token, 2)
        await touch(http, bystander.token)
        await heard([*stopped, *others], 1)
        with broker.control() as control:
            target = victim.session if act == "revoke" else "victim"
            await anyio.to_thread.run_sync(lambda: getattr(control, act)(target, reason="a test"))
        returned = time.monotonic()
        before = [len(listener.messages) for listener in stopped]
        for listener in others:
            listener.messages.clear()
        await touch(http, bystander.token)
        with anyio.fail_after(READY_S):
            for listener in stopped:
                await listener.done.wait()
        slowest = max(listener.ended for listener in stopped) - returned
        print(f"\n{act}: {len(stopped)} streams closed within {1000 * max(slowest, 0):.0f} ms of its return")
        assert slowest < CLOSED_BELOW_S
        await heard(others, 1)
        assert [len(listener.messages) for listener in stopped] == before
        tasks.cancel_scope.cancel()


@pytest.mark.promise("P7")
async def test_a_drain_ends_open_streams_at_once_those_of_the_newer_era_with_a_result(broker: BrokerProcess) -> None:
    (one,) = broker.open(["one"], "all")
    async with client(broker) as http, anyio.create_task_group() as tasks:
        listeners = await begin(tasks, http, one.token, 5)
        with broker.control() as control:
            assert control.status()["agents"][0]["running"] == 0
        begun = time.monotonic()
        broker.terminate()
        with anyio.fail_after(READY_S):
            for listener in listeners:
                await listener.done.wait()
        assert await anyio.to_thread.run_sync(broker.ended) == 0
        assert time.monotonic() - begun < DRAINED_BELOW_S
        last = [listener.messages[-1] for listener in listeners[::2]]
        assert all(
            message["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == message["id"] for message in last
        )
