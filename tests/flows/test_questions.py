"""What a tool asks reaches its host, whichever era each of them speaks: official clients and servers around a real broker."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from bench import processes
from support.broker_process import BrokerProcess, broker_process

SERVER = Path(__file__).parents[1] / "support" / "asking_server.py"
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  wide: {tools: ["*"], caps: {task: "10.00", day: "10.00"}}
tools:
  "*": {price: "0.01"}
"""
ERAS = pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
UPSTREAMS = pytest.mark.parametrize("upstream", ["old", "new"])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("questions")
    log = folder / "new.log"
    with processes.running([sys.executable, str(SERVER), "http"], folder=folder, log=log) as process:
        upstreams: dict[str, Any] = {
            "old": {"command": sys.executable, "args": [str(SERVER), "stdio", "handshake"]},
            "program": {"command": sys.executable, "args": [str(SERVER), "stdio", "modern"]},
            "new": {"url": processes.first_line(process, log).strip()},
        }
        with broker_process(folder / "b", upstreams=upstreams, policy=POLICY) as running:
            running.await_tools("old__ask", "new__greet", "program__greet")
            yield running


@pytest.fixture
def token(broker: BrokerProcess, request: pytest.FixtureRequest) -> str:
    return broker.open([f"bot-{abs(hash(request.node.name)) % 10**8}"], "wide")[0].token


async def person(_: Any, asked: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": f"Anna, asked {asked.message!r}"})


async def nobody(_: Any, asked: types.ElicitRequestParams) -> types.ElicitResult:
    del asked
    return types.ElicitResult(action="decline")


async def model(_: Any, asked: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    said = types.TextContent(type="text", text=f"{asked.max_tokens} words")
    return types.CreateMessageResult(role="assistant", content=said, model="m")


@asynccontextmanager
async def client(broker: BrokerProcess, token: str, era: str, **more: Any) -> AsyncIterator[Client]:
    url = f"http://127.0.0.1:{broker.agents_port}/mcp"
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        with anyio.fail_after(60):
            async with Client(streamable_http_client(url, http_client=http), mode=era, **more) as opened:
                yield opened


@ERAS
@pytest.mark.parametrize("upstream", ["old", "new", "program"])
@pytest.mark.promise("P11")
async def test_a_person_is_asked_and_the_answer_comes_back_to_the_tool(broker, token, era, upstream):
    async with client(broker, token, era, elicitation_callback=person) as host:
        answer = await host.call_tool(f"{upstream}__greet", {"greeting": "Hello"})
    assert answer.content[0].text == "Hello, Anna, asked 'Who is there?'"


@ERAS
@UPSTREAMS
@pytest.mark.promise("P11")
async def test_the_hosts_model_is_asked_too(broker, token, era, upstream):
    async with client(broker, token, era, sampling_callback=model) as host:
        answer = await host.call_tool(f"{upstream}__think", {})
    assert answer.content[0].text == "It says 5 words"


@ERAS
@pytest.mark.promise("P11")
async def test_a_question_in_the_middle_of_a_call_is_answered_in_either_era(broker, token, era):
    async with client(broker, token, era, elicitation_callback=person) as host:
        assert (await host.call_tool("old__ask", {})).content[0].text == "Anna, asked 'Who is there?'"
    async with client(broker, token, era, elicitation_callback=nobody) as host:
        assert (await host.call_tool("old__ask", {})).content[0].text == "decline"


@ERAS
@UPSTREAMS
@pytest.mark.promise("P11")
async def test_a_host_that_cannot_be_asked_is_told_so_in_words(broker, token, era, upstream):
    async with client(broker, token, era) as host:
        try:
            answer = await host.call_tool(f"{upstream}__greet", {"greeting": "Hello"})
        except MCPError as error:
            said = str(error)
        else:
            assert answer.is_error
            said = answer.content[0].text
    assert any(word in said.lower() for word in ("elicit", "input", "capabilit")), said


@pytest.mark.promise("P11", "R14")
async def test_while_a_call_to_a_program_waits_for_input_another_is_asked_too_and_each_answer_finds_its_own(
    broker, token
):
    async with client(broker, token, "2026-07-28", elicitation_callback=person) as host:
        call = host.session.call_tool
        first = await call("old__ask", {}, allow_input_required=True)
        second = await call("old__ask", {}, allow_input_required=True)
        assert first.result_type == second.result_type == "input_required"
        said = []
        for asked, name in ((second, "Ben"), (first, "Anna")):
            answer = {
                key: types.ElicitResult(action="accept", content={"name": name}) for key in asked.input_requests or {}
            }
            told = await call("old__ask", {}, input_responses=answer, request_state=asked.request_state)
            said.append(told.content[0].text)
    assert said == ["Ben", "Anna"]
