"""The drill against real brokers: one whose stop path works, and one in which it is broken on purpose."""

from __future__ import annotations

import json
import urllib.request

import pytest

from haltline.demo.agents import connected
from haltline.errors import ConfigError
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.drill import DrillUpstream
from haltline_client.errors import RequestFailed
from support.broker_process import broker_process
from support.scripted import ScriptedUpstream

POLICY = """
version: "1"
currency: USD
tiers:
  experimental: {tools: ["*"], caps: {task: "0.50", day: "5.00"}}
rules:
  loop: {kind: repeats, times: 3, window: 10m, do: halt}
"""
SHOWN = [
    "agents connected",
    "loop and long call running",
    "child session opened",
    "revoke returned",
    "loop stopped",
    "long call cancelled",
    "result withheld",
    "bystander untouched",
    "credential dead on a new connection",
    "child session dead",
    "alert delivered",
    "new credential works",
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with broker_process(tmp_path_factory.mktemp("drilled"), upstreams={}, policy=POLICY) as found:
        yield found


@pytest.mark.promise("P3", "P5", "P10", "R16", "R17", "R19")
def test_a_drill_shows_with_real_clients_that_stopping_works(broker):
    ran = broker.haltline("drill", "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert [one["step"] for one in result["steps"]] == SHOWN
    assert {one["state"] for one in result["steps"]} == {"ok"}
    assert result["systems"] == 1
    assert result["took_ms"] < 90_000
    eras = next(one["text"] for one in result["steps"] if one["step"] == "agents connected")
    assert "2025-11-25" in eras
    assert "2026-07-28" in eras


@pytest.mark.promise("R16", "R21")
def test_a_drill_with_halt_resumes_what_it_halted_and_takes_a_person(broker):
    local = (broker.data / "local-operator.token").read_text().strip()
    refused = broker.haltline("drill", "--halt", token=local)
    assert refused.code == 2
    assert "person" in refused.err
    ran = broker.haltline("drill", "--halt", "--json")
    assert ran.code == 0
    steps = [one["step"] for one in json.loads(ran.out)["steps"]]
    assert steps[-1] == "works after the resume"
    with broker.control() as control:
        assert control.status()["halts"] == []


def test_a_real_agent_is_drilled_only_when_told_and_spends_nothing(broker):
    with broker.control() as control:
        control.add_agent("booking-7", "experimental", caps={"task": "0.01", "calls": 1})
        result = control_drill(broker, agent="booking-7")
        assert result["ok"]
        assert result["agent"] == "booking-7"
        shown = control.show_agent("booking-7")
        assert shown["sessions"] == []
        assert all(one["settled"]["micros"] == 0 for one in shown["balances"] if one["cap"] == "day")


def test_a_drill_leaves_its_evidence_and_nothing_else(broker):
    with broker.control() as control:
        before = control.status()
        ran = broker.haltline("drill")
        assert (ran.code, ran.err) == (0, "")
        assert "The drill held" in ran.out
        result = control.query_audit(kind="drill.ended", newest=True, limit=1)["events"][0]
        events = control.query_audit(session=result["session"], limit=1000)["events"]
        kinds = {event["kind"] for event in events}
        assert all(event.get("drill") for event in events if event["kind"].startswith("call."))
        opens = [event for event in events if event.get("tool") == "haltline__open_session"]
        assert {event["kind"] for event in opens} == {"call.allowed", "call.succeeded"}
        (child,) = [
            event
            for event in control.query_audit(kind="session.opened", newest=True, limit=5)["events"]
            if event.get("parent") == result["session"]
        ]
        assert (child["actor"], child["drill"]) == (f"agent:{result['agent']}", True), (
            "its client opened it, by the tool"
        )
        assert {"session.opened", "session.revoked", "call.allowed", "call.denied", "drill.ended"} <= kinds
        assert [one["step"] for one in result["steps"]] == SHOWN
        assert result["actor"] == "operator:admin"
        assert [
            event["drill"] for event in control.query_audit(kind="drill.started", newest=True, limit=1)["events"]
        ] == [result["drill"]]
        after = control.status()
        assert after["halts"] == before["halts"] == []
        assert after["alerts"] == {**before["alerts"], "backlog": 0}
        assert after["upstreams"] == []
        assert control.list_in_doubt()["calls"] == [], "no person need decide about a drill's own tools"
        assert control.list_sessions()["sessions"] == []
        assert control.list_tools()["tools"] == []
        assert sum(agent["spent_day"]["micros"] for agent in after["agents"]) == 0
    for proof in (broker.verify(), broker.haltline("ledger", "check")):
        assert proof.code == 0, proof.out


async def test_the_tools_of_drills_are_nobody_else_s(broker):
    (opened,) = broker.open(["curious-1"], "experimental")
    url = f"http://127.0.0.1:{broker.agents_port}/mcp"
    async with connected("curious-1", opened.session, url, opened.token, "auto") as agent:
        assert await agent.tools() == []
        answer = await agent.call("haltline-drill__work")
    assert (answer.ok, answer.code) == (False, "mcp.-32602")


async def test_no_upstream_can_take_the_name_of_the_drills(tmp_path):
    catalog = Catalog([ScriptedUpstream(name="haltline-drill")])
    with pytest.raises(ConfigError, match="rename it"):
        await catalog.keep_own(DrillUpstream())


def test_a_drill_is_counted_as_one_and_its_calls_are_none_of_the_agents(broker):
    with broker.control() as control:
        control.add_agent("booking-9", "experimental", caps={"rate": "1/minute", "concurrent": 1})
    before = metrics(broker)
    assert control_drill(broker, agent="booking-9")["ok"], "also where the agent has one place alone"
    after = metrics(broker)
    assert after.pop("haltline_drills_total") == before.pop("haltline_drills_total", 0) + 1
    assert after == before


def metrics(broker):
    """What is counted of calls and money, added up by its name."""
    request = urllib.request.Request(
        f"{broker.control_url}/metrics", headers={"Authorization": f"Bearer {broker.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        lines = [line.rpartition(" ") for line in reply.read().decode().splitlines() if not line.startswith("#")]
    found = {}
    for name, _, value in lines:
        bare = name.partition("{")[0]
        if bare in {f"haltline_{one}_total" for one in ("decisions", "calls", "spent_micros", "rules_fired", "drills")}:
            found[bare] = found.get(bare, 0) + float(value)
    return found


@pytest.mark.promise("R16")
def test_everything_halted_stops_drills_too(broker):
    with broker.control() as control:
        control.halt("everything", reason="upstream incident")
        try:
            with pytest.raises(RequestFailed, match="stops drills too"):
                control.run_drill()
        finally:
            control.resume("everything", reason="over")


def control_drill(broker, **told):
    from haltline_client import ControlClient

    with ControlClient(broker.control_url, broker.token, timeout_s=100) as control:
        return control.run_drill(**told)
