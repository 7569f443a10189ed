"""The drill that runs by itself."""

from __future__ import annotations

import time

import pytest

from haltline.calls.recovery import Unrecorded
from haltline.drill.runs import Drills
from haltline.drill.schedule import Schedule
from haltline.health import Health
from haltline.upstreams.drill import DrillUpstream
from support.broker_process import broker_process
from support.desk import desk

POLICY = """
version: "1"
tiers:
  experimental: {tools: ["*"], caps: {task: "0.50"}}
"""
DAY_S = 86_400


def test_a_drill_that_is_due_runs_by_itself_and_holds(tmp_path):
    with broker_process(tmp_path / "b", upstreams={}, policy=POLICY, more=["drill: {every: 7d}"]) as broker:
        with broker.control() as control:
            by = time.monotonic() + 60
            while not (ended := control.query_audit(kind="drill.ended")["events"]):
                assert time.monotonic() < by, "no drill has run"
                time.sleep(0.05)
    assert ended[0]["ok"]
    assert ended[0]["actor"] == "broker"


@pytest.mark.promise("P10")
async def test_a_drill_that_cannot_run_is_told_once_it_is_overdue(tmp_path):
    async with desk(tmp_path) as at:
        parts, unrecorded = at.parts, Unrecorded(at.parts.writer)
        health = Health(parts.clock, parts.writer, parts.policies, unrecorded, parts.halts, started_us=0)
        schedule = Schedule(at.parts, Drills(at.parts, health, DrillUpstream()), 7 * DAY_S)  # no listener: none can run
        await schedule.look()
        assert (await at.ask("list_alerts"))["alerts"] == []
        at.clock.forward(2 * 3600)
        await schedule.look()
        await schedule.look()
        told = (await at.ask("list_alerts"))["alerts"]
        assert len(told) == 1
        assert "drill.overdue" in told[0]["summary"]
        assert "7 days" in told[0]["summary"]
