"""A task belongs to the agent whose call made it; asking about it is free, recorded, and stops when its agent is stopped."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from haltline.calls.attempts import Attempts
from haltline.calls.refusals import META_KEY
from haltline.gateway.face import Gateway
from support.scripted import ScriptedUpstream
from support.serving import served_face
from support.world import POLICY, world

SHAPES = {
    "2025-11-25": {"task": {"taskId": "t-1", "status": "working", "later": None}},
    "2026-07-28": {"resultType": "task", "taskId": "t-1", "status": "working", "later": None},
}


class Tasking(ScriptedUpstream):
    """Answers `charge` with a task, and what is asked about it with its method."""

    def __init__(self, made: dict[str, Any]) -> None:
        super().__init__()
        self.made = made
        self.capabilities = {
            "tasks": {"list": {}, "cancel": {}},
            "extensions": {"io.modelcontextprotocol/tasks": {}, "other": {}},
        }

    async def call(self, call):
        self.send(call)
        if call.method == "tasks/list":
            known = [{"taskId": "somebody else's"}, {"taskId": "t-1", "status": "working", "later": None}]
            following = {} if "cursor" in call.params else {"nextCursor": "2"}
            return {"result": {"tasks": known if following else [], **following}}
        if call.method == "tools/call":
            return {"result": self.made}
        return {"result": {"said": call.method, "taskId": call.params["taskId"]}}


@pytest.fixture(params=SHAPES)
async def s(request, tmp_path):
    async with world(tmp_path, policy=POLICY, upstreams=[Tasking(SHAPES[request.param])]) as w:
        gateway = Gateway(w.parts, w.broker, w.doorman, Attempts(w.parts.writer, w.parts.audit), "0.1.0")
        async with served_face(gateway) as url, httpx2.AsyncClient() as http:

            async def ask(token, method, **params):
                answer = await http.post(
                    url,
                    json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params},
                    headers={"Authorization": f"Bearer {token}", "MCP-Protocol-Version": "2025-11-25"},
                )
                return answer.json()

            yield w, ask


@pytest.mark.promise("P11")
async def test_what_asks_about_a_task_goes_to_its_upstream_free_and_recorded(s):
    w, ask = s
    session, token = await w.session(await w.agent())
    made = (await ask(token, "tools/call", name="payments__charge", arguments={}))["result"]
    assert made.get("taskId", made.get("task", {}).get("taskId")) == "t-1"
    for method in ("tasks/get", "tasks/result", "tasks/update", "tasks/cancel"):
        assert (await ask(token, method, taskId="t-1"))["result"] == {"said": method, "taskId": "t-1"}
    assert [charged for *_, charged in await w.holds()] == [50_000, 0, 0, 0, 0]
    assert [event.get("method") for event in await w.events("call.allowed")][1:] == [
        "tasks/get", "tasks/result", "tasks/update", "tasks/cancel",
    ]  # fmt: skip


@pytest.mark.promise("P5", "P3")
async def test_nobody_else_and_nobody_stopped_can_ask_about_it(s):
    w, ask = s
    session, token = await w.session(await w.agent())
    _, other = await w.session(await w.agent("other", "roomy"))
    await ask(token, "tools/call", name="payments__charge", arguments={})
    assert (await ask(other, "tasks/result", taskId="t-1"))["error"]["code"] == -32602
    assert (await ask(token, "tasks/get", taskId="t-2"))["error"]["code"] == -32602
    assert (await ask(token, "tasks/get", taskId=7))["error"]["code"] == -32602
    await w.run(lambda tx: w.parts.halts.set(tx, "session", session, code="operator.halt", text="x", by="operator:a"))
    halted = (await ask(token, "tasks/result", taskId="t-1"))["error"]
    assert halted["data"][META_KEY]["reasons"][0]["code"] == "session.halted"
    assert len(w.upstream.sent) == 1


@pytest.mark.promise("P5", "P11")
async def test_the_list_of_tasks_holds_the_agents_own_and_nothing_while_it_is_halted(s):
    w, ask = s
    session, token = await w.session(await w.agent())
    _, other = await w.session(await w.agent("other", "roomy"))
    assert (await ask(token, "tasks/list"))["result"] == {"tasks": []}
    assert w.upstream.sent == [], "who made none has nothing to be asked for"
    await ask(token, "tools/call", name="payments__charge", arguments={})
    listed = (await ask(token, "tasks/list"))["result"]
    assert listed == {"tasks": [{"taskId": "t-1", "status": "working", "later": None}]}
    assert (await ask(other, "tasks/list"))["result"] == {"tasks": []}
    assert (await ask(token, "tasks/list", cursor="2"))["error"]["code"] == -32602
    await w.run(lambda tx: w.parts.halts.set(tx, "session", session, code="operator.halt", text="x", by="operator:a"))
    assert (await ask(token, "tasks/list"))["result"] == {"tasks": []}


async def test_tasks_are_offered_as_upstreams_offer_them(s):
    _, ask = s
    w, _ = s
    _, token = await w.session(await w.agent())
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    offered = (await ask(token, "initialize", **params))["result"]["capabilities"]
    assert offered["tasks"] == {"list": {}, "cancel": {}}
    assert offered["extensions"] == {"io.modelcontextprotocol/tasks": {}}
