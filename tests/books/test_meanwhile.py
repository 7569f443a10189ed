"""The books of a broker that goes on: what is admitted, ends or is decided while they are read is no fault (P7)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.big_book import _Book
from haltline import books
from haltline.audit import Event, Kind
from haltline.books import Books, check_books
from haltline.store.database import connect_reader

pytestmark = pytest.mark.promise("P7")


@pytest.mark.parametrize("room", [2, 1_000])
def test_calls_that_are_made_and_end_while_the_books_are_read_are_no_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(books, "_PIECE", 7)
    monkeypatch.setattr(books, "OPEN_MAX", room)
    book, dice = _Book(tmp_path, 1), random.Random(room)
    book.store.run(lambda tx: book.open(tx, 8))
    for number in range(30):
        book.store.run(lambda tx, number=number: book.call(tx, number))
    calls = 30

    def goes_on(_: int) -> None:
        """Another call, and whatever is open ends."""
        nonlocal calls
        if calls < 90:
            book.store.run(lambda tx, number=calls: book.call(tx, number))
            calls += 1
        rows = book.store.connection.execute(
            "SELECT id, state, amount_micros FROM holds WHERE state IN ('held', 'in_doubt')"
        )
        for call, state, amount in rows.fetchall():
            if dice.random() < 0.3:
                book.store.run(lambda tx, one=(call, state, amount): end(book, tx, *one))

    connection, read = connect_reader(book.store.path), Books()
    assert [fault.what for fault in check_books(connection, read, goes_on)] == []
    assert (read.calls, read.rows) == (90, read.events)
    connection.close()
    book.store.close()


def end(book: _Book, tx, call: str, state: str, amount: int) -> None:
    book.ledger.settle(tx, call, amount)
    kind = Kind.CALL_SUCCEEDED if state == "held" else Kind.CALL_RESOLVED
    body = {"charged_micros": amount, "amount_micros": amount, "outcome": "settle"}
    book.audit.append(tx, Event(kind, "test", call=call, body=body))
