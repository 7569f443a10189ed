"""What comes beside the answer to a call reaches its caller alone: progress, logs, questions and their answers (P5, P11).

All agents use the same request ids and progress tokens, and the upstream the same ids for what it asks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from support.asked_client import AskedClient, Told
from support.broker_process import BrokerProcess, Opened, broker_process
from support.figures import Figures
from support.marking_upstream import PROGRESS, marking_upstream

AGENTS = 32
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  all: {tools: ["*"]}
tools:
  "*": {price: "0.00"}
"""


PROGRAM = Path(__file__).parents[1] / "support" / "marking_stdio.py"


@contextmanager
def marking(folder: Path, era: str, over: str) -> Iterator[dict[str, Any]]:
    """How the broker finds the upstream."""
    if over == "stdio":
        yield {"command": sys.executable, "args": ["-S", str(PROGRAM), era]}
        return
    with marking_upstream(folder, era) as port:
        yield {"url": f"http://127.0.0.1:{port}/mcp"}


def foreign(told: Told, mark: str, identifier: int) -> list[Any]:
    """Whatever of it is not this call's own."""
    wrong: list[Any] = []
    for notice in told.notices:
        params = notice["params"]
        token, said = params.get("progressToken", identifier), params.get("message", params.get("data"))
        if (token, said) != (identifier, mark):
            wrong.append(notice)
    wrong += [asked for asked in told.asked if asked["params"]["message"] != mark]
    return wrong


@pytest.mark.promise("P5", "P11")
@pytest.mark.parametrize("over", ["http", "stdio"])
@pytest.mark.parametrize("upstreams_era", ["modern", "handshake"])
@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_progress_logs_and_questions_of_a_call_reach_its_caller_alone(
    tmp_path: Path, long: bool, era: str, upstreams_era: str, over: str
):
    calls = 1_000 if long else 6
    heard: list[tuple[str, int, Told]] = []

    async def work(broker: BrokerProcess, opened: Opened) -> None:
        mark = f"canary of {opened.agent}"
        client = AskedClient(broker.agents_port, opened.token, modern=era == "modern", mark=mark)
        await client.open()
        for identifier in range(calls):
            heard.append((mark, identifier, await client.call("up__work", {"mark": mark}, identifier=identifier)))
        await client.aclose()

    with marking(tmp_path, upstreams_era, over) as found:
        upstreams = {"up": {**found, "max_concurrent": 1024}}
        with broker_process(tmp_path / "broker", upstreams=upstreams, policy=POLICY) as broker:
            broker.await_tools("up__work")
            begun = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for opened in broker.open([f"agent-{number}" for number in range(AGENTS)], "all"):
                    tasks.start_soon(work, broker, opened)
            took_s = time.perf_counter() - begun
    said = [
        (mark, json.loads(told.answer["result"]["content"][0]["text"]))
        for mark, _, told in heard
        if "content" in told.answer.get("result", {}) and not told.answer["result"].get("isError")
    ]
    crossed = [wrong for mark, identifier, told in heard for wrong in foreign(told, mark, identifier)]
    rounds = 2 if upstreams_era == "modern" else 1
    told_of = {
        what: {sum(notice["method"] == f"notifications/{what}" for notice in told.notices) for _, _, told in heard}
        for what in ("progress", "message")
    }

    figures = Figures(f"{AGENTS} agents x {calls} calls with the same ids, {era} to {upstreams_era} over {over}")
    figures.note("calls per second", f"{len(heard) / took_s:.0f}")
    figures.equal("answered", len(said), AGENTS * calls)
    figures.zero("crossed: an answer with another's mark", [one for one in said if set(one[1].values()) != {one[0]}])
    figures.zero("crossed: progress, a log or a question of another's call", crossed)
    figures.equal("asked once a call", {len(told.asked) for _, _, told in heard}, {1})
    figures.equal("progress told a call", told_of["progress"], {PROGRESS * rounds})
    figures.equal("logs told a call", told_of["message"], {PROGRESS * rounds})
    figures.show()
