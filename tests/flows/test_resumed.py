"""A halt and its human resume, as those who were told see it: one incident, opened by the halt and ended by the resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline_client import ControlClient
from support.broker_process import BrokerProcess
from support.raw_mcp import HttpClient
from support.receivers import receiver

POLICY = """
version: "1"
currency: USD
tiers: {t: {tools: ["echo__*"], caps: {task: "0.01"}}}
tools: {echo__say: {price: "0.05"}}
"""
TOOLS = """
import haltline

@haltline.tool(price="0.05")
def say(text: str) -> str:
    return text
"""


def breach(broker: BrokerProcess) -> Any:
    """A session that its cap halts."""
    broker.await_tools("echo__say")
    (one,) = broker.open(["bot"], "t")
    client = HttpClient(broker.agents_port, modern=True, token=one.token)
    answer = client.ask("tools/call", {"name": "echo__say", "arguments": {"text": "x"}})[-1]
    client.close()
    assert "budget.task_exceeded" in str(answer)
    return one


def resume(broker: BrokerProcess, session: str) -> Any:
    with ControlClient(broker.control_url, broker.token, timeout_s=30) as control:
        return control.resume(session, reason="looked at it", allow="0.20", allow_for="1h")


@pytest.mark.promise("P4", "P10", "R16")
async def test_a_resume_resolves_the_episode_everywhere_in_pagerduty_too(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "echo.py").write_text(TOOLS)
    async with receiver() as pager, receiver() as hook:
        channels = (
            f"alerts: {{channels: {{pager: {{kind: pagerduty, routing_key_file: key, base_url: 'http://127.0.0.1:{pager.port}'}},"
            f" hook: {{kind: webhook, url: '{hook.url}'}}}}}}"
        )
        (folder / "key").write_text("R" * 32)
        given = {"upstreams": {"echo": {"python": "./echo.py"}}, "policy": POLICY, "more": [channels]}
        broker = BrokerProcess(folder, **given)
        try:
            await anyio.to_thread.run_sync(broker.start)
            one = await anyio.to_thread.run_sync(breach, broker)
            await pager.got(1)
            await hook.got(1)
            resumed = await anyio.to_thread.run_sync(resume, broker, one.session)
            await pager.got(2)
            await hook.got(2)
        finally:
            await anyio.to_thread.run_sync(broker.kill)
    assert (
        resumed["ahead"]
        == "the next call like the refused one (0.05 USD) fits: task spend 0.05 of 0.21 USD, 0.16 USD left then"
    )
    assert [told.json["event_action"] for told in pager.received] == ["trigger", "resolve"]
    assert len({told.json["dedup_key"] for told in pager.received}) == 1
    assert [told.json["status"] for told in hook.received] == ["firing", "resolved"]
