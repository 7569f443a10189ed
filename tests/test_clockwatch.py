"""A clock that was set is told once, with an alert, and once more when it is right again (R9)."""

from __future__ import annotations

import json

import pytest

from haltline.clockwatch import ClockWatch
from support.world import StepClock, world

HOUR_S = 3_600


@pytest.mark.promise("R9", "P10")
@pytest.mark.parametrize(
    ("by_s", "kind", "severity"), [(HOUR_S, "clock.stepped", "critical"), (-HOUR_S, "clock.set_back", "warning")]
)
async def test_a_step_of_the_clock_is_told_once_with_its_alert_and_so_is_its_end(tmp_path, by_s, kind, severity):
    clock = StepClock()
    async with world(tmp_path, clock=clock) as w:
        watch = ClockWatch(w.parts)
        await watch.look()
        assert await w.events("clock.") == []
        clock.step(by_s)
        for _ in range(3):
            clock.forward(1)
            await watch.look()
        clock.step(-by_s)
        for _ in range(3):
            await watch.look()
        events = await w.events("clock.")
        assert [event["kind"] for event in events] == [kind, "clock.righted"]
        assert events[0]["by_s"] == HOUR_S
        rows = await w.parts.reader.rows("SELECT event_seq, body FROM alerts")
        assert [row["event_seq"] for row in rows] == [event["seq"] for event in events]
        alert, over = (json.loads(row["body"]) for row in rows)
        assert (alert["kind"], alert["severity"], alert["commands"][0]) == (kind, severity, "haltline status")
        assert "3600 s" in alert["text"]
        assert over["act"] == "resolve"
        assert await w.run(lambda tx: w.parts.outbox.episodes.live_about(tx, "clock")) == []


@pytest.mark.promise("R9", "P10")
async def test_a_broker_that_was_restarted_ends_what_it_told_of_its_clock_before(tmp_path):
    clock = StepClock()
    async with world(tmp_path, clock=clock) as w:
        clock.step(HOUR_S)
        await ClockWatch(w.parts).look()
        assert len(await w.run(lambda tx: w.parts.outbox.episodes.live_about(tx, "clock"))) == 1
    async with world(tmp_path, clock=StepClock(clock.at_us)) as w:
        await ClockWatch(w.parts).look()
        assert await w.run(lambda tx: w.parts.outbox.episodes.live_about(tx, "clock")) == []


@pytest.mark.promise("R9")
async def test_what_a_synchronised_machine_corrects_is_not_told(tmp_path):
    clock = StepClock()
    async with world(tmp_path, clock=clock) as w:
        watch = ClockWatch(w.parts)
        for by_s in (2, -2, 200, -200):
            clock.step(by_s)
            await watch.look()
        assert await w.events("clock.") == []
