"""Sessions that an agent opens for its sub-agents (R20): narrower, on its budget, ended with it; over the real parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from haltline.calls.admission import Doorman
from haltline.calls.call import NoSuchTool
from haltline.children import Children
from haltline.gateway.face import Gateway
from haltline.policy.model import Halt, Reason
from haltline.rules.firing import cancel
from haltline.upstreams.drill import DrillUpstream
from haltline.upstreams.own import OwnUpstream
from support.desk import Desk, desk
from support.serving import served_face
from support.world import Request, send

pytestmark = pytest.mark.promise("R20")

POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  leading:
    tools: ["payments__*"]
    caps: {task: "1.00", day: "5.00", calls: 100}
    children: {most: 3, depth: 2}
    session_expires: 8h
  alone:
    tools: ["*"]
    caps: {task: "1.00"}
tools:
  payments__charge: {price: "0.05"}
  payments__refund: {price: "0.05"}
  payments__look: {price: "0", read_only: true}
  payments__slow: {price: {result: structuredContent.cost, at_most: "0.40"}}
"""
OPEN = "haltline__open_session"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, policy=POLICY) as found:
        await found.parts.catalog.keep_own(OwnUpstream(Children(found.parts).open))
        await found.agent(tier="leading")
        yield found


async def call(at: Desk, token: str, tool: str = "payments__charge", **arguments: Any) -> Any:
    request = Request(token, tool, arguments)
    returned = await send(at.parts, at.broker, request)
    return (request.delivered[0] if request.delivered else returned)["result"]


def said(result: Any) -> str:
    return result["content"][0]["text"]


async def child(at: Desk, token: str, **arguments: Any) -> Any:
    result = await call(at, token, OPEN, **{"task": "look up prices", "budget": "0.50", **arguments})
    assert not result["isError"], said(result)
    return result["structuredContent"]


async def spent(at: Desk, session: str) -> int:
    return (await at.ask("show_session", session=session))["spent"]["micros"]


