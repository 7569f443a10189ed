"""`haltline stdio` and idempotency keys: what is asked for again, and how a call with a key is cancelled or left (R13)."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from support.broker_process import broker_process
from support.counting_upstream import counting_upstream
from support.small_caps import POLICY, upstream
from support.stdio_host import META, stdio_host

KEY = "io.haltline/idempotency-key"
REFUSAL = "io.haltline/refusal"
RUNNING = {
    "content": [{"type": "text", "text": "Denied [call.running]"}],
    "isError": True,
    "_meta": {REFUSAL: {"decision": "denied", "reasons": [{"code": "call.running"}]}},
}
MODERN = pytest.mark.parametrize("modern", [False, True])


async def call(host, identifier, *, modern, key="k-1", arguments=None, tool="pay"):
    params = {"name": tool, "arguments": arguments or {}, "_meta": {**(META if modern else {}), KEY: key}}
    await host.ask("tools/call", identifier, params)


@pytest.mark.promise("R13")
@MODERN
async def test_a_lost_answer_is_asked_for_again_by_its_key_until_the_first_has_ended(endpoint, host, modern):
    async def answers(asked):
        count = len(endpoint.of("tools/call"))
        if count == 1:
            asked.cut()
        else:
            await asked.result(RUNNING if count == 2 else {"content": [{"type": "text", "text": "paid"}]})

    endpoint.on["tools/call"] = answers
    await call(host, 1, modern=modern)
    assert (await host.read())["result"]["content"][0]["text"] == "paid"
    assert len({one.body for one in endpoint.of("tools/call")}) == 1
    assert len(endpoint.of("tools/call")) == 3
    host.close()
    assert "it is asked for again by its key" in (await host.ended())[2]


@pytest.mark.promise("R13")
async def test_that_a_call_of_the_host_s_own_still_runs_is_told_at_once(endpoint, host):
    endpoint.on["tools/call"] = lambda asked: asked.result(RUNNING)
    await call(host, 1, modern=True)
    assert (await host.read())["result"] == RUNNING
    assert len(endpoint.of("tools/call")) == 1


@pytest.mark.promise("R13")
async def test_with_a_key_a_cancellation_at_2026_07_28_names_it(endpoint, host):
    async def held(asked):
        await asked.gone()

    endpoint.on["tools/call"] = held
    await call(host, 1, modern=True)
    await endpoint.arrived("tools/call")
    await host.notify("notifications/cancelled", {"requestId": 1, "reason": "enough"})
    notice = await endpoint.arrived("notifications/cancelled")
    assert notice.message["params"]["_meta"][KEY] == "k-1"
    assert notice.message["params"]["reason"] == "enough"
    await host.ask("tools/list", 2, modern=True)
    assert (await host.read())["id"] == 2


@pytest.mark.promise("R13")
async def test_when_the_host_ends_a_call_with_a_key_is_left_running(endpoint, host):
    async def held(asked):
        await asked.gone()

    endpoint.on["tools/call"] = held
    await host.handshake()
    await call(host, 1, modern=False)
    await endpoint.arrived("tools/call")
    host.close()
    assert (await host.ended())[0] == 0
    assert endpoint.of("notifications/cancelled") == []


@pytest.mark.promise("R13", "R10")
async def test_a_broker_that_is_killed_during_a_call_with_a_key_is_asked_again_and_sends_nothing_twice(tmp_path: Path):
    with (
        counting_upstream(tmp_path) as counted,
        broker_process(tmp_path / "b", upstreams={"now": upstream(counted.url)}, policy=POLICY) as broker,
    ):
        broker.await_tools("now__pay")
        token = broker.open(["bot"], "wide")[0].token
        url = f"http://127.0.0.1:{broker.agents_port}/mcp"
        config = broker.folder / "haltline.yaml"
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{broker.agents_port}", 1))
        async with stdio_host(url, token=token) as host:
            await call(host, 1, modern=True, arguments={"reference": "one", "wait_ms": 60_000}, tool="now__pay")
            with anyio.fail_after(30):
                while not await anyio.to_thread.run_sync(counted.all):
                    await anyio.sleep(0.02)  # another process has no event to wait for
            await anyio.to_thread.run_sync(broker.kill)
            await anyio.to_thread.run_sync(broker.start)
            answer = await host.read()
        assert answer["result"]["_meta"][REFUSAL]["reasons"][0]["code"] == "call.in_doubt"
        assert len(counted.all()) == 1
