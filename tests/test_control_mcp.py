from __future__ import annotations

import json

import jsonschema_rs
import pytest

from haltline.control_tools import CONTROL_TOOLS
from haltline.wire.messages import Unauthorized
from support.control_answers import all_answers
from support.desk import Desk, Exchange, desk


@pytest.fixture
async def at(tmp_path):
    async with desk(tmp_path) as found:
        yield found


async def test_every_control_tool_is_listed_with_what_a_client_needs_to_know(at: Desk) -> None:
    answer = await at.face.handle(Exchange("tools/list", {}, at.local))
    assert (answer["result"]["cacheScope"], answer["result"]["resultType"]) == ("private", "complete")
    tools = {tool["name"]: tool for tool in answer["result"]["tools"]}
    assert set(tools) == set(all_answers())
    for tool in tools.values():
        assert tool["title"]
        assert len(tool["description"]) > 20
        assert tool["inputSchema"]["additionalProperties"] is False
        assert tool["outputSchema"]["type"] == "object"
        jsonschema_rs.meta.validate(tool["inputSchema"])
        jsonschema_rs.meta.validate(tool["outputSchema"])
        for described in tool["inputSchema"]["properties"].values():
            assert described["description"]
    hints = {name: tool["annotations"] for name, tool in tools.items()}
    reading = {name for name, hint in hints.items() if hint["readOnlyHint"]}
    assert reading == {name for name in tools if name.startswith(("list_", "show_"))} | {
        "status", "query_audit", "explain_decision", "review_tools", "alert_stats", "check_ledger",
    }  # fmt: skip
    destroying = {name for name, hint in hints.items() if hint["destructiveHint"]}
    assert {"revoke", "halt", "revoke_operator"} <= destroying
    assert not reading & destroying
    assert hints["revoke"]["idempotentHint"]
    assert hints["halt"]["idempotentHint"]
    assert not hints["open_session"]["idempotentHint"]


async def test_the_handshake_era_gets_no_fields_of_the_later_one(at: Desk) -> None:
    listed = await at.face.handle(Exchange("tools/list", {}, at.person, modern=False))
    assert set(listed["result"]) == {"tools"}
    called = await at.answer("status", {}, at.person, modern=False)
    assert set(called["result"]) == {"content", "structuredContent", "isError"}
    assert "resultType" in (await at.answer("status", {}, at.person))["result"]


@pytest.mark.parametrize("name", [tool.name for tool in CONTROL_TOOLS])
def test_the_clients_examples_are_answers_that_the_schemas_promise(name: str) -> None:
    tool = next(tool for tool in CONTROL_TOOLS if tool.name == name)
    example = all_answers()[name]
    if callable(example):
        example = example({"call": "call_1", "outcome": "settle"})
    validator = jsonschema_rs.validator_for(tool.definition()["outputSchema"])
    validator.validate(example)
    validator.validate({"error": {"code": "request.invalid", "message": "why"}})
    assert not validator.is_valid({})


@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "tools/call"])
async def test_every_request_is_admitted_first(at: Desk, method: str) -> None:
    for token, code in ((None, "credential.missing"), ("hl_s_x", "credential.malformed")):
        for params in ({}, {"name": "no_such_tool"}, {"name": 7}):
            answer = await at.face.handle(Exchange(method, params, token))
            assert isinstance(answer, Unauthorized)
            assert answer.code == code
    assert isinstance(await at.face.admit("hl_o_x", "127.0.0.1"), Unauthorized)
    assert await at.face.admit(at.local, "127.0.0.1") is None


async def test_what_is_no_call_is_a_protocol_error_and_other_methods_are_none(at: Desk) -> None:
    for params, words in (
        ({"name": "drop_tables"}, "Unknown tool: drop_tables"),
        ({"name": 7}, '"name" must be a string'),
        ({"name": "status", "arguments": []}, '"arguments" must be an object'),
    ):
        answer = await at.face.handle(Exchange("tools/call", params, at.person))
        assert answer["error"]["code"] == -32602
        assert words in answer["error"]["message"]
    answer = await at.face.handle(Exchange("tools/list", {"cursor": "x"}, at.person))
    assert answer["error"]["code"] == -32602
    assert await at.face.handle(Exchange("prompts/list", {}, at.person)) is None


@pytest.mark.promise("P9")
async def test_what_nobody_expected_is_answered_by_a_reference_alone(at: Desk) -> None:
    await at.agent()
    await at.run(lambda tx: tx.execute("""UPDATE agents SET caps = '{"secret-cap": 1}'"""))
    answer = await at.answer("list_agents", {}, at.person)
    assert answer["result"]["isError"]
    error = answer["result"]["structuredContent"]["error"]
    assert error["code"] == "error.internal"
    text = json.dumps(answer)
    assert "secret-cap" not in text
    assert "ValueError" not in text


@pytest.mark.promise("P1", "P6")
async def test_an_act_that_cannot_be_recorded_is_not_done_and_says_so(at: Desk) -> None:
    await at.parts.writer.aclose()
    answer = await at.answer("halt", {"target": "everything", "reason": "incident"}, at.person)
    assert answer["result"]["isError"]
    assert answer["result"]["structuredContent"]["error"]["code"] == "store.unavailable"
