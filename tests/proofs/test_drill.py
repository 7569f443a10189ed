"""The drill's timeline as a person reads it, and the drill of a broker whose stops are broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import deaf_broker
from support.broker_process import broker_process

POLICY = """
version: "1"
tiers:
  experimental: {tools: ["*"], caps: {task: "0.50"}}
"""


@pytest.mark.promise("P3", "P5", "R17")
@pytest.mark.parametrize("how", [(), ("--halt",)], ids=["revoke", "halt"])
def test_the_timeline_of_a_drill(tmp_path, how):
    with broker_process(tmp_path / "b", upstreams={}, policy=POLICY) as broker:
        ran = broker.haltline("drill", *how)
        print(f"\n$ haltline drill {' '.join(how)}   ({ran.took_ms:.0f} ms from typed to back)\n{ran.out}")
        assert (ran.code, ran.err) == (0, "")
        assert ran.took_ms < 90_000


@pytest.mark.promise("P3")
def test_a_broker_that_cancels_nothing_fails_its_drill_loudly(tmp_path):
    program = (str(Path(deaf_broker.__file__)),)
    with broker_process(tmp_path / "deaf", upstreams={}, policy=POLICY, program=program) as broker:
        ran = broker.haltline("drill")
        print(f"\n$ haltline drill   (a broker that cancels nothing)\n{ran.out}")
        assert ran.code == 4
        assert "THE DRILL FAILED at: long call cancelled" in ran.out
        with broker.control() as control:
            ended = control.query_audit(kind="drill.ended")["events"][0]
            assert not ended["ok"]
            assert ended["failed"] == "long call cancelled"
            told = control.list_alerts()["alerts"]
            assert any("drill.failed" in one["summary"] and "long call cancelled" in one["summary"] for one in told)
            assert control.list_sessions()["sessions"] == []
