"""`haltline stdio` in front of the real broker, used by the official SDK's stdio client, in both eras."""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
import traceback
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError, types
from mcp.client.stdio import StdioServerParameters, stdio_client

from bench import processes
from haltline.cli import main
from support.broker_process import BrokerProcess, broker_process
from support.stdio_host import INITIALIZE, launched

POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  wide: {tools: ["*"], caps: {task: "1.00", day: "1.00"}}
tools:
  "*": {price: "0.00"}
"""
SUPPORT = Path(__file__).parents[1] / "support"
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
RUNS = 10


def _broker(folder: Path):
    programs = {
        "sdk": [str(SUPPORT / "sdk_server.py"), "stdio"],
        "asking": [str(SUPPORT / "asking_server.py"), "stdio", "handshake"],
    }
    programs["telling"] = [str(SUPPORT / "telling_server.py"), "stdio"]
    upstreams = {name: {"command": sys.executable, "args": program} for name, program in programs.items()}
    return broker_process(folder, upstreams=upstreams, policy=POLICY)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with _broker(tmp_path_factory.mktemp("broker") / "b") as running:
        running.await_tools("sdk__echo", "asking__ask")
        yield running


@pytest.fixture
def token(broker, request):
    agent = f"bot-{abs(hash(request.node.name)) % 10**8}"
    return broker.open([agent], "wide")[0].token


def _environ(broker: BrokerProcess, token: str) -> dict[str, str]:
    code = processes.environment()["PYTHONPATH"]
    return {"PYTHONPATH": code, "HALTLINE_TOKEN": token, "HALTLINE_URL": f"http://127.0.0.1:{broker.agents_port}/mcp"}


class Log:
    """What the bridge said on standard error."""

    def __init__(self, file: Path) -> None:
        self.file = file.open("w+")

    def text(self) -> str:
        return Path(self.file.name).read_text()


def _client(broker: BrokerProcess, token: str, mode: str, log: Log, **more) -> Client:
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "haltline", "stdio"], env=_environ(broker, token)
    )
    return Client(stdio_client(command, errlog=log.file), mode=mode, cache=None, **more)


@pytest.fixture
def log(tmp_path):
    opened = Log(tmp_path / "stdio.log")
    yield opened
    opened.file.close()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28", "auto"])
@pytest.mark.promise("P11")
async def test_tools_are_listed_and_called_and_their_results_are_the_upstream_s(broker, token, mode, log):
    async with _client(broker, token, mode, log) as client:
        assert {"sdk__echo", "sdk__add", "sdk__region"} <= {tool.name for tool in (await client.list_tools()).tools}
        assert (await client.call_tool("sdk__add", {"a": 20, "b": 22})).structured_content == {"total": 42}
        said = await client.call_tool("sdk__echo", {"text": "é\n\u2028" + "x" * 100_000})
        assert said.content[0].text == "é\n\u2028" + "x" * 100_000
        assert (await client.call_tool("sdk__fail", {})).is_error
    assert log.text() == ""


@ERAS
async def test_an_argument_mirrored_in_a_header_passes_without_a_list(broker, token, mode, log):
    async with _client(broker, token, mode, log) as client:
        assert (await client.call_tool("sdk__region", {"name": "Zürich"})).content[0].text == "Zürich"


@ERAS
async def test_progress_comes_in_order_and_before_the_result(broker, token, mode, log):
    seen: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(done)

    async with _client(broker, token, mode, log) as client:
        await client.call_tool("sdk__count", {"steps": 20}, progress_callback=progress)
        assert seen == list(range(1, 21))


@ERAS
async def test_a_cancelled_call_is_cancelled_upstream(broker, token, mode, log):
    name = f"wait-{mode}"
    async with _client(broker, token, mode, log) as client:
        await client.call_tool("sdk__echo", {"text": "is up"})
        with anyio.move_on_after(1):
            await client.call_tool("sdk__wait", {"name": name})
        with anyio.fail_after(30):
            while name not in str((await client.call_tool("sdk__were_cancelled", {})).content):
                await anyio.sleep(0.02)


@ERAS
async def test_a_question_to_the_person_reaches_the_host_and_its_answer_the_tool(broker, token, mode, log):
    async def answer(_, asked):
        return types.ElicitResult(action="accept", content={"name": f"Anna, asked {asked.message!r}"})

    async with _client(broker, token, mode, log, elicitation_callback=answer) as client:
        assert (await client.call_tool("asking__ask", {})).content[0].text == "Anna, asked 'Who is there?'"


@ERAS
async def test_calls_run_side_by_side(broker, token, mode, log):
    answers: dict[int, str] = {}

    async def call(client: Client, number: int) -> None:
        answers[number] = (await client.call_tool("sdk__echo", {"text": str(number)})).content[0].text

    async with _client(broker, token, mode, log) as client, anyio.create_task_group() as tasks:
        for number in range(32):
            tasks.start_soon(call, client, number)
    assert answers == {number: str(number) for number in range(32)}


@ERAS
async def test_a_broker_that_is_killed_and_started_again_between_calls_is_found_again(tmp_path, mode, log):
    with _broker(tmp_path / "b") as broker:
        broker.await_tools("sdk__echo")
        token = broker.open(["bot"], "wide")[0].token
        _with_fixed_port(broker)
        async with _client(broker, token, mode, log) as client:
            assert (await client.call_tool("sdk__echo", {"text": "1"})).content[0].text == "1"
            broker.kill()
            away = await client.call_tool("sdk__echo", {"text": "2"})
            assert away.is_error
            assert "Haltline cannot be reached" in away.content[0].text
            assert "Nothing was sent" in away.content[0].text
            await anyio.to_thread.run_sync(broker.start)
            await anyio.to_thread.run_sync(broker.await_tools, "sdk__echo")
            assert (await client.call_tool("sdk__echo", {"text": "3"})).content[0].text == "3"
            log_kinds = broker.haltline("audit", "query", "--kind", "call.allowed", "--json").out
        assert "Haltline cannot be reached" in log.text()
        assert log_kinds.count('"call.allowed"') == 2  # what was not sent was not admitted


def _with_fixed_port(broker: BrokerProcess) -> None:
    """It comes back where it was."""
    config = broker.folder / "haltline.yaml"
    listen = f'agents: {{listen: "127.0.0.1:{broker.agents_port}"}}'
    config.write_text(re.sub("(?m)^agents: .*$", listen, config.read_text()))


@pytest.mark.promise("P11")
@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
async def test_after_a_restart_of_the_broker_a_host_still_hears_what_it_subscribed_to_and_can_still_be_asked(
    tmp_path, log
):
    changed = anyio.Event()

    async def hear(message):
        if isinstance(message, types.ResourceUpdatedNotification):
            changed.set()

    async def answer(_, asked):
        return types.ElicitResult(action="accept", content={"name": "Anna"})

    with _broker(tmp_path / "b") as broker:
        broker.await_tools("telling__touch", "asking__ask")
        token = broker.open(["bot"], "wide")[0].token
        _with_fixed_port(broker)
        async with _client(broker, token, "legacy", log, message_handler=hear, elicitation_callback=answer) as client:
            await client.list_resources()
            await client.subscribe_resource("note://one")
            broker.kill()
            await anyio.to_thread.run_sync(broker.start)
            await anyio.to_thread.run_sync(broker.await_tools, "telling__touch", "asking__ask")
            with anyio.fail_after(60):
                await changed.wait()  # it may have missed something
                assert (await client.call_tool("asking__ask", {})).content[0].text == "Anna"
                changed = anyio.Event()
                await client.call_tool("telling__touch", {"uri": "note://one"})
                await changed.wait()


@ERAS
async def test_a_broker_that_is_killed_during_a_call_leaves_an_honest_answer(tmp_path, mode, log):
    with _broker(tmp_path / "b") as broker:
        broker.await_tools("sdk__echo")
        token = broker.open(["bot"], "wide")[0].token
        async with _client(broker, token, mode, log) as client, anyio.create_task_group() as tasks:

            async def kill() -> None:
                with anyio.fail_after(30):
                    while '"call.allowed"' not in broker.haltline("audit", "query", "--json").out:
                        await anyio.sleep(0.02)
                broker.kill()

            tasks.start_soon(kill)
            lost = await client.call_tool("sdk__wait", {"name": "lost"})
        assert lost.is_error
        assert "it may have been carried out" in lost.content[0].text


async def test_an_unknown_credential_is_said_to_the_host_and_on_standard_error(broker, log):
    dead = "hl_a_" + "0" * 12 + "_" + "A" * 43
    with pytest.raises(ExceptionGroup) as raised:
        async with _client(broker, dead, "legacy", log) as client:
            await client.list_tools()
    told = raised.value.subgroup(MCPError)
    assert told is not None
    assert "haltline agents reissue" in "".join(traceback.format_exception(told))
    assert "does not accept the credential from HALTLINE_TOKEN" in log.text()
    assert "A" * 43 not in log.text()


async def test_a_revoked_session_reads_its_refusal(broker, log):
    [opened] = broker.open(["bot-revoked"], "wide")
    async with _client(broker, opened.token, "legacy", log) as client:
        assert not (await client.call_tool("sdk__echo", {"text": "1"})).is_error
        with broker.control() as control:
            control.revoke(opened.session, reason="as tested")
        assert "revoked" in (await client.call_tool("sdk__echo", {"text": "2"})).content[0].text


async def test_what_client_config_prints_for_claude_desktop_works_as_it_is(
    broker, token, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["-m"])
    url = f"http://127.0.0.1:{broker.agents_port}/mcp"
    assert main(["client-config", "claude-desktop", "--agent", "research-bot", "--agents-url", url]) == 0
    printed, said = capsys.readouterr()
    [server] = json.loads(printed)["mcpServers"].values()
    file = Path(server["args"][-1])
    assert str(file) in said
    assert file.is_relative_to(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text(token)
    file.chmod(0o600)
    # A host gives little of its environment; PYTHONPATH stands for the installation.
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": processes.environment()["PYTHONPATH"]}
    async with launched([server["command"], *server["args"]], environ, folder="/") as host:
        assert (await host.handshake())["result"]["serverInfo"]["name"] == "haltline"
        await host.call("sdk__echo", 1, {"text": "hello"})
        assert (await host.read())["result"]["content"][0]["text"] == "hello"
        host.close()
        code, took, errors = await host.ended()
    assert (code, errors) == (0, "")
    assert took < 5


async def test_the_broker_s_address_is_found_in_a_data_folder_that_is_named(broker, token, tmp_path):
    environ = {"PYTHONPATH": processes.environment()["PYTHONPATH"], "HALTLINE_TOKEN": token}
    command = [sys.executable, "-m", "haltline", "stdio", "--data", str(broker.data)]
    async with launched(command, environ, folder=tmp_path) as host:
        assert "result" in await host.handshake()


async def test_it_is_up_soon(broker, token, capsys):
    """Figures are printed, the promise is below one second."""
    took = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        async with launched([sys.executable, "-m", "haltline", "stdio"], _environ(broker, token)) as host:
            await host.send(INITIALIZE)
            assert "result" in await host.read()
            took.append((time.perf_counter() - begun) * 1000)
    with capsys.disabled():
        print(
            f"\nhaltline stdio, launch to answer of initialize: p50 {statistics.median(took):.0f} ms, max {max(took):.0f}"
        )
