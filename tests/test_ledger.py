"""Holds, how they end, and what counts in which window."""

from __future__ import annotations

import gc
import random
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from haltline.errors import Conflict, NotFound, StoreUnavailable
from haltline.ledger import Ledger, Spent
from haltline.policy.model import Usage
from haltline.store.database import connect_writer
from haltline.store.writer import Tx, Writer
from support.records import HOUR, NOON_US, SECOND, Store, a_hold, add_people, utc_day


class Books:
    """A ledger on a store of its own, with one unit for each act."""

    def __init__(
        self, folder: Path, day_bounds: Callable[[int], tuple[int, int]] = utc_day, at_us: int = NOON_US
    ) -> None:
        self.ledger = Ledger(day_bounds)
        self.store = Store(folder, at_us=at_us, on_lost=(self.ledger.forget,))
        self.store.people({"a1": ("s1", "s2"), "a2": ("s3",)})

    def hold(self, call: str, amount: int = 100, **more: Any) -> None:
        self.store.run(lambda tx: self.ledger.hold(tx, a_hold(call, amount, **more)))

    def settle(self, call: str, charged: int) -> None:
        self.store.run(lambda tx: self.ledger.settle(tx, call, charged))

    def void(self, call: str) -> None:
        self.store.run(lambda tx: self.ledger.void(tx, call, "refused"))

    def doubt(self, call: str, charges_at_us: int = NOON_US + 24 * HOUR) -> None:
        self.store.run(lambda tx: self.ledger.doubt(tx, call, "timed out", charges_at_us))

    def spent(self, agent: str = "a1", session: str = "s1", windows: tuple[int, ...] = ()) -> Spent:
        return self.store.run(lambda tx: self.ledger.spent(tx, agent, session, windows))

    def pass_time(self, us: int) -> None:
        self.store.now_us += us

    def same_after_a_restart(self, windows: tuple[int, ...] = ()) -> Spent:
        """What is remembered, which must be what a new ledger reads from the rows."""
        remembered = self.spent(windows=windows)
        self.ledger.forget()
        assert self.spent(windows=windows) == remembered
        return remembered


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path)
    yield books
    books.store.close()


@pytest.mark.promise("P2")
def test_a_hold_counts_in_every_window_until_it_is_settled_for_what_it_cost(books: Books) -> None:
    books.hold("c1", 100)
    for usage in (books.spent().task, books.spent().hour, books.spent().day):
        assert usage == Usage(0, 100)
    books.settle("c1", 70)
    spent = books.same_after_a_restart()
    assert (spent.task, spent.hour, spent.day) == (Usage(70, 0), Usage(70, 0), Usage(70, 0))
    assert (spent.calls_settled, spent.calls_open, spent.agent_running) == (1, 0, 0)


@pytest.mark.promise("P2")
def test_the_true_amount_is_kept_where_the_bill_was_higher_than_the_hold(books: Books) -> None:
    books.hold("c1", 100)
    books.settle("c1", 150)
    assert books.same_after_a_restart().task == Usage(150, 0)


@pytest.mark.promise("R11")
def test_a_voided_hold_counts_nowhere_and_is_no_call(books: Books) -> None:
    books.hold("c1", 100)
    books.void("c1")
    spent = books.same_after_a_restart(windows=(60,))
    assert (spent.task, spent.hour, spent.day) == (Usage(), Usage(), Usage())
    assert (spent.calls_settled, spent.calls_open, spent.agent_running) == (0, 0, 0)
    assert spent.rate_counts == {60: 1}  # it was admitted


LIVES = {
    "held": {"settled": True, "voided": True, "in_doubt": True},
    "settled": {"settled": False, "voided": False, "in_doubt": False},
    "voided": {"settled": False, "voided": False, "in_doubt": False},
    "in_doubt": {"settled": True, "voided": True, "in_doubt": False},
}


@pytest.mark.promise("P7")
@pytest.mark.parametrize(("state", "to", "legal"), [(s, t, ok) for s, tos in LIVES.items() for t, ok in tos.items()])
def test_a_hold_ends_exactly_once(books: Books, state: str, to: str, legal: bool) -> None:
    acts = {
        "settled": lambda: books.settle("c1", 60),
        "voided": lambda: books.void("c1"),
        "in_doubt": lambda: books.doubt("c1"),
    }
    books.hold("c1", 100)
    if state != "held":
        acts[state]()
    before = books.spent()
    if legal:
        acts[to]()
        assert books.store.run(lambda tx: books.ledger.get(tx, "c1")).state == to
    else:
        with pytest.raises(Conflict, match=f"is {state} and cannot become {to}"):
            acts[to]()
        assert books.spent() == before
        assert books.store.run(lambda tx: books.ledger.get(tx, "c1")).state == state
    books.same_after_a_restart()


