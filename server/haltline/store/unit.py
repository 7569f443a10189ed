"""Units of work: what a unit may ask of the transaction that it shares with others, and how it alone is undone (R15).

Rows that nobody reads in the same transaction (events, holds) are only noted by their unit and written for many units at
once, before anything is read and before COMMIT. A unit that asks nothing of SQLite needs no savepoint. Knows no tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from haltline.errors import StoreUnavailable

__all__ = ["Batch", "BatchLost", "Tx"]

Row = tuple[Any, ...]
_BROKEN_STORE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Primary result codes that say the store is broken, not the unit that met it: the whole batch is given up."""


class BatchLost(StoreUnavailable):
    """The store is broken, or rows of several units cannot be written: no unit of the batch is committed."""


class Batch:
    """One transaction: its connection, its time, and the rows that wait to be written."""

    __slots__ = ("connection", "inserts", "now_us", "updates")

    def __init__(self, connection: sqlite3.Connection, now_us: int) -> None:
        self.connection = connection
        self.now_us = now_us
        self.inserts: dict[str, list[Row]] = {}
        self.updates: dict[str, list[Row]] = {}

    def write(self) -> None:
        """Write what waits. Raises BatchLost: whose row it was cannot be told any more."""
        try:
            _write(self.connection, self.inserts)
            _write(self.connection, self.updates)
        except Exception as error:
            raise BatchLost(str(error)) from error


class Tx:
    """What a unit works with: the transaction, and one `now_us` for all it does."""

    __slots__ = ("_after_commit", "_batch", "_inserts", "_on_rollback", "_saved", "_updates", "now_us")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.now_us = batch.now_us
        self._saved = False
        self._inserts: list[tuple[str, Row]] = []
        self._updates: list[tuple[str, Row]] = []
        self._on_rollback: list[Callable[[], None]] = []
        self._after_commit: list[Callable[[], None]] = []

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Ask or change something now; what waits to be written is written before."""
        return self.connection.execute(sql, values)

    @property
    def connection(self) -> sqlite3.Connection:
        """As this unit sees it; in a savepoint of its own from here on."""
        if not self._saved:
            self._batch.write()
            self._batch.connection.execute("SAVEPOINT unit")
            self._saved = True
        if self._inserts or self._updates:
            self._note()
            _write(self._batch.connection, self._batch.inserts)
            _write(self._batch.connection, self._batch.updates)
        return self._batch.connection

    def insert(self, sql: str, row: Row) -> None:
        """A row to be written with others, before anything is read and before all `update`s.

        It must be one that fits: else no unit of the batch is committed.
        """
        self._inserts.append((sql, row))

    def update(self, sql: str, row: Row) -> None:
        """As `insert`: a change of one row by its key, after all inserts and in the order of the units."""
        self._updates.append((sql, row))

    def on_rollback(self, step: Callable[[], None]) -> None:
        """Run in the writer thread if this unit raises; must not fail.

        For what is remembered beside the rows: change it together with them, and drop it here. A batch lost at COMMIT
        calls the writer's `on_lost` hooks instead.
        """
        self._on_rollback.append(step)

    def after_commit(self, step: Callable[[], None]) -> None:
        """Run on the event loop after COMMIT, in the order of commits, before the unit's caller goes on; never if it fails."""
        self._after_commit.append(step)

    # for whoever runs units

    def end(self) -> Sequence[Callable[[], None]]:
        """The unit did not raise. Returns its steps for after COMMIT."""
        if self._saved:
            self.connection.execute("RELEASE unit")
        else:
            self._note()
        return self._after_commit

    def undo(self, error: BaseException) -> None:
        """The unit raised: nothing of it stays. Raises BatchLost where the store is what broke."""
        connection = self._batch.connection
        if not connection.in_transaction or _store_is_broken(error):
            raise BatchLost(str(error)) from error
        if self._saved:
            self._batch.inserts.clear()  # those before the savepoint are written
            self._batch.updates.clear()
            connection.execute("ROLLBACK TO unit")
            connection.execute("RELEASE unit")
        for step in self._on_rollback:
            step()

    def _note(self) -> None:
        for waiting, rows in ((self._batch.inserts, self._inserts), (self._batch.updates, self._updates)):
            for sql, row in rows:
                waiting.setdefault(sql, []).append(row)
            rows.clear()


def _write(connection: sqlite3.Connection, waiting: dict[str, list[Row]]) -> None:
    for sql, rows in waiting.items():
        connection.executemany(sql, rows)
    waiting.clear()


def _store_is_broken(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN_STORE
