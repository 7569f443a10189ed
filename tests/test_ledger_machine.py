"""Any history of holds, endings, failures, restarts and passing time: what is remembered is what the rows say.

The real ledger over real SQLite against a model that remembers nothing but a list of calls and adds them up each time.
Longer runs: HYPOTHESIS_PROFILE=proofs.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haltline.errors import Conflict
from haltline.ledger import Ledger, Spent
from haltline.policy.model import Usage
from haltline.store.writer import Tx
from support.records import HOUR, SECOND, Store, a_hold, utc_day

AGENTS = {"a1": ("s1", "s2", "s5", "s6"), "a2": ("s3",), "a3": ("s4",)}
OWNER = {session: agent for agent, sessions in AGENTS.items() for session in sessions}
ABOVE = {"s2": ("s1",), "s5": ("s2", "s1")}
"""s1 opened s2 and that one s5 (R20): what a child does counts in every session above it. s6 stands alone."""
CAPS = {"task": 100, "hour": 120, "day": 200}
WINDOWS = (1, 60, 5_000)
DAY = 24 * HOUR


class Failed(Exception):
    """What a unit raises after its statements."""


@dataclass
class Call:
    session: str
    amount: int
    admitted_us: int
    state: str = "held"
    charged: int = 0


class Model:
    """Every sum from scratch, straight from the rules."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}

    def usage(self, calls: list[Call], since_us: int | None) -> Usage:
        """R1: by the time of admission; in doubt in every current window."""
        inside = [call for call in calls if since_us is None or call.admitted_us >= since_us]
        settled = sum(call.charged for call in inside if call.state == "settled")
        held = sum(call.amount for call in inside if call.state == "held")
        in_doubt = sum(call.amount for call in calls if call.state == "in_doubt")
        return Usage(settled, held + in_doubt, in_doubt)

    def spent(self, session: str, now_us: int) -> dict[str, Any]:
        mine = [call for call in self.calls.values() if OWNER[call.session] == OWNER[session]]
        task = [call for call in mine if session in line(call.session)]
        return {
            "task": self.usage(task, None),
            "hour": self.usage(mine, now_us - HOUR + 1),
            "day": self.usage(mine, utc_day(now_us)[0]),
            "day_resets_at_us": utc_day(now_us)[1],
            "calls_settled": sum(call.state == "settled" for call in task),
            "calls_open": sum(call.state in {"held", "in_doubt"} for call in task),
            "calls_in_doubt": sum(call.state == "in_doubt" for call in task),
            "rate_counts": {w: sum(call.admitted_us > now_us - w * SECOND for call in mine) for w in WINDOWS},
            "agent_running": sum(call.state == "held" for call in mine),
        }


def line(session: str) -> tuple[str, ...]:
    """The session and those above it."""
    return (session, *ABOVE.get(session, ()))


def fits(spent: Spent, amount: int) -> bool:
    """R3's arithmetic, with held money counted like settled."""
    return all(
        usage.settled_micros + usage.held_micros + amount <= CAPS[kind]
        for kind, usage in (("task", spent.task), ("hour", spent.hour), ("day", spent.day))
    )


amounts = st.integers(0, 40)
admit = st.tuples(st.just("admit"), st.sampled_from(sorted(OWNER)), amounts)
end = st.tuples(st.sampled_from(["settle", "void", "doubt"]), st.integers(0, 30), amounts)
other = st.tuples(st.sampled_from(["look", "look", "look", "forget"]), st.sampled_from(sorted(OWNER)), amounts)
unit = st.tuples(
    st.lists(st.one_of(admit, admit, end, end, other), min_size=1, max_size=4), st.booleans() | st.just(False)
)
moments = st.sampled_from(
    [1, SECOND, 60 * SECOND, 30 * 60 * SECOND, HOUR - 1, HOUR, HOUR + 1, 5_000 * SECOND, 12 * HOUR - 1, 12 * HOUR, DAY]
)


