"""Python functions through the broker: priced by their own code, held, settled, stopped; in this process and as `serve`."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from haltline.policy.model import Reason
from haltline.setup.settings import load_settings
from haltline.upstreams.open import open_all, tool_defaults
from support.broker_process import broker_process
from support.callers import Caller
from support.world import Request, World, world

README = Path(__file__).parents[2] / "README.md"
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  roomy: {tools: ["*"], caps: {task: "10.00", day: "100.00"}}
tools:
  shop__refund: {price: "0.25"}
"""
TOOLS = """
import threading, haltline
from shop_test_gate import gate

@haltline.tool(price="0.05", destination="args.to")
def charge(to: str, amount: int = 1) -> dict[str, int]:
    return {"charged": amount}

@haltline.tool(price="0.01")
def refund(to: str) -> str:
    raise LookupError("nothing to refund")

@haltline.tool(side_effects=False)
def unpriced() -> str:
    return "free?"

@haltline.tool(price="0.10", timeout_s=0.2)
def hangs() -> str:
    gate.started.set()
    gate.go.wait(20)
    return "late"

@haltline.tool(price="0.10", side_effects=False)
def asks(ctx: haltline.Context) -> str:
    gate.started.set()
    ctx.cancelled.wait(20)
    return f"{ctx.agent} gave up"
"""


class Gate(ModuleType):
    """A module that the tools can import, and that the test holds."""

    def __init__(self) -> None:
        super().__init__("shop_test_gate")
        self.gate = self
        self.started, self.go = threading.Event(), threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Gate()
    monkeypatch.setitem(sys.modules, "shop_test_gate", made)
    yield made
    made.go.set()


@pytest.fixture
async def w(tmp_path: Path, gate: Gate) -> Any:
    (tmp_path / "shop.py").write_text(TOOLS)
    (tmp_path / "haltline.yaml").write_text("upstreams: {shop: {python: shop.py}}")
    settings = load_settings(tmp_path / "haltline.yaml", environ={})
    upstreams: Any = await open_all(settings.upstreams)
    defaults = tool_defaults(settings.upstreams, upstreams)
    async with world(tmp_path / "world", policy=POLICY, upstreams=upstreams, defaults=defaults) as made:
        yield made
        await upstreams[0].aclose()


async def opened(w: World) -> str:
    return (await w.session(await w.agent("ann", "roomy"), task="buy milk"))[1]


async def started(gate: Gate) -> None:
    with anyio.fail_after(30):
        assert await anyio.to_thread.run_sync(gate.started.wait, 10)


