"""What rules read of a call that ended late, of a session and of failures equals a plain count, live, recomputed and after restarts."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.signals.facts import Fact
from haltline.signals.state import AgentSignals

HOUR_US, START_US = 3_600_000_000, 20_003 * 86_400_000_000
WINDOW_US = 900_000_000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "end", "overage", "fail", "restart"]),
        st.sampled_from([1, 2_000_000, 300_000_000, 901_000_000, HOUR_US]),
        st.integers(1, 500_000),
        st.integers(0, 3),
    ),
    max_size=50,
)


class Teller:
    """An agent with a root session and three below it, and plain lists of what they did."""

    def __init__(self) -> None:
        self.now_us, self.facts = START_US, list[Fact]()
        self.calls: list[list[Any]] = []
        """[admitted, what counts, session]"""
        self.open: list[int] = []
        self.ended: list[tuple[int, bool]] = []
        self.last: int | None = None

    def step(self, act: str, amount: int, which: int) -> None:
        if act == "call":
            session = f"child{which}"
            self.last = len(self.calls)
            said = {"facts": self._used({session}), "above": {"root": self._used(None)}}
            self.open.append(len(self.calls))
            self.calls.append([self.now_us, amount, session])
            self._tell("call.allowed", session, amount_micros=amount, same="x", **said)
        elif act in {"end", "overage", "fail"} and self.open:
            self.last = self.open.pop(which % len(self.open))
            call = self.calls[self.last]
            held, call[1] = call[1], {"end": call[1] // 2, "overage": call[1] + amount, "fail": call[1]}[act]
            self.ended.append((self.now_us, act == "fail"))
            kind = "call.failed" if act == "fail" else "call.succeeded"
            end = {"amount_micros": held, "charged_micros": call[1], "admitted_us": call[0]}
            self._tell(kind, call[2], **end)

    def _used(self, sessions: set[str] | None) -> dict[str, list[int]]:
        mine = [one for one in self.calls if sessions is None or one[2] in sessions]
        return {"task": [sum(one[1] for one in mine), 0], "calls": [len(mine), 0]}

    def _tell(self, kind: str, session: str, **body: Any) -> None:
        named = {"session": session, "tool": "t", "upstream": "u"}
        self.facts.append(Fact.of(len(self.facts) + 1, self.now_us, kind, named, body))

    def most_around(self, at_us: int) -> int:
        ends = {one[0] for one in self.calls if at_us <= one[0] < at_us + WINDOW_US}
        return max(sum(one[1] for one in self.calls if end - WINDOW_US < one[0] <= end) for end in ends)

    def before(self, session: str, since_us: int) -> tuple[int, int] | None:
        mine = [one for one in self.calls if session == "root" or one[2] == session]
        recent = [one for one in mine if one[0] > since_us]
        return None if not recent else (0, len(mine) - len(recent))


@pytest.mark.promise("R8", "P12", "R20")
@given(STEPS)
def test_what_is_asked_at_an_end_equals_a_plain_count_whatever_ends_late_and_wherever_a_restart_falls(steps):
    teller, live, told = Teller(), AgentSignals(), 0
    for act, later_us, amount, which in steps:
        teller.now_us += later_us
        if act == "restart":
            live = AgentSignals.loaded(orjson.loads(orjson.dumps(live.stored(), option=orjson.OPT_NON_STR_KEYS)))
        teller.step(act, amount, which)
        for fact in teller.facts[told:]:
            live.fold(fact, "UTC")
        told, now_us = len(teller.facts), teller.now_us
        recent = [one for one in teller.ended if one[0] > now_us - WINDOW_US]
        assert live.ended(900, now_us) == (len(recent), sum(failed for _, failed in recent))
        for session in ("root", "child0", "child1"):
            found, wanted = live.task_before(session, now_us - WINDOW_US), teller.before(session, now_us - WINDOW_US)
            assert (found is None, None if found is None else found[1]) == (
                wanted is None,
                None if wanted is None else wanted[1],
            )
        if teller.last is not None and teller.calls[teller.last][0] > now_us - HOUR_US + WINDOW_US:
            at_us = teller.calls[teller.last][0]
            assert live.most_spent(900, at_us) == teller.most_around(at_us)
    recomputed = AgentSignals()
    for fact in teller.facts:
        recomputed.fold(fact, "UTC")
    assert live.stored() == recomputed.stored()


def test_of_a_session_with_very_many_calls_the_first_of_each_minute_is_remembered():
    state = AgentSignals()
    for number in range(5_000):
        body = {"amount_micros": 1, "same": "x", "facts": {"task": [number, 0], "calls": [number, 0]}}
        at_us = START_US + number * 500_000
        state.fold(
            Fact.of(number + 1, at_us, "call.allowed", {"session": "s", "tool": "t", "upstream": "u"}, body), "UTC"
        )
    now_us = START_US + 5_000 * 500_000
    (made, _) = state.task_before("s", now_us - WINDOW_US) or (0, 0)
    assert 3_200 <= made <= 3_200 + 120
    assert len(state.tasks["s"]) <= 64
    assert state.most_spent(900, now_us - 1_000_000) == 1_800


def test_an_end_is_not_measured_by_windows_that_a_resume_has_begun_anew():
    state = AgentSignals()
    for seq, (at_us, kind, body) in enumerate(
        [
            (START_US, "call.allowed", {"amount_micros": 500_000, "same": "x"}),
            (START_US + 1, "agent.resumed", {}),
            (
                START_US + 2,
                "call.succeeded",
                {"amount_micros": 500_000, "charged_micros": 900_000, "admitted_us": START_US},
            ),
        ],
        1,
    ):
        state.fold(Fact.of(seq, at_us, kind, {"session": "s", "tool": "t", "upstream": "u"}, body), "UTC")
    assert state.most_spent(900, START_US) == 0
