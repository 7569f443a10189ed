"""What was normal for an agent, and what is unusual now, as `haltline agents show` tells it."""

from __future__ import annotations

from haltline.policy.watch import CapUse
from haltline.signals.facts import Fact
from haltline.signals.state import AgentSignals
from haltline.signals.words import unusual, usual

HOUR_US = 3_600_000_000
START_US = 20_003 * 24 * HOUR_US


def tell(state: AgentSignals, at_us: int, kind: str, **body: object) -> None:
    named = {"session": "s", "tool": "pay__charge", "upstream": "pay"}
    state.fold(Fact.of(state.seq + 1, at_us, kind, named, body), "UTC")


def test_a_week_of_office_hours_reads_as_such():
    state = AgentSignals()
    for day in range(9):
        if day % 7 < 5:
            for hour in range(9, 17):
                at_us = START_US + (day * 24 + hour) * HOUR_US
                tell(state, at_us, "call.allowed", amount_micros=100_000, same="a", destination="acme")
    now_us = START_US + (9 * 24) * HOUR_US
    assert usual(state, now_us, "USD", "UTC") == [
        "56 calls since 2024-10-07, 0 refused",
        "weekdays 09-17, weekends never (UTC)",
        "tools: pay__charge (56)",
        "destinations: acme (56)",
        "0.10 USD in an active hour, of which the last 7 days had 40",
        "0.10 USD in an active hour over 28 days",
        "0.80 USD in an active day, 7 in the last 28 days",
    ]
    assert unusual(state, now_us, "USD") == []


def test_what_stands_out_is_told_with_the_rules_that_fired():
    state = AgentSignals()
    tell(state, START_US, "call.allowed", amount_micros=100_000, same="a")
    now_us = START_US + 5 * HOUR_US
    tell(state, now_us, "call.allowed", amount_micros=500_000, same="b")
    tell(state, now_us, "call.failed", amount_micros=500_000, charged_micros=500_000, duration_us=0)
    tell(state, now_us, "rule.fired", rule="same-call", cause="pay__charge 12")
    assert unusual(state, now_us + 1, "USD") == [
        "the last hour cost 0.50 USD, 5.0 times an active hour's average",
        "1 of 1 calls failed in the last hour",
        "rule same-call (pay__charge 12) fired at 2024-10-07T05:00:00Z",
    ]


def test_an_agent_that_never_called_has_no_ways():
    assert usual(AgentSignals(), START_US, "USD", "UTC") == ["no call yet"]


def test_what_a_person_must_see_at_once_is_told_first():
    state = AgentSignals()
    for day in range(9):
        if day % 7 < 5:
            for hour in range(9, 17):
                at_us = START_US + (day * 24 + hour) * HOUR_US
                tell(
                    state,
                    at_us,
                    "call.allowed",
                    amount_micros=100_000,
                    same="a",
                    facts={"running": 2, "task": [0], "calls": [0]},
                )
    now_us = START_US + (9 * 24 + 21) * HOUR_US
    for _ in range(2):
        tell(state, now_us, "call.allowed", amount_micros=1_000_000, same="b")
    assert "up to 3 calls at once" in usual(state, now_us, "USD", "UTC")
    caps = [
        CapUse("day", "", 5_000_000, 2_000_000),
        CapUse("hour", "", 90_000_000, 2_000_000),
        CapUse("task", "s", 1, 1),
    ]
    assert unusual(state, now_us, "USD", "UTC", caps) == [
        "at the rate of the last 15 min its day cap is reached in 22 min",
        "the last hour cost 2.00 USD, 20.0 times an active hour's average",
        "today cost 2.00 USD, 2.5 times an active day's average",
        "it was at work on wed at 21:00, an hour that no such day had used",
    ]