def test_a_call_that_was_never_admitted_is_not_found(books: Books) -> None:
    for act in (lambda: books.settle("c9", 1), lambda: books.void("c9"), lambda: books.doubt("c9")):
        with pytest.raises(NotFound, match="c9"):
            act()


@pytest.mark.promise("R1", "R10")
def test_in_doubt_counts_in_every_current_window_until_resolved(books: Books) -> None:
    books.hold("c1", 100)
    books.doubt("c1")
    for days in range(3):
        spent = books.same_after_a_restart()
        assert (spent.task, spent.hour, spent.day) == (Usage(0, 100, 100), Usage(0, 100, 100), Usage(0, 100, 100)), days
        assert (spent.calls_open, spent.agent_running) == (1, 0)  # it is not running
        books.pass_time(24 * HOUR)
    books.settle("c1", 100)
    spent = books.same_after_a_restart()
    assert (spent.task, spent.hour, spent.day) == (Usage(100, 0), Usage(), Usage())  # its windows are long gone


@pytest.mark.promise("R8")
def test_a_late_settlement_corrects_the_windows_of_its_admission(books: Books) -> None:
    books.hold("c1", 100)
    books.doubt("c1")
    books.pass_time(30 * 60 * SECOND)
    books.settle("c1", 40)
    spent = books.same_after_a_restart()
    assert (spent.task, spent.hour, spent.day) == (Usage(40, 0), Usage(40, 0), Usage(40, 0))
    books.pass_time(30 * 60 * SECOND)
    spent = books.same_after_a_restart()
    assert (spent.hour, spent.day) == (Usage(), Usage(40, 0))


@pytest.mark.promise("R2")
def test_the_hour_rolls(books: Books) -> None:
    for minute in range(90):
        books.hold(f"c{minute}", 10)
        books.settle(f"c{minute}", 10)
        spent = books.spent()
        assert spent.hour == Usage(10 * min(minute + 1, 60), 0)
        assert spent.hour_resets_at_us == NOON_US + HOUR + max(minute - 59, 0) * 60 * SECOND
        books.pass_time(60 * SECOND)
    books.pass_time(HOUR)
    assert books.same_after_a_restart().hour == Usage()
    assert books.spent().hour_resets_at_us is None


def test_holds_of_one_microsecond_leave_the_hour_together(books: Books) -> None:
    with books.store.batch() as unit:
        for name in "abcd":
            unit(lambda tx, name=name: books.ledger.hold(tx, a_hold(name, 10)))
    books.settle("a", 3)
    books.void("b")
    books.doubt("c")
    books.pass_time(HOUR - 1)
    assert books.same_after_a_restart().hour == Usage(3, 20, 10)
    books.pass_time(1)
    assert books.same_after_a_restart().hour == Usage(0, 10, 10)  # the one in doubt
    books.settle("d", 10)
    books.settle("c", 10)
    assert books.same_after_a_restart().hour == Usage()


