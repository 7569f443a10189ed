"""The broker restarts under a host of the handshake era that has no bridge: what its session set still holds (P11)."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client

from support.broker_process import BrokerProcess, broker_process
from support.counting_upstream import environment

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
SUPPORT = Path(__file__).parents[1] / "support"
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  wide: {tools: ["*"]}
tools:
  "*": {price: "0.00"}
"""
ONE, TWO = "note://one", "note://two"
WAIT_S = 60


@pytest.fixture
def front() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@asynccontextmanager
async def patient(front: socket.socket, port: int) -> AsyncIterator[str]:
    """The broker's URL behind what waits for it: the official client gives up its stream when it is away for long."""

    async def copy(source: Any, sink: Any, ended: anyio.CancelScope) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                await sink.send(await source.receive())
        ended.cancel()

    async def carry(host: Any) -> None:
        broker = None
        while broker is None:
            with suppress(OSError):
                broker = await anyio.connect_tcp("127.0.0.1", port)
            await anyio.sleep(0.02)
        async with host, broker, anyio.create_task_group() as both:
            both.start_soon(copy, host, broker, both.cancel_scope)
            both.start_soon(copy, broker, host, both.cancel_scope)

    listener = await anyio.abc.SocketListener.from_socket(front)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, carry)
        yield f"http://127.0.0.1:{front.getsockname()[1]}/mcp"
        tasks.cancel_scope.cancel()


@pytest.fixture
def broker(tmp_path: Path, front: socket.socket) -> Iterator[BrokerProcess]:
    telling = {"command": sys.executable, "args": [str(SUPPORT / "telling_server.py"), "stdio"]}
    code = {"PYTHONPATH": environment()["PYTHONPATH"]}
    rich = {"command": sys.executable, "args": ["-m", "support.rich_upstream", "modern", "stdio"], "env": code}
    hosts = {"allowed_hosts": [f"127.0.0.1:{front.getsockname()[1]}"]}
    upstreams = {"telling": telling, "rich": rich}
    with broker_process(tmp_path / "b", upstreams=upstreams, policy=POLICY, agents=hosts) as running:
        running.await_tools("telling__touch", "rich__params")
        config = running.folder / "haltline.yaml"
        listen = f'"listen": "127.0.0.1:{running.agents_port}"'  # it comes back where it was
        config.write_text(re.sub('"listen": "127.0.0.1:0"', listen, config.read_text()))
        yield running


class Heard:
    """Which resources changed, as the official client heard it."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._more = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.uris.append(str(message.params.uri))
            self._more.set()

    async def until(self, uri: str) -> None:
        with anyio.fail_after(WAIT_S):
            while uri not in self.uris:
                self._more = anyio.Event()
                await self._more.wait()


@asynccontextmanager
async def host(url: str, token: str, heard: Heard) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        async with Client(
            streamable_http_client(url, http_client=http), mode="legacy", message_handler=heard
        ) as client:
            yield client


async def level_of(client: Client) -> str | None:
    """Its log level, as an upstream is told it."""
    answer = await client.call_tool("rich__params", {})
    return (answer.structured_content or {})["_meta"].get("io.modelcontextprotocol/logLevel")


@pytest.mark.promise("P11")
async def test_after_a_restart_a_session_hears_what_it_subscribed_to_and_has_its_log_level(
    broker: BrokerProcess, front: socket.socket
) -> None:
    (opened,) = broker.open(["bot"], "wide")
    heard = Heard()
    async with patient(front, broker.agents_port) as url, host(url, opened.token, heard) as client:
        await client.list_resources()
        await client.set_logging_level("warning")
        await client.subscribe_resource(ONE)
        await client.subscribe_resource(TWO)
        await client.unsubscribe_resource(TWO)
        await anyio.to_thread.run_sync(broker.kill)
        await anyio.to_thread.run_sync(broker.start)
        await anyio.to_thread.run_sync(broker.await_tools, "telling__touch", "rich__params")
        assert await level_of(client) == "warning"
        await heard.until(ONE)  # it may have missed something
        heard.uris.clear()
        with anyio.fail_after(WAIT_S):
            while ONE not in heard.uris:  # its process starts anew, and is subscribed to meanwhile
                for uri in (ONE, TWO):
                    await client.call_tool("telling__touch", {"uri": uri})
                await anyio.sleep(0.1)
        assert TWO not in heard.uris
