"""Python functions as tools: what agents are told of them, what a call gives, and what an author's mistake takes down."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import jsonschema_rs
import pytest
from structlog.testing import capture_logs

from haltline.upstreams.model import NotSent, OutcomeUnknown, UpstreamCall, UpstreamSpec
from haltline.upstreams.python import PythonUpstream
from support.upstream_calls import ANN, BOB, Sent, text_of

Load = Callable[..., Any]

TOOLS = '''
"""Tools of a shop."""
from __future__ import annotations

import asyncio
import threading
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import haltline
from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class Line(BaseModel):
    sku: str = Field(description="what is ordered")
    count: int = Field(1, ge=1)


class Receipt(BaseModel):
    total: Decimal
    lines: list[Line]
    on: date


class Pair(TypedDict):
    left: int
    right: int


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@haltline.tool(price="0.05", side_effects=True, destination="args.recipient", timeout_s=7)
def charge(
    recipient: Annotated[str, Field(description="whom", max_length=40)],
    lines: list[Line],
    note: Optional[str] = None,
    kind: Literal["now", "later"] = "now",
    colour: Colour = Colour.RED,
) -> Receipt:
    """Charge somebody.

    For what was ordered.
    """
    assert isinstance(lines[0], Line) and isinstance(colour, Colour)
    return Receipt(total=Decimal("0.10") * sum(line.count for line in lines), lines=lines, on=date(2026, 1, 2))


@haltline.tool
async def plain(text: str, ctx: haltline.Context) -> str:
    return f"{text} for {ctx.agent} on {ctx.task} in {ctx.session}"


@haltline.tool(side_effects=False, name="look-up")
def look(context: haltline.Context | None, *, copy: int = 3, model_config: str = "x") -> dict[str, int]:
    return {"copy": copy}


@haltline.tool
def pair(left: int) -> Pair:
    return {"left": left, "right": 2}


@haltline.tool
def tree() -> Tree:
    return Tree(name="a", children=[Tree(name="b")])


@haltline.tool
def numbers() -> list[int]:
    return [1, 2**70]


@haltline.tool
def nothing() -> None:
    return None


@haltline.tool
def anything(what: str):
    class Odd:
        pass

    async def later():
        return 1

    deep = []
    for _ in range(200):
        deep = [deep]
    return {
        "odd": Odd, "nan": lambda: float("nan"), "model": lambda: Line(sku="x"), "text": lambda: "as it is",
        "surrogate": lambda: "\\ud83d", "coroutine": later, "deep": lambda: deep, "huge": lambda: "x" * 3000,
        "map": lambda: {"a": 1}, "generator": lambda: (Odd() for _ in "x"),
    }[what]()


@haltline.tool
def liar() -> Pair:
    return {"left": "no", "right": 2}


@haltline.tool
def fails(how: str) -> str:
    if how == "intended":
        raise haltline.ToolError("The card was declined; ask for another.")
    if how == "path":
        open("/var/lib/shop/secrets/keys.txt")
    if how == "secret":
        raise RuntimeError("GET https://user:hunter2@shop.example/a/b?token=abcdef123456 said 500")
    if how == "exit":
        raise SystemExit(3)
    if how == "empty":
        raise KeyError
    class Rude(Exception):
        def __str__(self):
            raise ZeroDivisionError
    raise Rude


@haltline.tool
async def fails_async(how: str) -> str:
    if how == "exit":
        raise SystemExit(3)
    if how == "cancelled":
        raise asyncio.CancelledError
    raise ValueError("no such order")
'''


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Load]:
    """An upstream named shop, of a file with this text."""
    opened: list[PythonUpstream] = []

    def load(text: str = TOOLS, **settings: Any) -> PythonUpstream:
        path = tmp_path / f"shop{len(opened)}.py"
        path.write_text(dedent(text), encoding="utf-8")
        opened.append(PythonUpstream(UpstreamSpec("shop", python=str(path), **settings)))
        return opened[-1]

    yield load
    for upstream in opened:
        await upstream.aclose()


async def definitions(upstream: PythonUpstream) -> dict[str, Any]:
    return {one["name"]: one for one in await upstream.list_tools()}


# What agents are told


async def test_a_signature_becomes_a_schema_and_the_docstring_the_description(load):
    listed = await definitions(load())
    charge = listed["charge"]
    assert charge["description"] == "Charge somebody.\n\nFor what was ordered."
    schema = charge["inputSchema"]
    jsonschema_rs.validator_for(schema)
    assert (schema["type"], schema["additionalProperties"], schema["required"]) == (
        "object",
        False,
        ["recipient", "lines"],
    )
    assert schema["properties"]["recipient"] == {"description": "whom", "maxLength": 40, "type": "string"}
    assert schema["properties"]["lines"] == {"items": {"$ref": "#/$defs/Line"}, "type": "array"}
    assert schema["$defs"]["Line"]["properties"]["sku"] == {"description": "what is ordered", "type": "string"}
    assert schema["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert schema["properties"]["kind"]["enum"] == ["now", "later"]
    assert list(listed) == [
        "charge", "plain", "look-up", "pair", "tree", "numbers", "nothing", "anything", "liar", "fails", "fails_async",
    ]  # fmt: skip
    json.dumps(listed)


async def test_the_context_is_never_in_the_schema(load):
    listed = await definitions(load())
    assert list(listed["plain"]["inputSchema"]["properties"]) == ["text"]
    assert list(listed["look-up"]["inputSchema"]["properties"]) == ["copy", "model_config"]


async def test_what_is_declared_is_in_the_definition_and_known_for_the_policy(load):
    shop = load()
    listed = await definitions(shop)
    assert listed["charge"]["annotations"] == {"readOnlyHint": False}
    assert listed["charge"]["_meta"] == {"io.haltline/destination": "args.recipient"}
    assert listed["look-up"]["annotations"] == {"readOnlyHint": True}
    assert not {"annotations", "_meta", "description"} & set(listed["plain"])
    declared = shop.declared
    charge, look, plain = declared["shop__charge"], declared["shop__look-up"], declared["shop__plain"]
    assert (charge.price, charge.read_only, charge.timeout_s) == ("0.05", False, 7)
    assert (look.price, look.read_only, look.timeout_s) == (None, True, None)
    assert (plain.price, plain.read_only) == (None, None)
    assert charge.where == f"shop0.py:{TOOLS.splitlines().index(TOOLS[TOOLS.index('@haltline') :].splitlines()[0]) + 1}"


async def test_a_prefix_of_the_upstream_holds_for_what_is_declared_too(load):
    for prefix, name in (("", "charge"), ("till", "till__charge")):
        shop = load(prefix=prefix)
        await shop.load()
        assert name in shop.declared


async def test_objects_have_an_output_schema_and_structured_content_and_all_else_is_text(load):
    shop = load()
    listed = await definitions(shop)
    with_output = {name for name, one in listed.items() if "outputSchema" in one}
    assert with_output == {"charge", "look-up", "pair", "tree", "liar"}
    for name, arguments in {
        "charge": {"recipient": "me", "lines": [{"sku": "a", "count": 3}]}, "look-up": {}, "pair": {"left": 1}, "tree": {},
    }.items():  # fmt: skip
        result = (await Sent()(shop, name, arguments))["result"]
        jsonschema_rs.validator_for(listed[name]["outputSchema"]).validate(result["structuredContent"])
        assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
        assert "isError" not in result
    receipt = (await Sent()(shop, "charge", {"recipient": "me", "lines": [{"sku": "a", "count": 3}]}))["result"]
    assert receipt["structuredContent"] == {
        "total": "0.30", "lines": [{"sku": "a", "count": 3}], "on": "2026-01-02",
    }  # fmt: skip
    assert await Sent()(shop, "numbers") == {"result": {"content": [{"type": "text", "text": f"[1,{2**70}]"}]}}
    assert await Sent()(shop, "nothing") == {"result": {"content": []}}
    assert text_of(await Sent()(shop, "anything", {"what": "text"})) == "as it is"
    assert text_of(await Sent()(shop, "anything", {"what": "model"})) == '{"sku":"x","count":1}'
    assert "structuredContent" not in (await Sent()(shop, "anything", {"what": "map"}))["result"]


async def test_a_function_knows_who_calls_it_and_on_which_task(load):
    caller = type(ANN)(ANN.agent_id, ANN.session_id, "ann", "buy milk")
    answer = await Sent()(load(), "plain", {"text": "hello"}, caller=caller)
    assert text_of(answer) == "hello for ann on buy milk in session_1"
    assert text_of(await Sent()(load(), "look-up", {"copy": 4})) == '{"copy":4}'


async def test_a_marked_function_stays_the_function_that_it_was():
    import haltline

    @haltline.tool(price="1")
    def double(n: int) -> int:
        return 2 * n

    heard = []
    context = haltline.Context(agent="a", report=lambda *one: heard.append(one))
    context.progress(1, 2, "half")
    assert (double(2), heard, bool(context.cancelled)) == (4, [(1, 2, "half")], False)
    with pytest.raises(AttributeError, match="no attribute 'tools'"):
        _ = haltline.tools


# Errors that a call gives


async def test_arguments_that_do_not_fit_are_said_in_short_and_without_their_values(load):
    lines = [{"sku": "secret-value", "count": -1}] * 9
    answer = await Sent()(load(), "charge", {"recipient": "x" * 41, "lines": lines, "colour": "green", "more": 1})
    said = text_of(answer)
    assert answer["result"]["isError"] is True
    assert said.startswith(
        "The arguments do not fit charge: recipient: String should have at most 40 characters; lines.0.count:"
    )
    assert said.endswith("and 7 more")
    assert "more: there is no such argument" in text_of(await Sent()(load(), "look-up", {"more": 1}))
    assert "secret-value" not in said
    assert "pydantic" not in said
    assert "lines: is missing" in text_of(await Sent()(load(), "charge", {"recipient": "a"}))


@pytest.mark.promise("P9")
@pytest.mark.parametrize(
    ("tool", "how", "says"),
    [
        ("fails", "intended", "The card was declined; ask for another."),
        ("fails", "path", "FileNotFoundError: [Errno 2] No such file or directory: '…/keys.txt'"),
        ("fails", "secret", "RuntimeError: GET https://[redacted]@shop.example/a/b?token=[redacted] said 500"),
        ("fails", "exit", "SystemExit: 3"),
        ("fails", "empty", "KeyError"),
        ("fails", "rude", "Rude"),
        ("fails_async", "value", "ValueError: no such order"),
        ("fails_async", "exit", "SystemExit: 3"),
        ("fails_async", "cancelled", "fails_async was cancelled"),
    ],
)
async def test_an_exception_is_a_readable_error_and_its_traceback_is_in_the_log(load, tool, how, says):
    shop = load()
    with capture_logs() as logs:
        answer = await Sent()(shop, tool, {"how": how})
    assert answer == {"result": {"content": [{"type": "text", "text": says}], "isError": True}}
    raised = [one for one in logs if one["event"] == "tool_raised"]
    assert len(raised) == (how not in {"intended", "cancelled"})
    assert all(one["exc_info"].__traceback__ is not None for one in raised)
    assert text_of(await Sent()(shop, "plain", {"text": "still here"})).startswith("still here")


@pytest.mark.parametrize(
    ("tool", "what", "says"),
    [
        ("anything", "odd", "anything returned what cannot be written as JSON"),
        ("anything", "nan", "anything returned what cannot be written as JSON"),
        ("anything", "generator", "anything returned what cannot be written as JSON"),
        ("anything", "surrogate", "anything returned what cannot be written as JSON"),
        ("anything", "deep", "anything returned what cannot be written as JSON: nested too deeply"),
        ("anything", "huge", "The result of anything is larger than the 2048 bytes allowed"),
        ("anything", "coroutine", "anything returned something to await; its author must write it as async def"),
        ("liar", "", "liar returned what it does not declare: left: Input should be a valid integer"),
    ],
)
async def test_a_result_that_is_not_json_or_too_large_or_other_than_declared_is_a_readable_error(
    load, tool, what, says
):
    with capture_logs():
        answer = await Sent()(load(max_result_bytes=2048), tool, {"what": what} if what else {})
    assert answer["result"]["isError"] is True
    assert text_of(answer).startswith(says)


async def test_other_methods_and_other_tools_are_errors_of_the_protocol(load):
    shop = load()
    assert (await Sent()(shop, "gone"))["error"]["code"] == -32602
    call = UpstreamCall(ANN, {}, 1, lambda: None, lambda _: None, method="prompts/list")
    assert (await shop.call(call))["error"]["code"] == -32601
    assert shop.capabilities == {}


# Beside the broker


WAITS = """
import asyncio, threading, time, haltline

