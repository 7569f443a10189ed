"""Durable stops: three independent records, each lifted alone, and what a person adds to a cap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haltline.errors import Conflict
from haltline.halts import EVERYTHING, Halts
from haltline.policy.model import CapKind
from support.records import HOUR, NOON_US, Store


class Stops:
    def __init__(self, folder: Path) -> None:
        self.halts = Halts()
        self.store = Store(folder)

    def set(self, scope: str, subject: str, code: str = "operator.halted", **more: Any) -> bool:
        return self.store.run(
            lambda tx: self.halts.set(tx, scope, subject, code=code, text="why", by="operator:ana", **more)
        )  # type: ignore[arg-type]

    def lift(self, scope: str, subject: str) -> None:
        def unit(tx: Any) -> None:
            halt = self.halts.get(tx, scope, subject)  # type: ignore[arg-type]
            assert halt is not None
            self.halts.lift(tx, halt, by="operator:ana", reason="seen to")

        self.store.run(unit)

    def on(self, session: str = "s1", agent: str = "a1") -> list[str]:
        return [fact.scope for fact in self.store.run(lambda tx: self.halts.on(tx, session, agent))]


@pytest.fixture
def stops(tmp_path: Path) -> Iterator[Stops]:
    stops = Stops(tmp_path)
    yield stops
    stops.store.close()


@pytest.mark.promise("R16")
def test_the_three_are_independent_and_a_resume_lifts_exactly_one(stops: Stops) -> None:
    for scope, subject in (("session", "s1"), ("agent", "a1"), ("everything", EVERYTHING)):
        assert stops.set(scope, subject)
    assert stops.on() == ["session", "agent", "everything"]
    stops.lift("agent", "a1")
    assert stops.on() == ["session", "everything"]
    stops.lift("everything", EVERYTHING)
    assert stops.on() == ["session"]
    stops.lift("session", "s1")
    assert stops.on() == []


@pytest.mark.promise("P5", "R16")
def test_a_halt_stops_its_own_subject_alone(stops: Stops) -> None:
    stops.set("session", "s1")
    stops.set("agent", "a2")
    assert (stops.on("s1", "a1"), stops.on("s2", "a1"), stops.on("s3", "a2"), stops.on("a2", "s1")) == (
        ["session"],
        [],
        ["agent"],
        [],
    )
    stops.set("everything", EVERYTHING)
    assert stops.on("s9", "a9") == ["everything"]


def test_the_first_cause_stays(stops: Stops) -> None:
    assert stops.set("agent", "a1", code="budget.day_exceeded", cap="day")
    assert not stops.set("agent", "a1", code="operator.halted")
    halt = stops.store.run(lambda tx: stops.halts.get(tx, "agent", "a1"))
    assert halt is not None
    assert (halt.code, halt.cap, halt.by, halt.set_us) == ("budget.day_exceeded", CapKind.DAY, "operator:ana", NOON_US)


def test_a_halt_is_lifted_once_and_can_be_set_again(stops: Stops) -> None:
    stops.set("agent", "a1")
    halt = stops.store.run(lambda tx: stops.halts.get(tx, "agent", "a1"))
    assert halt is not None
    stops.store.run(lambda tx: stops.halts.lift(tx, halt, by="operator:ana", reason="r"))
    with pytest.raises(Conflict, match="lifted already"):
        stops.store.run(lambda tx: stops.halts.lift(tx, halt, by="operator:ben", reason="r"))
    assert stops.set("agent", "a1")
    with pytest.raises(Conflict):  # the new one is not the one that was looked at
        stops.store.run(lambda tx: stops.halts.lift(tx, halt, by="operator:ben", reason="r"))
    rows = stops.store.connection.execute("SELECT lifted_by, lift_reason FROM halts ORDER BY id").fetchall()
    assert rows == [("operator:ana", "r"), (None, None)]


@pytest.mark.promise("P4")
def test_a_halt_lasts_through_time_and_restarts(stops: Stops) -> None:
    for number in range(100):
        stops.set("session", f"s{number}")
    stops.store.now_us += 400 * 24 * HOUR
    stops.store.close()
    again = Stops(stops.store.path.parent)
    assert sum(again.on(f"s{number}", "a") == ["session"] for number in range(100)) == 100
    assert len(again.store.run(again.halts.all_set)) == 100
    stops.store = again.store


def test_what_a_person_adds_to_a_cap_adds_up_and_ends(stops: Stops) -> None:
    def allow(subject: str, cap: CapKind, amount: int, hours: int) -> None:
        stops.store.run(
            lambda tx: stops.halts.allow(
                tx, "agent", subject, cap, amount, until_us=NOON_US + hours * HOUR, by="operator:ana"
            )
        )

    def allowed(*subjects: str) -> dict[CapKind, int]:
        return stops.store.run(lambda tx: stops.halts.allowances(tx, subjects))

    allow("a1", CapKind.DAY, 100, 1)
    allow("a1", CapKind.DAY, 50, 2)
    allow("s1", CapKind.TASK, 7, 2)
    allow("a2", CapKind.DAY, 1_000, 2)
    assert allowed("s1", "a1") == {CapKind.DAY: 150, CapKind.TASK: 7}
    stops.store.now_us += HOUR
    assert allowed("s1", "a1") == {CapKind.DAY: 50, CapKind.TASK: 7}
    stops.store.now_us += HOUR
    assert allowed("s1", "a1") == {}


def test_asking_costs_the_same_however_many_halts_are_set(stops: Stops) -> None:
    seen: list[str] = []
    stops.store.connection.set_trace_callback(seen.append)
    stops.on()
    stops.store.run(lambda tx: stops.halts.allowances(tx, ("s1", "a1")))
    stops.store.connection.set_trace_callback(None)
    plans = [
        row[3]
        for sql in seen
        if sql.startswith("SELECT")
        for row in stops.store.connection.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]
    assert len([plan for plan in plans if plan.startswith("SEARCH")]) == 5
    assert [plan for plan in plans if "SCAN" in plan] == []


@pytest.mark.promise("P3", "P4", "R15")
def test_a_halt_or_an_allowance_of_a_unit_that_rolls_back_is_none_and_a_lifted_one_stands(stops: Stops) -> None:
    halts = stops.halts
    stops.set("session", "s1")

    def state(tx: Any) -> tuple[list[str], dict[CapKind, int]]:
        return [fact.scope for fact in halts.on(tx, "s1", "a1")], halts.allowances(tx, ("s1", "a1"))

    def breaks(tx: Any) -> None:
        halt = halts.get(tx, "session", "s1")
        assert halt is not None
        halts.lift(tx, halt, by="operator:ana", reason="seen to")
        halts.set(tx, "agent", "a1", code="c", text="why", by="operator:ana")
        halts.allow(tx, "agent", "a1", CapKind.DAY, 5, until_us=NOON_US + HOUR, by="operator:ana")
        assert state(tx) == (["agent"], {CapKind.DAY: 5})
        raise ValueError

    with stops.store.batch() as unit:
        assert unit(state) == (["session"], {})
        with pytest.raises(ValueError):
            unit(breaks)
        assert unit(state) == (["session"], {})


@pytest.mark.promise("R15")
def test_a_halt_of_a_lost_batch_is_none(stops: Stops) -> None:
    stops.store.on_lost = (stops.halts.forget,)
    assert stops.on() == []
    with stops.store.batch(lost=True) as unit:
        unit(lambda tx: stops.halts.set(tx, "session", "s1", code="c", text="why", by="operator:ana"))
        assert len(unit(lambda tx: stops.halts.on(tx, "s1", "a1"))) == 1
    assert stops.on() == []