class LedgerMachine(RuleBasedStateMachine):
    @initialize(remembered_max=st.sampled_from([20_000, 20_000, 20_000, 1, 2]))
    def open(self, remembered_max: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.remembered_max = remembered_max
        self.ledger = Ledger(utc_day, remembered_max)
        self.store = Store(self.folder, on_lost=(lambda: self.ledger.forget(),))
        self.store.connection.execute("PRAGMA synchronous = OFF")  # nothing here is about power
        self.store.people(AGENTS)
        for child, above in ABOVE.items():
            self.store.connection.execute("UPDATE sessions SET parent_id = ? WHERE id = ?", (above[0], child))
        self.model = Model()
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.everything_agrees()
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(units=st.lists(unit, min_size=1, max_size=4), lost=st.sampled_from([False, False, False, True]))
    def commit(self, units: list[tuple[list[tuple[str, Any, int]], bool]], lost: bool) -> None:
        """One batch: units that stand, units that raise, and a COMMIT that stands or fails."""
        model = self.model
        self.model = copy.deepcopy(model)
        with self.store.batch(lost=lost) as run:
            for acts, fails in units:
                before = copy.deepcopy(self.model)
                try:
                    run(lambda tx, acts=acts, fails=fails: self.unit(tx, acts, fails))
                except Failed:
                    self.model = before
        if lost:
            self.model = model

    def unit(self, tx: Tx, acts: list[tuple[str, Any, int]], fails: bool) -> None:
        for name, what, amount in acts:
            getattr(self, name)(tx, what, amount)
        if fails:
            raise Failed

    def admit(self, tx: Tx, session: str, amount: int) -> None:
        for one in line(session):
            spent = self.ledger.spent(tx, OWNER[session], one, WINDOWS)
            self.agrees(spent, one)
            if not fits(spent, amount):
                return
        self.number += 1
        call = f"c{self.number}"
        self.ledger.hold(tx, a_hold(call, amount, agent=OWNER[session], session=session))
        self.model.calls[call] = Call(session, amount, tx.now_us)
        for one in line(session):  # P2, judged at admission, by the model, for every session above
            usages = self.model.spent(one, tx.now_us)
            for kind, cap in CAPS.items():
                assert usages[kind].settled_micros + usages[kind].held_micros <= cap, (one, kind)

    def _pick(self, which: int) -> str | None:
        calls = sorted(self.model.calls)
        return calls[which % len(calls)] if calls else None

    def _end(self, tx: Tx, which: int, to: str, act: Any, charged: int = 0) -> None:
        name = self._pick(which)
        if name is None:
            return
        call = self.model.calls[name]
        legal = call.state == "held" or (call.state == "in_doubt" and to != "in_doubt")
        if not legal:
            with pytest.raises(Conflict):
                act(name)
            return
        act(name)
        call.state, call.charged = to, charged

    def settle(self, tx: Tx, which: int, amount: int) -> None:
        name = self._pick(which)
        charged = amount if name else 0  # a bill may be above the hold, also late
        self._end(tx, which, "settled", lambda call: self.ledger.settle(tx, call, charged), charged)

    def void(self, tx: Tx, which: int, amount: int) -> None:
        self._end(tx, which, "voided", lambda call: self.ledger.void(tx, call, "refused"))

    def doubt(self, tx: Tx, which: int, amount: int) -> None:
        self._end(tx, which, "in_doubt", lambda call: self.ledger.doubt(tx, call, "lost", tx.now_us + amount))

    def forget(self, tx: Tx, what: str, amount: int) -> None:
        self.ledger.forget()

    def look(self, tx: Tx, session: str, amount: int) -> None:
        self.agrees(self.ledger.spent(tx, OWNER[session], session, WINDOWS), session)

    @rule(us=moments)
    def pass_time(self, us: int) -> None:
        self.store.now_us += us

    @rule(edge=st.sampled_from(["midnight", "hour"]), off=st.sampled_from([-1, 0, 1]))
    def to_an_edge(self, edge: str, off: int) -> None:
        """Just before, at and just after a window lets go of something."""
        leaving = [call.admitted_us + HOUR for call in self.model.calls.values()] if edge == "hour" else []
        edges = [at + off for at in (*leaving, utc_day(self.store.now_us)[1]) if at + off > self.store.now_us]
        if edges:
            self.store.now_us = min(edges)
            self.everything_agrees()

    @rule(often=st.sampled_from([False, False, True]))
    def restart(self, often: bool) -> None:
        if not often:
            return
        self.ledger = Ledger(utc_day, self.remembered_max)
        left = self.store.run(self.ledger.left_held)
        assert {hold.id for hold in left} == {name for name, call in self.model.calls.items() if call.state == "held"}

    @rule()
    def everything_agrees(self) -> None:
        for session, agent in OWNER.items():
            self.agrees(self.store.run(lambda tx, a=agent, s=session: self.ledger.spent(tx, a, s, WINDOWS)), session)
        assert self.store.run(lambda tx: self.ledger.differing(tx, AGENTS, OWNER)) == []
        roots = [self.model.spent(session, self.store.now_us)["task"] for session in OWNER if session not in ABOVE]
        rows = self.store.connection.execute(
            "SELECT coalesce(sum(charged_micros), 0),"
            " coalesce(sum(amount_micros) FILTER (WHERE state IN ('held', 'in_doubt')), 0) FROM holds"
        ).fetchone()
        assert rows == (sum(one.settled_micros for one in roots), sum(one.held_micros for one in roots))

    @invariant()
    def the_rows_are_the_model(self) -> None:
        rows = self.store.connection.execute(
            "SELECT id, session_id, amount_micros, admitted_us, state, charged_micros FROM holds"
        )
        found = {name: Call(*rest, charged or 0) for name, *rest, charged in rows}
        assert found == self.model.calls

    def agrees(self, spent: Spent, session: str) -> None:
        expected = self.model.spent(session, self.store.now_us)
        assert {name: getattr(spent, name) for name in expected} == expected
        counting = [
            call.admitted_us
            for call in self.model.calls.values()
            if OWNER[call.session] == OWNER[session]
            and call.admitted_us > self.store.now_us - HOUR
            and ((call.state == "held" and call.amount) or (call.state == "settled" and call.charged))
        ]
        assert spent.hour_resets_at_us == (min(counting) + HOUR if counting else None)


LedgerMachine.TestCase.settings = settings(settings.default, stateful_step_count=30)
test_any_history = pytest.mark.promise("P2", "P7", "R1", "R8", "R15")(LedgerMachine.TestCase)
