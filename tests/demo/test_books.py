"""The books of a demonstration upstream: a row before anything is done, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haltline.demo.books import Books, Shelf, read_books


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "books #1?.db"


@pytest.fixture
def shelf(file: Path) -> Iterator[Shelf]:
    shelf = Shelf(file, "")
    yield shelf
    shelf.close()


@pytest.fixture
def books(shelf: Shelf) -> Books:
    return Books(shelf, {"charge": 50_000, "add": 1}, now_us=lambda: 1_000_000)


def test_a_call_is_billed_before_it_is_done_and_closed_after(books: Books, file: Path) -> None:
    with books.bill("charge", "invoice-1") as cost:
        assert cost == 50_000
        assert [row.outcome for row in read_books(file)] == ["running"]
    [row] = read_books(file)
    assert (row.at, row.tool, row.subject, row.outcome) == (
        "1970-01-01T00:00:01.000000Z",
        "charge",
        "invoice-1",
        "done",
    )


@pytest.mark.parametrize(("raised", "outcome"), [(ValueError, "failed"), (KeyboardInterrupt, "cancelled")])
def test_what_fails_or_is_cancelled_stays_billed(
    books: Books, file: Path, raised: type[BaseException], outcome: str
) -> None:
    with pytest.raises(raised), books.bill("add", "x"):
        raise raised
    assert [(row.cost_micros, row.outcome) for row in read_books(file)] == [(1, outcome)]
    assert books.total_micros() == 1


def test_a_transaction_that_raises_changes_nothing(shelf: Shelf, file: Path) -> None:
    with pytest.raises(ZeroDivisionError), shelf.writing() as connection:
        connection.execute(
            "INSERT INTO billed (at_us, tool, cost_micros, subject, outcome) VALUES (0, 't', 1, 's', 'done')"
        )
        raise ZeroDivisionError
    assert read_books(file) == []