@pytest.mark.promise("R2")
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-11-24"])
def test_a_day_is_the_calendars_also_when_it_has_23_or_25_hours(tmp_path: Path, day: str) -> None:
    zone = ZoneInfo("Europe/Berlin")

    def bounds(now_us: int) -> tuple[int, int]:
        here = datetime.fromtimestamp(now_us // SECOND, zone).date()
        start = datetime(here.year, here.month, here.day, tzinfo=zone)
        after = datetime.fromordinal(here.toordinal() + 1).replace(tzinfo=zone)
        return int(start.timestamp()) * SECOND, int(after.timestamp()) * SECOND

    start, end = bounds(int(datetime.fromisoformat(f"{day}T12:00:00+01:00").timestamp()) * SECOND)
    books = Books(tmp_path, bounds, start)
    hours = (end - start) // HOUR
    for hour in range(hours):
        books.hold(f"c{hour}", 10)
        books.settle(f"c{hour}", 10)
        assert books.spent().day == Usage(10 * (hour + 1), 0)
        assert books.spent().day_resets_at_us == end
        books.pass_time(HOUR)
    assert books.same_after_a_restart().day == Usage()
    books.store.close()


def test_a_hold_is_a_day_boundarys_matter_even_if_nobody_asked_first(books: Books) -> None:
    books.hold("c1", 10)
    books.pass_time(12 * HOUR)
    books.hold("c2", 10)
    books.settle("c1", 10)
    assert books.same_after_a_restart().day == Usage(0, 10)


def test_rates_count_admissions_in_each_rolling_window(books: Books) -> None:
    for number in range(10):
        books.hold(f"c{number}", 0)
        books.pass_time(SECOND)
    assert books.spent(windows=(1, 5, 60)).rate_counts == {1: 0, 5: 4, 60: 10}
    assert books.same_after_a_restart(windows=(1, 5, 60)).rate_counts == {1: 0, 5: 4, 60: 10}
    books.hold("c10", 0)
    assert books.same_after_a_restart(windows=(1, 5, 60)).rate_counts == {1: 1, 5: 5, 60: 11}


def test_a_rate_window_that_no_policy_asks_for_any_more_does_not_grow(books: Books) -> None:
    books.spent(windows=(2,))
    for number in range(100):
        books.hold(f"c{number}", 0)
        books.pass_time(SECOND)
    account = books.store.run(lambda tx: books.ledger._accounts.agent(tx, "a1"))
    assert len(account._admissions[2]) <= 2


@pytest.mark.promise("P5")
def test_accounts_are_kept_apart_by_session_and_by_agent(books: Books) -> None:
    books.hold("c1", 10, session="s1")
    books.hold("c2", 20, session="s2")
    books.hold("c3", 40, agent="a2", session="s3")
    assert books.spent("a1", "s1").task == Usage(0, 10)
    assert books.spent("a1", "s2").task == Usage(0, 20)
    assert books.spent("a1", "s2").day == Usage(0, 30)
    assert books.spent("a2", "s3").day == Usage(0, 40)


@pytest.mark.promise("R15")
def test_a_unit_that_raises_leaves_no_trace_in_what_is_remembered(books: Books) -> None:
    books.hold("c1", 100)
    before = books.spent(windows=(60,))

    def breaks(tx: Tx) -> None:
        books.ledger.hold(tx, a_hold("c2", 50))
        books.ledger.settle(tx, "c1", 100)
        books.ledger.hold(tx, a_hold("c3", 50, session="s2"))
        raise RuntimeError

    with books.store.batch() as unit:
        with pytest.raises(RuntimeError):
            unit(breaks)
        assert unit(lambda tx: books.ledger.spent(tx, "a1", "s1", (60,))) == before
        unit(lambda tx: books.ledger.hold(tx, a_hold("c4", 1)))
    assert books.same_after_a_restart(windows=(60,)).task == Usage(0, 101)


@pytest.mark.promise("R15")
def test_a_lost_batch_leaves_no_trace_in_what_is_remembered(books: Books) -> None:
    books.hold("c1", 100)
    before = books.spent(windows=(60,))
    with books.store.batch(lost=True) as unit:
        unit(lambda tx: books.ledger.settle(tx, "c1", 100))
        unit(lambda tx: books.ledger.hold(tx, a_hold("c2", 50)))
    assert books.spent(windows=(60,)) == before
    assert books.same_after_a_restart(windows=(60,)) == before


def test_a_unit_reads_what_it_wrote_itself(books: Books) -> None:
    def unit(tx: Tx) -> tuple[Usage, Usage, Usage]:
        books.ledger.hold(tx, a_hold("c1", 10))
        first = books.ledger.spent(tx, "a1", "s1", ()).task
        books.ledger.hold(tx, a_hold("c2", 10))
        books.ledger.settle(tx, "c1", 7)
        return first, books.ledger.spent(tx, "a1", "s1", ()).task, books.ledger.spent(tx, "a1", "s1", ()).day

    assert books.store.run(unit) == (Usage(0, 10), Usage(7, 10), Usage(7, 10))
    books.same_after_a_restart()


def test_forgetting_in_the_middle_of_a_unit_counts_nothing_twice(books: Books) -> None:
    def unit(tx: Tx) -> None:
        books.ledger.hold(tx, a_hold("c1", 10))
        books.ledger.forget()
        books.ledger.hold(tx, a_hold("c2", 10))
        books.ledger.forget()
        books.ledger.spent(tx, "a1", "s1", (60,))
        books.ledger.doubt(tx, "c1", "why", NOON_US)

    books.store.run(unit)
    spent = books.same_after_a_restart(windows=(60,))
    assert (spent.task, spent.day, spent.rate_counts) == (Usage(0, 20, 10), Usage(0, 20, 10), {60: 2})


def test_the_same_call_is_not_held_twice(books: Books) -> None:
    books.hold("c1", 10)
    with pytest.raises(Conflict, match="held already"):
        books.hold("c1", 10)
    assert books.same_after_a_restart().task == Usage(0, 10)
    books.settle("c1", 7)
    with pytest.raises((StoreUnavailable, sqlite3.IntegrityError)):  # the rows know of those that ended
        books.hold("c1", 10)
    assert books.spent().task == Usage(7, 0)


def test_negative_money_is_refused(books: Books) -> None:
    with pytest.raises(ValueError, match="-1 is no amount"):
        books.hold("c1", -1)
    books.hold("c2", 1)
    with pytest.raises(ValueError, match="-1 is no amount"):
        books.settle("c2", -1)
    assert books.same_after_a_restart().task == Usage(0, 1)


def test_no_column_of_money_or_time_is_a_float(books: Books) -> None:
    for (sql,) in books.store.connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'"):
        assert "REAL" not in sql.upper()
        assert "STRICT" in sql.upper()


@pytest.mark.promise("R10")
def test_what_a_crash_left_open_is_found_at_start_and_nothing_else(books: Books) -> None:
    for name in "abcd":
        books.hold(name, 10)
    books.settle("a", 10)
    books.void("b")
    books.doubt("c")
    again = Ledger(utc_day)
    assert [hold.id for hold in books.store.run(again.left_held)] == ["d"]
    books.store.run(lambda tx: again.doubt(tx, "d", "the broker stopped", NOON_US + HOUR))
    assert books.store.run(again.left_held) == []
    assert books.store.run(lambda tx: again.spent(tx, "a1", "s1", ())).task == Usage(10, 20, 20)


@pytest.mark.promise("R10")
def test_what_is_in_doubt_comes_due_at_its_own_deadline_oldest_first(books: Books) -> None:
    for name, after in (("a", 3), ("b", 1), ("c", 2)):
        books.hold(name, 10)
        books.doubt(name, NOON_US + after * HOUR)
    assert books.store.run(books.ledger.due) == []
    books.pass_time(2 * HOUR)
    due = books.store.run(books.ledger.due)
    assert [hold.id for hold in due] == ["b", "c"]
    assert due[0].doubt_us == NOON_US
    assert books.store.run(lambda tx: [hold.id for hold in books.ledger.due(tx, most=1)]) == ["b"]
    books.settle("b", 10)
    assert [hold.id for hold in books.store.run(books.ledger.due)] == ["c"]


def test_no_query_of_the_hot_path_reads_the_whole_history(books: Books) -> None:
    plans: list[str] = []
    seen: list[str] = []
    connection = books.store.connection
    connection.set_trace_callback(seen.append)
    books.hold("c1", 10)
    books.spent(windows=(60,))
    books.doubt("c1", NOON_US)
    books.store.run(books.ledger.due)
    books.store.run(books.ledger.left_held)
    books.settle("c1", 10)
    books.ledger.forget()
    books.spent(windows=(60,))
    connection.set_trace_callback(None)
    for sql in {one for one in seen if one.startswith(("SELECT", "UPDATE"))}:
        plans += [f"{row[3]} <- {sql}" for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert len(plans) > 7
    bounded = (
        "USING INDEX holds_open",
        "SCAN CONSTANT ROW",
        "SCAN family",
        "SCAN above",
    )  # a session, and those around it
    assert [plan for plan in plans if "SCAN" in plan and not any(one in plan for one in bounded)] == []


@pytest.mark.promise("P2", "R3")
async def test_sixteen_callers_of_a_thousand_against_a_cap_for_fifty_get_exactly_fifty(tmp_path: Path) -> None:
    amount, cap = 10, 500
    path = tmp_path / "haltline.db"
    ledger = Ledger(utc_day)
    writer = Writer(lambda: connect_writer(path), lambda: NOON_US)
    writer.on_lost(ledger.forget)
    writer.start()
    await writer.run(lambda tx: add_people(tx.connection, {"a1": ("s1",)}))
    granted: list[str] = []
    over: list[int] = []

    def admit(tx: Tx, call: str) -> bool:
        task = ledger.spent(tx, "a1", "s1", ()).task
        if task.settled_micros + task.held_micros + amount > cap:
            return False
        ledger.hold(tx, a_hold(call, amount))
        task = ledger.spent(tx, "a1", "s1", ()).task
        if task.settled_micros + task.held_micros > cap:
            over.append(1)
        return True

    async def caller(name: int) -> None:
        for number in range(1_000):
            call = f"c{name}-{number}"
            if await writer.run(lambda tx, call=call: admit(tx, call)):
                granted.append(call)
                await writer.run(lambda tx, call=call: ledger.settle(tx, call, amount))

    async with anyio.create_task_group() as tasks:
        for name in range(16):
            tasks.start_soon(caller, name)
    total = await writer.run(lambda tx: tx.execute("SELECT sum(charged_micros), count(*) FROM holds").fetchone())
    await writer.aclose()
    assert (len(granted), len(over), total) == (50, 0, (cap, 50))


@pytest.mark.promise("P5")
def test_a_drill_s_calls_use_up_no_rate_of_the_agent_that_is_drilled(books: Books) -> None:
    books.hold("c1", 0)
    books.spent(windows=(60,))  # remembered from here on
    for number in range(10):
        one = a_hold(f"d{number}", 0)._replace(upstream="haltline-drill")
        books.store.run(lambda tx, one=one: books.ledger.hold(tx, one))
    assert books.spent(windows=(60,)).rate_counts == {60: 1}
    assert books.same_after_a_restart(windows=(60,)).rate_counts == {60: 1}


@pytest.mark.promise("P5", "P7")
@pytest.mark.parametrize("end", ["settled", "voided", "in_doubt"])
def test_a_drill_s_call_takes_no_place_of_the_agent_that_is_drilled(books: Books, end: str) -> None:
    books.hold("own", 0)
    one = a_hold("drilled", 0)._replace(upstream="haltline-drill")
    books.store.run(lambda tx: books.ledger.hold(tx, one))
    assert books.same_after_a_restart().agent_running == 1
    {"settled": lambda: books.settle("drilled", 0), "voided": lambda: books.void("drilled"), "in_doubt": lambda: books.doubt("drilled")}[end]()  # fmt: skip
    assert books.same_after_a_restart().agent_running == 1
    books.settle("own", 0)
    assert books.same_after_a_restart().agent_running == 0


@pytest.mark.promise("P2", "R1", "R8")
def test_a_busy_hour_is_exact_although_only_its_oldest_moments_are_in_memory(books: Books) -> None:
    dice = random.Random(41)
    calls: dict[str, tuple[int, int | None]] = {}
    """Admission, and what it was settled for."""
    running: list[str] = []
    for number in range(450):
        books.pass_time(dice.randint(2, 18) * SECOND)
        with books.store.batch() as unit:
            call = f"c{number}"
            unit(lambda tx, call=call: books.ledger.hold(tx, a_hold(call, 10)))
            calls[call] = (books.store.now_us, None)
            running.append(call)
            while len(running) > 3 or (running and dice.random() < 0.7):
                ended = running.pop(dice.randrange(len(running)) if dice.random() < 0.9 else 0)
                charged = dice.choice((0, 7, 10, 13))
                unit(lambda tx, ended=ended, charged=charged: books.ledger.settle(tx, ended, charged))
                calls[ended] = (calls[ended][0], charged)
        if number % 30 == 0:
            since_us = books.store.now_us - HOUR
            recent = [(at_us, charged) for at_us, charged in calls.values() if at_us > since_us]
            told = books.same_after_a_restart() if number % 90 == 0 else books.spent()
            assert told.hour == Usage(sum(charged or 0 for _, charged in recent), 10 * len(running))
            assert told.hour_resets_at_us == min(at_us for at_us, charged in recent if charged != 0) + HOUR
    books.pass_time(HOUR)
    assert books.same_after_a_restart().hour == Usage(0, 0)


def test_what_is_remembered_of_an_hour_does_not_grow_with_its_calls(books: Books) -> None:
    def many(calls: int) -> None:
        for number in range(calls // 20):
            books.pass_time(SECOND // 10)
            with books.store.batch() as unit:
                for one in range(20):
                    call = f"c{books.store.now_us}-{number}-{one}"
                    unit(lambda tx, call=call: books.ledger.hold(tx, a_hold(call, 10)))
                    unit(lambda tx, call=call: books.ledger.settle(tx, call, 10))

    many(200)
    gc.collect()
    tracemalloc.start()
    many(3_000)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 75_000
    assert books.same_after_a_restart().hour == Usage(32_000, 0)
