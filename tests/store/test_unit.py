"""Units of one transaction: what is written when, who sees it, and what stays of a unit that raises."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from haltline.store.database import connect_writer
from haltline.store.unit import AsksSqlite, Batch, BatchLost, Tx
from support.records import Store

PUT = "INSERT INTO meta (key, value) VALUES (?,?)"
CHANGE = "WITH one (value, key) AS (VALUES (?,?)) UPDATE meta SET value = one.value FROM one WHERE meta.key = one.key"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def rows(tx: Tx) -> dict[str, str]:
    return dict(tx.execute("SELECT key, value FROM meta ORDER BY rowid").fetchall())


def refuse() -> None:
    raise ValueError("after its rows")


def test_what_waits_to_be_written_is_there_for_whoever_reads_in_the_same_transaction(store: Store) -> None:
    with store.batch() as unit:
        unit(lambda tx: tx.insert(PUT, ("a", "1")))
        unit(lambda tx: tx.update(CHANGE, ("2", "a")))
        assert unit(rows) == {"a": "2"}
        assert unit(lambda tx: (tx.insert(PUT, ("b", "1")), rows(tx))[1]) == {"a": "2", "b": "1"}


def test_rows_come_before_changes_whoever_noted_them_first(store: Store) -> None:
    with store.batch() as unit:
        unit(lambda tx: tx.update(CHANGE, ("changed", "a")))
        unit(lambda tx: tx.insert(PUT, ("a", "new")))
        unit(lambda tx: tx.update(CHANGE, ("changed again", "a")))
    assert store.run(rows) == {"a": "changed again"}


def test_changes_of_one_row_come_in_the_order_of_their_units(store: Store) -> None:
    with store.batch() as unit:
        unit(lambda tx: tx.insert(PUT, ("a", "new")))
        unit(lambda tx: tx.insert(PUT, ("b", "new")))
        for value in "123":
            unit(lambda tx, value=value: tx.update(CHANGE, (value, "a")))
        unit(lambda tx: tx.update(CHANGE, ("1", "b")))
    assert store.run(rows) == {"a": "3", "b": "1"}


@pytest.mark.promise("R15")
@pytest.mark.parametrize("reads", [False, True])
def test_of_a_unit_that_raises_no_row_stays_and_the_others_keep_theirs(store: Store, reads: bool) -> None:
    def breaks(tx: Tx) -> None:
        tx.insert(PUT, ("bad", "1"))
        tx.update(CHANGE, ("bad", "before"))
        if reads:
            assert rows(tx) == {"before": "bad", "bad": "1"}
            tx.insert(PUT, ("worse", "1"))
        refuse()

    with store.batch() as unit:
        unit(lambda tx: tx.insert(PUT, ("before", "1")))
        with pytest.raises(ValueError, match="after its rows"):
            unit(breaks)
        unit(lambda tx: tx.insert(PUT, ("after", "1")))
    assert store.run(rows) == {"before": "1", "after": "1"}


@pytest.mark.promise("R15")
def test_a_unit_whose_own_rows_do_not_fit_fails_alone_where_it_reads(store: Store) -> None:
    def twice(tx: Tx) -> None:
        tx.insert(PUT, ("twice", "1"))
        tx.insert(PUT, ("twice", "2"))
        rows(tx)

    with store.batch() as unit:
        unit(lambda tx: tx.insert(PUT, ("before", "1")))
        with pytest.raises(sqlite3.IntegrityError):
            unit(twice)
    assert store.run(rows) == {"before": "1"}


@pytest.mark.promise("R15")
def test_rows_that_do_not_fit_when_all_are_written_lose_the_whole_batch(store: Store) -> None:
    def two_units() -> None:
        with store.batch() as unit:
            unit(lambda tx: tx.insert(PUT, ("a", "1")))
            unit(lambda tx: tx.insert(PUT, ("a", "2")))

    with pytest.raises(BatchLost, match="UNIQUE"):
        two_units()
    assert store.run(rows) == {}


def test_a_unit_that_asks_nothing_of_sqlite_needs_no_savepoint(tmp_path: Path) -> None:
    said: list[str] = []
    connection = connect_writer(tmp_path / "haltline.db")
    connection.set_trace_callback(said.append)
    connection.execute("BEGIN IMMEDIATE")
    batch = Batch(connection, 7)
    for key in "abc":
        tx = Tx(batch)
        tx.insert(PUT, (key, "1"))
        assert tx.end() == []
    batch.write()
    connection.execute("COMMIT")
    connection.close()
    assert [one.split(" ", 1)[0] for one in said] == ["BEGIN", "INSERT", "COMMIT"]


def test_a_unit_that_says_that_it_will_ask_has_changed_nothing_when_there_is_no_transaction_yet() -> None:
    tx = Tx(Batch(None, 0))
    with pytest.raises(AsksSqlite):
        tx.will_ask()
    assert tx.asks


def test_in_a_transaction_it_goes_on_and_has_no_savepoint_before_it_asks(store: Store) -> None:
    seen: list[str] = []
    store.connection.set_trace_callback(seen.append)
    store.run(lambda tx: tx.will_ask())
    assert seen == ["BEGIN IMMEDIATE", "COMMIT"]
