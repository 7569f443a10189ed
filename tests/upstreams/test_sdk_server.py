"""Calls to a server made with the official SDK, in a process of its own: both eras, both ways to answer, and stdio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import UpstreamSpec
from haltline.upstreams.stdio import StdioUpstream
from support.upstream_calls import Sent, closing, text_of

SCRIPT = Path(__file__).parents[1] / "support" / "sdk_server.py"


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """The broker's loop alone: these start slow programs."""
    return "asyncio", {"use_uvloop": True}


def serving(mode: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), mode], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="module")
def streaming() -> Iterator[str]:
    yield from serving("http")


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    yield from serving("http-json")


@pytest.fixture(params=["2026", "2025", "2026-json", "2025-json", "stdio modern", "stdio handshake"])
async def sdk(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param.startswith("stdio"):
        args = (str(SCRIPT), *request.param.split())
        upstream: Any = StdioUpstream(UpstreamSpec("sdk", command=sys.executable, args=args))
    else:
        url = request.getfixturevalue("plain" if "json" in request.param else "streaming")
        upstream = HttpUpstream(UpstreamSpec("sdk", url=url), handshake_only="2025" in request.param)
    async with closing(upstream):
        upstream.label = request.param
        yield upstream


@pytest.mark.promise("P11")
async def test_a_call_in_every_way_the_sdk_serves_it(sdk: Any) -> None:
    tools = {tool["name"]: tool for tool in await sdk.list_tools()}
    assert {"echo", "add", "count", "region", "wait"} <= tools.keys()
    assert tools["add"]["outputSchema"]["properties"]["total"]["type"] == "integer"
    assert text_of(await Sent()(sdk, "echo", {"text": "é\u2028"})) == "é\u2028"
    assert (await Sent()(sdk, "add", {"a": 2, "b": 3}))["result"]["structuredContent"] == {"total": 5}
    assert (await Sent()(sdk, "fail"))["result"]["isError"] is True
    refused = await Sent()(sdk, "no such tool")
    assert "error" in refused or refused["result"]["isError"]

    for token in (0, "t"):
        counting = Sent()
        assert text_of(await counting(sdk, "count", {"steps": 3}, meta={"progressToken": token})) == "counted"
        told = [(one["params"]["progressToken"], one["params"]["progress"]) for one in counting.heard]
        json_only = sdk.label.endswith("json")  # there, nothing can come beside an answer
        assert told == ([] if json_only else [(token, 1), (token, 2), (token, 3)])


async def test_an_argument_is_mirrored_in_the_header_that_its_schema_names(streaming: str) -> None:
    async with closing(HttpUpstream(UpstreamSpec("sdk", url=streaming))) as sdk:
        changes: list[int] = []
        sdk.watch(lambda: changes.append(1))
        unlisted = await Sent()(sdk, "region", {"name": "eu west é"})
        assert unlisted["error"]["code"] == -32020
        assert changes == [1]
        await sdk.list_tools()
        for name in ("eu", "eu west é", " padded "):
            assert text_of(await Sent()(sdk, "region", {"name": name})) == name


@pytest.mark.promise("R17", "P11")
async def test_cancelling_reaches_the_tool(sdk: Any) -> None:
    if sdk.label == "2026-json":
        pytest.skip("the SDK runs a stateless call with a JSON answer to its end")
    name = f"wait {sdk.label} {id(sdk)}"
    await Sent()(sdk, "echo", {"text": "warm"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Sent(), sdk, "wait", {"name": name})
        await anyio.wait_all_tasks_blocked()
        await Sent()(sdk, "echo", {"text": "it has arrived by now"})
        tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        while name not in (await Sent()(sdk, "were_cancelled"))["result"]["structuredContent"]["result"]:
            await anyio.sleep(0.02)


@pytest.mark.parametrize("handshake_only", [False, True])
async def test_a_change_of_the_list_is_heard_on_the_stream_beside_the_calls(
    streaming: str, handshake_only: bool
) -> None:
    spec = UpstreamSpec("sdk", url=streaming, isolation="shared")  # this server tells only the session that changed it
    async with closing(HttpUpstream(spec, handshake_only=handshake_only)) as sdk:
        changed = anyio.Event()
        sdk.watch(changed.set)
        before = len(await sdk.list_tools())
        with anyio.fail_after(30):
            while not changed.is_set():
                await Sent()(sdk, "grow")
                await anyio.sleep(0.02)
        assert len(await sdk.list_tools()) > before
