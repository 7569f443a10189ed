"""Rows kept in memory: never other than what the writer's connection sees, and never too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haltline.store.remembered import Remembered
from haltline.store.unit import Tx
from support.records import Store


class Values:
    """Owns the table meta, and remembers what it reads of it."""

    def __init__(self) -> None:
        self.known: Remembered[str, str] = Remembered(most=3)
        self.read = 0

    def get(self, tx: Tx, key: str) -> str:
        known = self.known.get(key)
        if known is None:
            self.read += 1
            row = tx.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            known = self.known.keep(key, "nothing" if row is None else row[0])
        return known

    def put(self, tx: Tx, key: str, value: str) -> None:
        self.known.changes(tx, key)
        tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)", (key, value))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def test_a_row_is_read_once_and_again_once_it_changed(store: Store) -> None:
    values = Values()
    assert [store.run(lambda tx: values.get(tx, "a")) for _ in range(3)] == ["nothing"] * 3
    store.run(lambda tx: values.put(tx, "a", "1"))
    assert [store.run(lambda tx: values.get(tx, "a")) for _ in range(3)] == ["1"] * 3
    assert values.read == 2


@pytest.mark.promise("R15")
def test_what_a_unit_saw_of_its_own_change_is_forgotten_where_it_rolls_back(store: Store) -> None:
    values = Values()

    def breaks(tx: Tx) -> None:
        values.put(tx, "a", "2")
        assert values.get(tx, "a") == "2"
        raise ValueError

    with store.batch() as unit:
        unit(lambda tx: values.put(tx, "a", "1"))
        with pytest.raises(ValueError):
            unit(breaks)
        assert unit(lambda tx: values.get(tx, "a")) == "1"


@pytest.mark.promise("R15")
def test_with_a_lost_batch_everything_is_forgotten(tmp_path: Path) -> None:
    values = Values()
    store = Store(tmp_path, on_lost=(values.known.forget,))
    with store.batch(lost=True) as unit:
        unit(lambda tx: values.put(tx, "a", "1"))
        assert unit(lambda tx: values.get(tx, "a")) == "1"
    assert store.run(lambda tx: values.get(tx, "a")) == "nothing"
    store.close()


def test_there_are_never_more_than_so_many(store: Store) -> None:
    values = Values()
    for number in range(10):
        store.run(lambda tx, key=str(number): values.get(tx, key))  # type: ignore[misc]
        assert len(values.known._rows) <= 3
