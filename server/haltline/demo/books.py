"""The books of a demonstration upstream: one row for each call it executed, with what it bills for it.

Owns the SQLite file and its locking (several processes may share one file). Knows nothing of Haltline: what these books
say is what Haltline's ledger is compared with.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.clock import Clock, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Billed", "Books", "Shelf", "read_books"]

BUSY_TIMEOUT_S = 10.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS billed (
    number INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    tool TEXT NOT NULL,
    cost_micros INTEGER NOT NULL CHECK (cost_micros >= 0),
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('running', 'done', 'failed', 'cancelled'))
);
"""


@dataclass(frozen=True, slots=True)
class Billed:
    """One executed call. `subject` is what it was about: the caller's reference, a task."""

    number: int
    at: str
    tool: str
    cost_micros: int
    subject: str
    outcome: str


class Shelf:
    """A SQLite file that several processes may write to: short transactions, each waiting its turn."""

    def __init__(self, file: Path, schema: str) -> None:
        self._connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        with self.writing() as connection:
            for statement in filter(str.strip, (SCHEMA + schema).split(";")):
                connection.execute(statement)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end of the block and undone where it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        self._connection.close()


class Books:
    """What each call costs, and the row that says it was executed."""

    def __init__(self, shelf: Shelf, prices: Mapping[str, int], now_us: Callable[[], int] | None = None) -> None:
        self._shelf = shelf
        self._prices = prices
        self._now_us = now_us or Clock().now_us

    @contextmanager
    def bill(self, tool: str, subject: str) -> Iterator[int]:
        """Bill a call before it does anything, and note how it ended; yields its cost in micro-units.

        A call that fails or is cancelled half-way was executed all the same, so it stays billed.
        """
        cost = self._prices[tool]
        with self._shelf.writing() as connection:
            number = connection.execute(
                "INSERT INTO billed (at_us, tool, cost_micros, subject, outcome) VALUES (?, ?, ?, ?, 'running')",
                (self._now_us(), tool, cost, subject),
            ).lastrowid
        outcome = "cancelled"
        try:
            yield cost
            outcome = "done"
        except Exception:
            outcome = "failed"
            raise
        finally:
            with self._shelf.writing() as connection:
                connection.execute("UPDATE billed SET outcome = ? WHERE number = ?", (outcome, number))

    def total_micros(self) -> int:
        return int(self._shelf.rows("SELECT coalesce(sum(cost_micros), 0) AS total FROM billed")[0]["total"])


def read_books(file: Path) -> list[Billed]:
    """Every row, oldest first, as an auditor reads them: from the file, beside whoever writes it."""
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
        rows = connection.execute(
            "SELECT number, at_us, tool, cost_micros, subject, outcome FROM billed ORDER BY number"
        )
        return [Billed(number, iso(at_us), *rest) for number, at_us, *rest in rows.fetchall()]