async def test_what_a_child_spends_counts_in_every_session_above_it(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"])
    two = await child(at, one["token"], budget="0.20")
    for token in (root["token"], one["token"], two["token"]):
        assert "isError" not in await call(at, token)
    assert [await spent(at, one["session"]) for one in (root, one, two)] == [150_000, 100_000, 50_000]
    at.parts.ledger.forget()
    assert [await spent(at, one["session"]) for one in (root, one, two)] == [150_000, 100_000, 50_000]


async def test_a_child_that_reaches_its_slice_is_halted_alone(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"], budget="0.10")
    results = [said(await call(at, one["token"])) for _ in range(4)]
    assert [text.partition(":")[0] for text in results[2:]] == [
        "Halted [budget.task_exceeded]",
        "Halted [session.halted]",
    ]
    assert "isError" not in await call(at, root["token"])
    assert (await at.ask("show_session", session=one["session"]))["state"] == "halted"
    assert (await at.ask("show_session", session=root["session"]))["state"] == "open"


@pytest.mark.promise("P2", "P12")
async def test_the_root_s_cap_halts_the_root_and_with_it_every_child(at: Desk) -> None:
    root = await at.session(caps={"task": "0.20"})
    other = await at.session()
    one, two = await child(at, root["token"], budget="0.20"), await child(at, root["token"], budget="0.20")
    for _ in range(2):
        await call(at, one["token"])
        await call(at, two["token"])
    refused = await call(at, two["token"])
    assert said(refused).startswith(f"Halted [budget.task_exceeded]: of session {root['session']}")
    for token in (root["token"], one["token"], two["token"]):
        assert "session.halted" in said(await call(at, token))
    assert "isError" not in await call(at, other["token"])
    assert [row.subject_id for row in await at.run(at.parts.halts.all_set)] == [root["session"]]
    denied = (await at.events("call.denied"))[0]
    assert (denied["session"], denied["owner"]) == (two["session"], root["session"])
    assert denied["above"][root["session"]]["task"] == [200_000, 0]


@pytest.mark.promise("P2")
async def test_a_bill_that_breaks_a_cap_above_halts_its_owner_with_the_child(at: Desk) -> None:
    async def bills(_: Any) -> dict[str, Any]:
        return {"result": {"content": [], "structuredContent": {"cost": "0.70"}}}

    root = await at.session(caps={"task": "0.60"})
    one = await child(at, root["token"])
    at.upstream.script["slow"] = bills
    await call(at, one["token"], "payments__slow")
    halted = {row.subject_id: row.code for row in await at.run(at.parts.halts.all_set)}
    assert halted == {root["session"]: "charge.overage", one["session"]: "charge.overage"}
    assert "session.halted" in said(await call(at, root["token"], "payments__look"))


@pytest.mark.promise("P2")
async def test_no_cap_above_is_passed_by_children_that_call_at_once(at: Desk) -> None:
    root = await at.session(caps={"task": "0.50"})
    opened = [await child(at, root["token"]) for _ in range(3)]
    tokens = [root["token"], *(one["token"] for one in opened)]
    answers: Counter[bool] = Counter()

    async def ask(token: str) -> None:
        answers["isError" in await call(at, token)] += 1

    async with anyio.create_task_group() as tasks:
        for token in tokens * 10:
            tasks.start_soon(ask, token)
    assert answers == {False: 10, True: 30}
    assert len(at.upstream.sent) == 10
    assert await spent(at, root["session"]) == 500_000


@pytest.mark.promise("R17", "R19")
async def test_revoking_a_session_ends_its_children_and_withholds_what_they_run(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"])
    two = await child(at, one["token"], budget="0.20")
    at.upstream.script["refund"] = at.upstream.waiting
    request = Request(two["token"], "payments__refund")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, at.parts, at.broker, request)
        with anyio.fail_after(30):
            await at.upstream.started.wait()
        revoked = await at.ask("revoke", target=root["session"], reason="wrong task")
    assert sorted(revoked["sessions"]) == sorted([root["session"], one["session"], two["session"]])
    assert revoked["calls_cancelled"] == 1
    assert request.delivered == []
    for token in (one["token"], two["token"]):
        assert "session.revoked" in said(await call(at, token))


@pytest.mark.promise("R16", "R17")
async def test_a_halt_of_a_session_reaches_its_children_until_it_is_resumed(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"])
    at.upstream.script["refund"] = at.upstream.waiting
    request = Request(one["token"], "payments__refund")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, at.parts, at.broker, request)
        with anyio.fail_after(30):
            await at.upstream.started.wait()
        halted = await at.ask("halt", target=root["session"], reason="look at it")
    assert (halted["calls_cancelled"], request.delivered) == (1, [])
    refused = said(await call(at, one["token"]))
    assert refused.startswith("Halted [session.halted]")
    assert root["session"] in refused
    assert (await at.ask("show_session", session=one["session"]))["state"] == "halted"
    with pytest.raises(Exception, match=f"haltline resume {root['session']}"):
        await at.ask("resume", target=one["session"], reason="go on")
    await at.ask("resume", target=root["session"], reason="looked")
    assert "isError" not in await call(at, one["token"])


async def test_a_child_is_never_wider_or_longer_than_what_opened_it(at: Desk) -> None:
    root = await at.session(tools=["payments__charge", OPEN], expires_in="1h")
    one = await child(at, root["token"], tools=["*"], expires_in="7h")
    assert one["expires_at"] == root["expires_at"]
    assert "isError" not in await call(at, one["token"])
    assert said(await call(at, one["token"], "payments__refund")).startswith("Denied [scope.tool]: of session")
    narrow = await child(at, root["token"], tools=["payments__look"])
    assert "scope.tool" in said(await call(at, narrow["token"]))
    plain = await child(at, root["token"])
    assert plain["tools"] == ["payments__charge", OPEN]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"budget": "1.01"}, "1.00 USD are left of the task cap"),
        ({"budget": "-1"}, "budget"),
        ({"budget": "plenty"}, "budget"),
        ({"tools": ["pay ments"]}, "pay ments"),
        ({"expires_in": "soon"}, "soon"),
        ({"task": " "}, "task"),
        ({"calls": 0}, "args.schema"),
        ({"why": "?"}, "args.schema"),
    ],
)
async def test_what_cannot_be_opened_is_said_and_nothing_is_opened(
    at: Desk, arguments: dict[str, Any], says: str
) -> None:
    root = await at.session()
    result = await call(at, root["token"], OPEN, **{"task": "look", "budget": "0.10", **arguments})
    assert result["isError"]
    assert says in said(result)
    assert len((await at.ask("list_sessions"))["sessions"]) == 1