def text(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


@pytest.mark.promise("R6")
async def test_a_function_costs_what_its_code_says_unless_a_policy_entry_says_otherwise(w):
    token = await opened(w)
    assert (await w.call(token, "shop__charge", {"to": "me"}))["result"]["structuredContent"] == {"charged": 1}
    failed = await w.call(token, "shop__refund", {"to": "me"})
    assert failed["result"] == {
        "content": [{"type": "text", "text": "LookupError: nothing to refund"}],
        "isError": True,
    }
    unpriced = await w.call(token, "shop__unpriced")
    assert "charge.unpriced" in text(unpriced)
    wrong = await w.call(token, "shop__charge", {"to": "me", "amount": "much"})
    assert "args.schema" in text(wrong)
    assert await w.holds() == [
        ("shop__charge", "settled", 50_000, 50_000),
        ("shop__refund", "settled", 250_000, 250_000),
    ]
    allowed = await w.events("call.allowed")
    assert [event["price"] for event in allowed] == [
        "shop.py: shop__charge fixed 0.05",
        "policy.yaml: shop__refund fixed 0.25",
    ]


@pytest.mark.promise("R10", "R17")
async def test_a_function_that_hangs_is_in_doubt_at_its_deadline_and_its_late_result_is_dropped(w, gate):
    token = await opened(w)
    with capture_logs() as logs:
        answer = await w.call(token, "shop__hangs")
        assert "upstream.timeout" in text(answer)
        assert "it may have run" in text(answer)
        assert [one[1] for one in await w.holds()] == ["in_doubt"]
        assert (await w.call(token, "shop__charge", {"to": "me"}))["result"]["structuredContent"] == {"charged": 1}
        gate.go.set()
        with anyio.fail_after(30):
            while not any(one["event"] == "late_result_dropped" for one in logs):
                await anyio.sleep(0)


@pytest.mark.promise("P3", "R17")
async def test_a_stopped_thread_is_told_and_in_doubt_and_its_result_is_withheld(w, gate):
    token = await opened(w)
    request = Request(token, "shop__asks")
    answers: list[Any] = []

    async def call() -> None:
        answers.append(await w.send(request))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await started(gate)
        assert w.parts.calls.stop(everything=True, reason=Reason("session.revoked", "an operator revoked it")) == 1
    assert request.delivered == []
    assert "gave up" not in str(answers)
    assert [one[1] for one in await w.holds()] == ["in_doubt"]


# As a process


async def test_serve_offers_functions_and_ends_though_one_of_them_never_does(tmp_path):
    folder = tmp_path / "broker"
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "billing.py").write_text(
        dedent(
            """
            import threading, haltline

            @haltline.tool(price="0.05")
            def bill(amount: int, ctx: haltline.Context) -> dict[str, str | int]:
                ctx.progress(1, 2, "half way")
                return {"amount": amount, "agent": ctx.agent, "task": ctx.task}

            @haltline.tool(price="0.05", timeout_s=0.3)
            def stuck() -> str:
                threading.Event().wait()

            @haltline.tool(price="0.05", timeout_s=0.3)
            async def stuck_async() -> str:
                threading.Event().wait()
            """
        )
    )
    upstreams = {"billing": {"python": "./tools/billing.py"}, "broken": {"python": "./tools/gone.py"}}
    policy = POLICY.replace("  shop__refund", "  none__none")
    with broker_process(folder, upstreams=upstreams, policy=policy, more=("limits: {drain_s: 1}",)) as broker:
        broker.await_tools("billing__bill", "billing__stuck")
        (one,) = broker.open(["ann"], "roomy")
        for mode in ("stream", "json", "handshake"):
            caller = Caller(broker.agents_port, one.token, mode)
            assert (await caller.call("billing__bill", {"amount": 3})).said == {
                "amount": 3,
                "agent": "ann",
                "task": "a task",
            }
            caller.cut()
        caller = Caller(broker.agents_port, one.token, "json")
        with anyio.fail_after(20):
            for tool in ("billing__stuck", "billing__stuck_async"):
                stuck = await caller.call(tool, {})
                assert (stuck.kind, stuck.code) == ("refused", "upstream.timeout")
                said: Any = await caller.call("billing__bill", {"amount": 4})
                assert said.said["amount"] == 4
        with broker.control() as control:
            tools = control.list_tools()
            states = {state["name"]: state for state in tools["upstreams"]}
            prices = {tool["tool"]: (tool["price"], tool["matched_by"]) for tool in tools["tools"]}
        assert (states["billing"]["kind"], states["billing"]["state"]) == ("python", "ready")
        assert states["broken"]["state"] == "down"
        assert "gone.py: cannot be read: No such file or directory" in states["broken"]["detail"]
        assert prices["billing__bill"] == ("0.05", "billing.py:4")
        caller.cut()
        assert broker.stop() == 0
        assert broker.verify().code == 0


# As the README has it


def readme() -> tuple[str, str]:
    """The example's file and its lines of haltline.yaml."""
    section = README.read_text(encoding="utf-8").split("### Python functions as tools", 1)[1]
    section = re.split(r"\n##+ ", section, maxsplit=1)[0]
    (python,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (yaml,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    return python, yaml


async def test_the_readme_s_example_works_as_it_stands(tmp_path):
    python, yaml = readme()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "billing.py").write_text(python)
    (tmp_path / "haltline.yaml").write_text(yaml)
    settings = load_settings(tmp_path / "haltline.yaml", environ={})
    upstreams: Any = await open_all(settings.upstreams)
    defaults = tool_defaults(settings.upstreams, upstreams)
    async with world(tmp_path / "world", policy=POLICY, upstreams=upstreams, defaults=defaults) as w:
        token = await opened(w)
        tools = {tool.own_name: tool for tool in w.parts.catalog.tools()}
        assert set(tools) == {"charge", "balance"}
        charged = await w.call(token, "billing__charge", {"recipient": "acme", "amount": 12})
        assert charged["result"]["structuredContent"] == {"id": "ch_1", "amount": 12}
        declined = await w.call(token, "billing__charge", {"recipient": "nobody", "amount": 12})
        assert text(declined) == "nobody has no account; ask for another recipient"
        assert (await w.call(token, "billing__charge", {"recipient": "acme", "amount": 0}))["result"]["isError"] is True
        assert (await w.call(token, "billing__balance", {"account": "acme"}))["result"]["structuredContent"]
        assert [(hold[0], hold[3]) for hold in await w.holds()] == [
            ("billing__charge", 50_000), ("billing__charge", 50_000), ("billing__balance", 0),
        ]  # fmt: skip
        await upstreams[0].aclose()