class Gate:
    def __init__(self):
        self.started, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()

import builtins
gate = builtins.haltline_test_gate

@haltline.tool
def waits() -> str:
    gate.started.set()
    gate.go.wait(20)
    gate.ended.set()
    return "late"

@haltline.tool
def asks(ctx: haltline.Context) -> str:
    gate.started.set()
    gate.seen = ctx.cancelled.wait(20) and bool(ctx.cancelled)
    gate.ended.set()
    return "gave up"

@haltline.tool
async def sleeps() -> str:
    gate.started.set()
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        gate.seen = "cancelled"
        raise
    finally:
        gate.ended.set()
    return "slept"

@haltline.tool
async def blocks() -> str:
    gate.started.set()
    gate.go.wait(20)
    return "blocked"

@haltline.tool
def quick() -> str:
    return "quick"

@haltline.tool
def counts(n: int, ctx: haltline.Context) -> str:
    for i in range(n):
        ctx.progress(i + 1, n, f"step {i + 1}")
    return "counted"

@haltline.tool
async def counts_async(ctx: haltline.Context) -> str:
    ctx.progress(0.5)
    ctx.progress("a lot")
"""


class Gate:
    def __init__(self) -> None:
        self.started, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.seen: Any = None


@pytest.fixture
def gate() -> Any:
    import builtins

    opened = Gate()
    builtins.haltline_test_gate = opened  # type: ignore[attr-defined]
    yield opened
    opened.go.set()
    del builtins.haltline_test_gate  # type: ignore[attr-defined]


async def happened(event: threading.Event) -> None:
    with anyio.fail_after(30):
        assert await asyncio.to_thread(event.wait, 5)


async def given_back(shop: PythonUpstream, places: int) -> None:
    with anyio.fail_after(30):
        while shop._places._free != places:
            await anyio.sleep(0)


async def test_a_function_that_blocks_blocks_neither_the_broker_nor_the_others(load, gate):
    shop = load(WAITS)
    async with anyio.create_task_group() as tasks:
        for blocking in ("waits", "blocks"):
            tasks.start_soon(Sent(), shop, blocking)
            await happened(gate.started)
            gate.started.clear()
        with anyio.fail_after(30):
            assert text_of(await Sent()(shop, "quick", caller=BOB)) == "quick"
        gate.go.set()


@pytest.mark.promise("R10", "R17")
@pytest.mark.parametrize("tool", ["waits", "sleeps", "blocks"])
async def test_at_the_deadline_the_outcome_is_unknown_and_the_place_is_taken_until_it_ends(load, gate, tool):
    shop = load(WAITS, max_concurrent=1)
    await shop.load()
    sent = Sent()
    with capture_logs() as logs:
        with pytest.raises(OutcomeUnknown) as caught:
            await sent(shop, tool, deadline_s=0.2)
        assert (caught.value.code, sent.asked) == ("upstream.timeout", 1)
        if tool == "sleeps":
            await happened(gate.ended)
            assert gate.seen == "cancelled"
        else:
            refused = Sent()
            with pytest.raises(NotSent) as busy:
                await refused(shop, "quick", deadline_s=0.05, caller=BOB)
            assert (busy.value.code, refused.asked) == ("upstream.busy", 0)
            gate.go.set()
        await given_back(shop, 1)
    late = [one for one in logs if one["event"] == "late_result_dropped"]
    assert [(one["tool"], one["session"]) for one in late] == ([] if tool == "sleeps" else [(tool, "session_1")])
    assert text_of(await Sent()(shop, "quick")) == "quick"


@pytest.mark.promise("R17")
@pytest.mark.parametrize("tool", ["asks", "sleeps"])
async def test_a_cancelled_call_cancels_a_task_and_tells_a_thread(load, gate, tool):
    shop = load(WAITS, max_concurrent=1)
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sent(), shop, tool)
            await happened(gate.started)
            tasks.cancel_scope.cancel()
        await happened(gate.ended)
        await given_back(shop, 1)
    assert gate.seen == (True if tool == "asks" else "cancelled")
    assert [one["event"] for one in logs] == (["late_result_dropped"] if tool == "asks" else [])


@pytest.mark.promise("R17")
@pytest.mark.parametrize("tool", ["waits", "sleeps"])
async def test_a_call_that_may_not_be_sent_does_not_run(load, gate, tool):
    shop = load(WAITS, max_concurrent=1)
    with pytest.raises(LookupError):
        await Sent(refuse=LookupError())(shop, tool)
    await given_back(shop, 1)
    assert not gate.started.is_set()


async def test_an_agent_s_stuck_functions_leave_places_to_the_others(load, gate):
    shop = load(WAITS, max_concurrent=2)
    with pytest.raises(OutcomeUnknown):
        await Sent()(shop, "waits", deadline_s=0.1)
    with pytest.raises(NotSent, match="busy"):
        await Sent()(shop, "quick", deadline_s=0.05)
    assert text_of(await Sent()(shop, "quick", caller=BOB)) == "quick"


async def test_progress_reaches_the_caller_in_order_before_the_result_and_only_where_it_asked(load, gate):
    shop = load(WAITS)
    sent = Sent()
    assert text_of(await sent(shop, "counts", {"n": 50}, meta={"progressToken": 0})) == "counted"
    assert [one["params"]["progress"] for one in sent.heard] == list(range(1, 51))
    assert sent.heard[0] == {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": 0, "progress": 1, "total": 50, "message": "step 1"},
    }
    silent = Sent()
    await silent(shop, "counts", {"n": 2})
    assert silent.heard == []
    odd = Sent()
    answer = await odd(shop, "counts_async", meta={"progressToken": "p"})
    assert text_of(answer) == "TypeError: progress is told in numbers, not as 'a lot'"
    assert [one["params"] for one in odd.heard] == [{"progressToken": "p", "progress": 0.5}]
    flood = Sent()
    await flood(shop, "counts", {"n": 12_000}, meta={"progressToken": 1})
    assert len(flood.heard) == 10_000


async def test_closing_ends_what_can_be_ended_and_waits_for_nothing_else(load, gate):
    shop = load(WAITS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Sent(), shop, "sleeps")
        await happened(gate.started)
        with anyio.fail_after(30):
            await shop.aclose()
        await happened(gate.ended)


async def test_many_calls_at_once_each_get_their_own_answer(load):
    shop = load(
        """
        import haltline
        @haltline.tool
        def sync(n: int) -> int:
            return n
        @haltline.tool
        async def task(n: int) -> int:
            return n
        """,
        max_concurrent=8,
    )
    got: list[tuple[int, str]] = []

    async def one(number: int) -> None:
        name = ("sync", "task")[number % 2]
        got.append((number, text_of(await Sent()(shop, name, {"n": number}))))

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, number)
    assert sorted(got) == [(number, str(number)) for number in range(100)]
    await given_back(shop, 8)


@pytest.mark.promise("R11")
@pytest.mark.parametrize("tool", ["sync", "task"])
async def test_a_call_whose_time_is_over_before_it_begins_does_not_run(load, tool):
    shop = load(
        """
        import haltline
        @haltline.tool
        def sync() -> str: raise AssertionError("it ran")
        @haltline.tool
        async def task() -> str: raise AssertionError("it ran")
        """
    )
    sent = Sent()
    with pytest.raises(NotSent):
        await sent(shop, tool, deadline_s=0)
    assert sent.asked == 0
    assert shop._places._free == 32