async def test_so_many_and_so_deep_and_no_further(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"])
    two = await child(at, one["token"], budget="0.10")
    deeper = await call(at, two["token"], OPEN, task="more", budget="0.01")
    assert "2 deep" in said(deeper)
    await child(at, root["token"])
    assert "3 sessions are open" in said(await call(at, root["token"], OPEN, task="more", budget="0.01"))
    await at.ask("revoke", target=one["session"], reason="done")
    await child(at, root["token"])


async def test_only_an_agent_with_the_grant_sees_and_calls_the_tool(at: Desk) -> None:
    await at.agent("single", "alone")
    tokens = {"leading": (await at.session())["token"], "alone": (await at.session("single"))["token"]}
    gateway = Gateway(
        at.parts, at.broker, Doorman(at.parts.identity, at.parts.halts, at.parts.audit, 900.0), at.attempts, "0"
    )
    async with served_face(gateway) as url:
        for tier, token in tokens.items():
            async with create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http:
                async with Client(streamable_http_client(url, http_client=http)) as client:
                    listed = [tool.name for tool in (await client.list_tools()).tools]
                    result = await client.call_tool(OPEN, {"task": "look", "budget": "0.10"})
            assert (OPEN in listed) == (tier == "leading")
            assert result.is_error is (tier == "alone")


@pytest.mark.promise("P9")
async def test_a_child_s_credential_is_nowhere_in_the_records(at: Desk) -> None:
    root = await at.session()
    request = Request(root["token"], OPEN, {"task": "look", "budget": "0.10"})
    request.params = {**request.params, "_meta": {"io.haltline/idempotency-key": "once"}}
    await send(at.parts, at.broker, request)
    token = request.delivered[0]["result"]["structuredContent"]["token"]
    assert "isError" not in await call(at, token)
    assert token.rsplit("_", 1)[1] not in await at.everything_stored()
    again = Request(root["token"], OPEN, {"task": "look", "budget": "0.10"})
    again.params = {**again.params, "_meta": {"io.haltline/idempotency-key": "once"}}
    returned = await send(at.parts, at.broker, again)
    assert "call.result_gone" in said((again.delivered or [returned])[0]["result"])


async def test_the_tree_is_shown_and_a_child_explains_itself_by_what_is_above(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"], budget="0.10")
    shown = await at.ask("show_session", session=root["session"])
    assert [(row["session"], row["parent"]) for row in shown["children"]] == [(one["session"], root["session"])]
    for _ in range(20):
        await call(at, root["token"])
    said_of = await at.ask("explain_decision", agent="booking-7", session=one["session"], tool="payments__charge")
    assert said_of["decision"] == "halt"
    assert said_of["reasons"][0]["text"].startswith(f"of session {root['session']}")
    assert any(rule["rule"].startswith(f"session {root['session']}: ") for rule in said_of["rules"])


async def test_what_a_child_has_in_doubt_is_in_its_parents_balance_as_in_the_refusals(at: Desk) -> None:
    session = await at.session()
    below = await child(at, session["token"])
    at.upstream.script["charge"] = at.upstream.unknown
    await call(at, below["token"])
    for one in (session["session"], below["session"]):
        balances = {row["cap"]: row for row in (await at.ask("show_session", session=one))["balances"]}
        task = balances["task"]
        assert [task[name]["micros"] for name in ("settled", "held", "in_doubt")] == [0, 0, 50_000]
        assert task["remaining"]["micros"] == task["limit"]["micros"] - 50_000
    calls = {row["cap"]: row for row in (await at.ask("show_session", session=session["session"]))["balances"]}["calls"]
    assert [calls[name] for name in ("held", "in_doubt")] == [0, 1]
    assert (await at.ask("check_ledger"))["ok"]


async def test_no_child_takes_part_in_a_drill_under_a_session_that_is_none(at: Desk) -> None:
    await at.parts.catalog.keep_own(DrillUpstream())
    root = await at.session()
    one = await child(at, root["token"], tools=["haltline-drill__*"])
    assert isinstance(await send(at.parts, at.broker, Request(one["token"], "haltline-drill__tick", {})), NoSuchTool)


@pytest.mark.promise("P3", "R18", "R27")
async def test_a_rule_that_cancels_what_runs_in_a_session_cancels_it_in_the_sessions_below(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"])
    who = await at.parts.writer.run(
        lambda tx: at.parts.identity.principal(
            tx, at.parts.identity.agent(tx, "booking-7"), at.parts.identity.session(tx, root["session"])
        )
    )
    running = at.parts.calls.open()
    at.parts.calls.bind(running, who.agent_id, one["session"])
    halt = Halt((Reason("rule.calls", "too many calls"),), "session")
    await at.parts.writer.run(lambda tx: cancel(tx, at.parts, who, halt))
    assert running.stopped is not None
    at.parts.calls.close(running)


@pytest.mark.promise("R19")
async def test_a_revoke_of_a_session_ends_what_was_told_of_the_sessions_below_it(at: Desk) -> None:
    root = await at.session()
    one = await child(at, root["token"], budget="0.05")
    for _ in range(2):
        await call(at, one["token"])
    live = (await at.ask("list_alerts", live=True))["episodes"]
    assert [episode["session"] for episode in live] == [one["session"]]
    await at.ask("resume", target=one["session"], reason="goes on", allow="0.05")
    for _ in range(2):
        await call(at, one["token"])
    await at.ask("revoke", target=root["session"], reason="over")
    assert (await at.ask("list_alerts", live=True))["episodes"] == []


@pytest.mark.promise("R22", "P5")
async def test_a_child_that_is_halted_says_so_and_breaks_no_cap_of_its_parent(at: Desk) -> None:
    parent = await at.session()
    opened = await child(at, parent["token"], budget="1.00")
    await at.ask("halt", target=opened["session"], reason="enough")
    at.upstream.script["slow"] = at.upstream.tool_error  # charged in full
    for _ in range(2):
        await call(at, parent["token"], "payments__slow")
    for _ in range(3):
        refused = await call(at, opened["token"], "payments__slow")
        assert said(refused).startswith("Halted [session.halted]"), refused
    assert [halt["target"] for halt in (await at.ask("status"))["halts"]] == [opened["session"]]
    assert not (await call(at, parent["token"])).get("isError")
