"""What is folded event by event equals what is recomputed, whatever ends late and wherever a restart falls (R8, P12)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.signals.facts import Fact
from haltline.signals.state import QUARTER_US, AgentSignals

DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
START_US = 20_003 * DAY_US
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["call", "call", "end", "end", "doubt", "void", "denied", "restart", "resume", "zone", "count"]
        ),
        st.sampled_from([0, 1, 1_000_000, 400_000_000, 2 * HOUR_US, DAY_US]),
        st.integers(0, 500_000),
        st.integers(0, 10),
    ),
    max_size=60,
)


ZONES = ["Europe/Berlin", "America/St_Johns", "UTC", "Asia/Kathmandu"]


def of_all(facts: list[Fact], zone: str) -> AgentSignals:
    state = AgentSignals(zone=zone)
    for fact in facts:
        state.fold(fact, zone)
    return state


def count_again(state: AgentSignals, facts: list[Fact]) -> None:
    """As after a change of the zone, in the zone that is in force."""
    past = of_all([fact for fact in facts if fact.seq <= state.week_after], state.zone)
    state.counted(past.week)


class Teller:
    """Facts of one agent, and what a plain list of its calls says."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.open: list[int] = []
        self.calls: list[list[int]] = []
        """[admitted, what counts]"""
        self.now_us = START_US
        self.resumed_us = 0

    def step(self, act: str, amount: int, which: int) -> None:
        if act == "call":
            self.open.append(len(self.calls))
            self.calls.append([self.now_us, amount])
            self._tell("call.allowed", amount_micros=amount, same=f"{which}", destination=f"d{which}")
        elif act in {"end", "doubt", "void"} and self.open:
            call = self.calls[self.open.pop(which % len(self.open))]
            held = call[1]
            call[1] = {"end": amount, "doubt": held, "void": 0}[act]
            kind = {"end": "call.succeeded", "doubt": "call.in_doubt", "void": "call.voided"}[act]
            charged = {} if act == "doubt" else {"charged_micros": call[1]}
            self._tell(kind, amount_micros=held, duration_us=self.now_us - call[0], **charged)
        elif act == "denied":
            self._tell("call.denied")
        elif act == "resume":
            self.resumed_us = self.now_us
            self._tell("agent.resumed")

    def _tell(self, kind: str, **body: Any) -> None:
        named = {"session": "s", "tool": "t", "upstream": "u"}
        self.facts.append(Fact.of(len(self.facts) + 1, self.now_us, kind, named, body))

    def spent_since(self, since_us: int) -> int:
        return sum(counts for at_us, counts in self.calls if at_us > since_us)


@pytest.mark.promise("R8", "P12")
@given(STEPS)
def test_signals_folded_live_equal_signals_recomputed_and_a_plain_count(steps):
    teller, live, told, zone = Teller(), AgentSignals(), 0, "Europe/Berlin"
    for act, later_us, amount, which in steps:
        teller.now_us += later_us
        if act == "zone":
            zone = ZONES[which % len(ZONES)]
        if act == "count":
            count_again(live, teller.facts)
        if act == "restart":
            live = AgentSignals.loaded(orjson.loads(orjson.dumps(live.stored(), option=orjson.OPT_NON_STR_KEYS)))
        teller.step(act, amount, which)
        for fact in teller.facts[told:]:
            live.fold(fact, zone)
        told = len(teller.facts)
        now_us = teller.now_us
        if now_us != teller.resumed_us and all(at_us != teller.resumed_us for at_us, _ in teller.calls):
            since_us = max(now_us - HOUR_US, teller.resumed_us)
            assert live.spent(3600, now_us) == teller.spent_since(since_us)
        day_us = now_us - now_us % DAY_US
        of_day = sum(counts for at_us, counts in teller.calls if day_us <= at_us < day_us + DAY_US)
        assert live.day_spent(day_us, day_us + DAY_US) == of_day
    live.rezone(zone)
    count_again(live, teller.facts)
    recomputed = of_all(teller.facts, zone)
    assert live.stored() == recomputed.stored()


def test_memory_is_bounded_however_long_and_varied_a_history_is():
    state = AgentSignals()
    for number in range(20_000):
        at_us = START_US + number * QUARTER_US // 50
        body = {"amount_micros": 1, "same": f"{number}", "destination": f"d{number}"}
        named = {"session": f"s{number}", "tool": f"t{number}", "upstream": "u"}
        state.fold(Fact.of(2 * number + 1, at_us, "call.allowed", named, body), "UTC")
    assert len(orjson.dumps(state.stored(), option=orjson.OPT_NON_STR_KEYS)) < 200_000
