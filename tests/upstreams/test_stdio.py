"""Calls to programs that misbehave, in real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.upstreams.isolation import OWN, key_of
from haltline.upstreams.model import Caller, NotSent, OutcomeUnknown, UpstreamSpec
from haltline.upstreams.stdio import StdioUpstream
from support.upstream_calls import ANN, BOB, Sent, alive, closing, text_of

SCRIPT = Path(__file__).parents[1] / "support" / "nasty_stdio.py"
MIB = 1024 * 1024


def program(*mode: str, **more: Any) -> StdioUpstream:
    settings: dict[str, Any] = {"max_result_bytes": 2 * MIB, "connect_timeout_s": 5, **more}
    return StdioUpstream(UpstreamSpec("tool", command=sys.executable, args=("-S", str(SCRIPT), *mode), **settings))


@pytest.fixture
async def tool() -> AsyncIterator[StdioUpstream]:
    async with closing(program()) as started:
        yield started


async def pid_of(upstream: StdioUpstream, caller: Caller = ANN) -> int:
    return int(text_of(await Sent()(upstream, "pid", caller=caller)))


async def gone(*pids: int) -> None:
    with anyio.fail_after(4):
        while any(alive(pid) for pid in pids):
            await anyio.sleep(0.01)


ENDS_THE_PROGRAM = {
    "huge": "too_large",
    "dies": "lost",
    "forks_and_dies": "lost",
    "closes_output": "lost",
    "closes_input": "lost",
    "floods": "too_large",
}
SPARES_THE_PROGRAM = {"deep": "malformed", "bad_utf8": "malformed", "torn": "malformed"}


@pytest.mark.promise("P5", "P7", "R10")
@pytest.mark.parametrize("what", ENDS_THE_PROGRAM)
async def test_a_program_that_breaks_ends_its_calls_at_once_and_no_process_is_left(
    tool: StdioUpstream, what: str
) -> None:
    mine, theirs = await pid_of(tool), await pid_of(tool, BOB)
    began, sent = time.monotonic(), Sent()
    with pytest.raises(OutcomeUnknown) as caught:
        await sent(tool, what, deadline_s=60)  # a flood is read at a bounded share of the loop's time
    assert caught.value.code == f"upstream.{ENDS_THE_PROGRAM[what]}"
    assert time.monotonic() - began < 30
    assert sent.asked == 1
    await gone(mine, *(int(pid) for pid in re.findall(r"grandchild (\d+)", caught.value.detail or "")))
    assert await pid_of(tool, BOB) == theirs
    assert await pid_of(tool) != mine


@pytest.mark.promise("P5", "R10")
@pytest.mark.parametrize("what", SPARES_THE_PROGRAM)
async def test_an_answer_that_cannot_be_read_fails_its_call_alone(tool: StdioUpstream, what: str) -> None:
    mine = await pid_of(tool)
    began = time.monotonic()
    results: list[str] = []

    async def neighbour() -> None:
        results.append(text_of(await Sent()(tool, "hold")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(neighbour)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(OutcomeUnknown) as caught:
            await Sent()(tool, what)
        await Sent()(tool, "release")
    assert caught.value.code == f"upstream.{SPARES_THE_PROGRAM[what]}"
    assert time.monotonic() - began < 4
    assert results == ["held"]
    assert await pid_of(tool) == mine


@pytest.mark.promise("R10")
@pytest.mark.parametrize("what", ["never", "wrong_id"])
async def test_no_answer_is_an_unknown_outcome_at_the_deadline(tool: StdioUpstream, what: str) -> None:
    mine = await pid_of(tool)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown) as caught:
        await Sent()(tool, what, deadline_s=0.2)
    assert caught.value.code == "upstream.timeout"
    assert time.monotonic() - began < 4
    assert await pid_of(tool) == mine


@pytest.mark.parametrize(("what", "text"), [("noise", "after noise"), ("one_by_one", "é"), ("chatters", "chattered")])
async def test_odd_output_around_an_answer_does_no_harm(tool: StdioUpstream, what: str, text: str) -> None:
    assert text_of(await Sent()(tool, what)) == text


async def test_a_large_answer_takes_linear_time() -> None:
    async with closing(program(max_result_bytes=8 * MIB)) as tool:
        await pid_of(tool)
        began = time.monotonic()
        assert len(text_of(await Sent()(tool, "large"))) == 4_000_000
        assert time.monotonic() - began < 10


@pytest.mark.promise("R11")
@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        (UpstreamSpec("tool", command="no-such-program-here"), "not found"),
        (UpstreamSpec("tool", command=sys.executable, cwd="/no/such/folder"), "not a folder"),
        (UpstreamSpec("tool", command=sys.executable, args=("-S", str(SCRIPT), "exits")), "no licence"),
        (UpstreamSpec("tool", command=sys.executable, args=("-S", str(SCRIPT), "old")), "1999-01-01"),
        (
            UpstreamSpec("tool", command=sys.executable, args=("-S", str(SCRIPT), "mute"), connect_timeout_s=0.1),
            "0.3 s",
        ),
    ],
)
async def test_a_program_that_does_not_start_is_not_sent_to_and_the_operator_sees_why(
    spec: UpstreamSpec, detail: str
) -> None:
    async with closing(StdioUpstream(spec)) as tool:
        sent = Sent()
        with pytest.raises(NotSent) as caught:
            await sent(tool, "pid")
        assert caught.value.code == "upstream.starting_failed"
        assert detail in (caught.value.detail or "")
        assert detail not in str(caught.value)
        assert sent.asked == 0


@pytest.mark.promise("R11")
async def test_a_program_that_keeps_failing_is_started_at_growing_intervals() -> None:
    async with closing(program("exits")) as tool:
        for _ in range(2):
            with pytest.raises(NotSent, match="does not start"):
                await Sent()(tool, "pid")
        began = time.monotonic()
        with pytest.raises(NotSent, match="does not start"):
            await Sent()(tool, "pid")
        assert time.monotonic() - began < 0.2  # not even tried


@pytest.mark.promise("R11")
async def test_a_start_that_takes_longer_than_the_call_may_wait_goes_on_for_the_next() -> None:
    async with closing(program()) as tool:
        with pytest.raises(NotSent) as caught:
            await Sent()(tool, "pid", deadline_s=0.001)
        assert caught.value.code == "upstream.unreachable"
        assert await pid_of(tool)


class Stopped(Exception):
    pass


@pytest.mark.promise("R17", "P3")
async def test_what_the_final_check_raises_comes_through_and_nothing_was_written(tool: StdioUpstream) -> None:
    mine = await pid_of(tool)
    with pytest.raises(Stopped):
        await Sent(refuse=Stopped())(tool, "dies")
    assert await pid_of(tool) == mine


@pytest.mark.promise("R17")
async def test_cancelling_tells_the_program_and_leaves_it_running(tool: StdioUpstream) -> None:
    mine = await pid_of(tool)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Sent(), tool, "never")
        await anyio.wait_all_tasks_blocked()
        began = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - began < 1
    assert await pid_of(tool) == mine
    session = tool._slots[(*key_of("agent", ANN), "")].session
    assert session is not None
    assert session.child is not None
    with anyio.fail_after(4):
        while "cancelled" not in (session.child.last_words or ""):
            await anyio.sleep(0.01)


@pytest.mark.promise("R32")
@pytest.mark.parametrize(("isolation", "processes"), [("agent", 2), ("session", 3), ("shared", 1)])
async def test_processes_are_shared_only_as_configured_and_end_with_whom_they_exist_for(
    isolation: Any, processes: int
) -> None:
    async with closing(program(isolation=isolation)) as tool:
        again = Caller(ANN.agent_id, "session_3")
        pids = [await pid_of(tool, caller) for caller in (ANN, again, BOB, ANN)]
        assert len(set(pids)) == processes
        began = time.monotonic()
        await tool.forget(ANN, session_only=True)
        assert [alive(pid) for pid in pids[:3]] == [isolation != "session", True, True]
        await tool.forget(ANN, session_only=False)
        assert [alive(pid) for pid in pids[:3]] == ([True] * 3 if isolation == "shared" else [False, False, True])
        assert time.monotonic() - began < 4
    assert not any(alive(pid) for pid in pids)


@pytest.mark.promise("R17")
@pytest.mark.parametrize("what", ["forks", "stubborn"])
async def test_forgetting_ends_the_stubborn_and_their_children_within_a_second(tool: StdioUpstream, what: str) -> None:
    mine = await pid_of(tool)
    child = int(text_of(await Sent()(tool, what)))
    began = time.monotonic()
    await tool.forget(ANN, session_only=False)
    assert time.monotonic() - began < 4
    await gone(mine, child)


@pytest.mark.promise("R17")
async def test_a_call_in_flight_is_unknown_when_its_process_is_ended(tool: StdioUpstream) -> None:
    await pid_of(tool)
    caught: list[OutcomeUnknown] = []

    async def call() -> None:
        with pytest.raises(OutcomeUnknown) as error:
            await Sent()(tool, "never")
        caught.append(error.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        await tool.forget(ANN, session_only=False)
    assert [error.code for error in caught] == ["upstream.lost"]


async def test_an_answer_written_just_before_the_end_still_arrives(tool: StdioUpstream) -> None:
    for number in range(3):
        caller = Caller(f"agent_{number}", "s")
        assert text_of(await Sent()(tool, "answers_and_exits", caller=caller)) == "bye"


async def test_a_program_is_started_once_for_many_who_come_at_once(tool: StdioUpstream) -> None:
    pids: set[int] = set()

    async def call() -> None:
        pids.add(await pid_of(tool))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call)
    assert len(pids) == 1


async def test_a_listener_that_breaks_ends_its_own_call_and_no_other(tool: StdioUpstream) -> None:
    mine = await pid_of(tool)

    def refuse(message: dict[str, Any]) -> None:
        raise RuntimeError(message["method"])

    with pytest.raises(RuntimeError, match="notifications/message"):
        await Sent()(tool, "log", on_notification=refuse)
    assert await pid_of(tool) == mine


@pytest.mark.promise("R10")
async def test_closing_ends_calls_in_flight_as_unknown() -> None:
    tool = program()
    mine = await pid_of(tool)
    caught: list[OutcomeUnknown] = []

    async def call() -> None:
        with pytest.raises(OutcomeUnknown) as error:
            await Sent()(tool, "never")
        caught.append(error.value)

    with anyio.fail_after(4):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            await tool.aclose()
    assert len(caught) == 1
    assert not alive(mine)
    with pytest.raises(NotSent):
        await Sent()(tool, "pid")


@pytest.mark.promise("P9")
async def test_a_program_gets_a_minimal_environment_and_what_is_configured() -> None:
    os.environ["HALTLINE_OPERATOR_TOKEN"] = "not for programs"
    try:
        async with closing(program(env={"API_KEY": "k", "HOME": "/elsewhere"})) as tool:
            env = json.loads(text_of(await Sent()(tool, "env")))
    finally:
        del os.environ["HALTLINE_OPERATOR_TOKEN"]
    assert (env["API_KEY"], env["HOME"]) == ("k", "/elsewhere")
    assert env.keys() <= {
        *("API_KEY", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "SSL_CERT_FILE"),
        *("TERM", "TMPDIR", "TZ", "USER"),
    }


@pytest.mark.promise("P11", "R32")
async def test_progress_reaches_the_call_whose_token_it_was_though_tokens_are_the_same(tool: StdioUpstream) -> None:
    calls = {token: Sent() for token in (0, "same", 7)}
    twin = Sent()
    async with anyio.create_task_group() as tasks:
        for token, sent in calls.items():
            tasks.start_soon(lambda t=token, s=sent: s(tool, "hold", meta={"progressToken": t}))
        tasks.start_soon(lambda: twin(tool, "hold", meta={"progressToken": "same"}))
        await pid_of(tool)
        await anyio.wait_all_tasks_blocked()
        await Sent()(tool, "release")
    for token, sent in [*calls.items(), ("same", twin)]:
        assert [one["params"] for one in sent.heard] == [{"progressToken": token, "progress": 1}]


async def test_progress_that_is_nobodys_is_dropped(tool: StdioUpstream) -> None:
    sent = Sent()
    await sent(tool, "foreign_progress", meta={"progressToken": "mine"})
    assert sent.heard == []


@pytest.mark.promise("R32")
async def test_a_log_message_is_heard_only_where_it_can_be_attributed(tool: StdioUpstream) -> None:
    alone, holding, beside = Sent(), Sent(), Sent()
    await alone(tool, "log", {"a": 1})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(holding, tool, "hold")
        await anyio.wait_all_tasks_blocked()
        await beside(tool, "log", {"a": 2})
        await Sent()(tool, "release")
    assert [one["params"]["data"] for one in alone.heard] == [{"a": 1}]
    assert (holding.heard, beside.heard) == ([], [])
    with pytest.raises(OutcomeUnknown):
        await Sent()(tool, "never", deadline_s=0.05)
    after = Sent()
    await after(tool, "log", {"a": 3})  # the call that was given up may still run
    assert after.heard == []


async def test_log_messages_are_dropped_where_agents_share_a_process() -> None:
    async with closing(program(isolation="shared")) as tool:
        sent = Sent()
        await sent(tool, "log")
        assert sent.heard == []


async def test_a_program_that_asks_is_answered_but_offered_nothing(tool: StdioUpstream) -> None:
    pong, refused = json.loads(text_of(await Sent()(tool, "asks")))
    assert pong == {"jsonrpc": "2.0", "id": "mine", "result": {}}
    assert (refused["id"], refused["error"]["code"]) == (7, -32601)


async def test_params_travel_unchanged_but_for_the_other_eras_envelope(tool: StdioUpstream) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "x": None, "big": 2**70}
    answer = json.loads(text_of(await Sent()(tool, "params", {"n": 1.0, "é": [None]}, meta=meta)))
    assert answer == {"name": "params", "arguments": {"n": 1.0, "é": [None]}, "_meta": {"x": None, "big": 2**70}}


async def test_a_change_of_its_tools_is_told_to_the_watcher(tool: StdioUpstream) -> None:
    changes: list[int] = []
    tool.watch(lambda: changes.append(1))
    assert [one["name"] for one in await tool.list_tools()] == ["pid"]
    await Sent()(tool, "changed")
    assert changes == [1]


@pytest.mark.promise("R32", "P5")
async def test_an_agent_that_holds_its_half_does_not_keep_another_waiting() -> None:
    async with closing(program(max_concurrent=2)) as tool:
        await pid_of(tool, BOB)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sent(), tool, "never")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(NotSent) as caught:
                await Sent()(tool, "pid", deadline_s=0.1)
            assert caught.value.code == "upstream.busy"
            assert await pid_of(tool, BOB)
            tasks.cancel_scope.cancel()


@pytest.mark.promise("R10", "P5")
async def test_a_program_killed_again_and_again_in_mid_call_ends_each_call_at_once() -> None:
    async with closing(program()) as tool:
        for _ in range(10):
            mine = await pid_of(tool)  # resets the back-off
            began = time.monotonic()
            with pytest.raises(OutcomeUnknown):
                await Sent()(tool, "dies")
            assert time.monotonic() - began < 4
            assert not alive(mine)


BROKER = """
import asyncio, sys
from haltline.upstreams.model import Caller, UpstreamCall, UpstreamSpec
from haltline.upstreams.stdio import StdioUpstream

async def main():
    tool = StdioUpstream(UpstreamSpec("tool", command=sys.executable, args=("-S", sys.argv[1])))
    params = {"name": sys.argv[2], "arguments": {}}
    answer = await tool.call(UpstreamCall(Caller("a", "s"), params, 30, lambda: None, print))
    print(answer["result"]["content"][0]["text"], flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends a child with its parent")
@pytest.mark.promise("P3")
async def test_a_broker_that_is_killed_leaves_no_stubborn_program_behind() -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "server"), str(root / "clients")])}
    command = [sys.executable, "-c", BROKER, str(SCRIPT), "stubborn"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert broker.stdout is not None
    try:
        pid = int(await anyio.to_thread.run_sync(broker.stdout.readline))
        assert alive(pid)
    finally:
        broker.send_signal(signal.SIGKILL)
        broker.wait(5)
        broker.stdout.close()
    await gone(pid)


async def test_the_broker_lists_with_a_process_of_its_own(tool: StdioUpstream) -> None:
    await tool.list_tools()
    await tool.forget(ANN, session_only=False)
    assert (*OWN, "") in tool._slots
