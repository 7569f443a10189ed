"""Units of work: what a unit may ask of the transaction that it shares with others, and how it alone is undone (R15).

Rows that nobody reads in the same transaction (events, holds) are only noted by their unit and written for many units at
once, before anything is read and before COMMIT: many rows in one statement, for the interpreter is let go of once for each,
and taking it back from a busy event loop costs more than the rows do. A unit that asks nothing of SQLite needs no savepoint,
and no connection: it can run before the transaction begins. Knows no tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from haltline.errors import StoreUnavailable

__all__ = ["TOGETHER_MAX", "AsksSqlite", "Batch", "BatchLost", "Tx"]

Row = tuple[Any, ...]
TOGETHER_MAX = 32
"""Rows in one statement. The connection keeps a prepared statement for each number of them."""
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


class AsksSqlite(BaseException):
    """A unit asked before its transaction has begun: it is to be undone, and run again after. No unit may keep it for itself."""


class Batch:
    """One transaction: its connection (None before it begins), its time, and the rows that wait to be written."""

    __slots__ = ("connection", "inserts", "now_us", "updates")

    def __init__(self, connection: sqlite3.Connection | None, now_us: int) -> None:
        self.connection = connection
        self.now_us = now_us
        self.inserts: dict[str, list[Row]] = {}
        self.updates: dict[str, list[Row]] = {}

    def write(self) -> None:
        """Write what waits. Raises BatchLost: whose row it was cannot be told any more."""
        try:
            self.put()
        except Exception as error:
            raise BatchLost(str(error)) from error

    def put(self) -> None:
        """The same, for rows of one unit alone: raises what SQLite raises."""
        assert self.connection is not None
        for sql, rows in self.inserts.items():
            _write(self.connection, sql, rows)
        self.inserts.clear()
        for sql, rows in self.updates.items():
            if len({row[-1] for row in rows}) == len(rows):
                _write(self.connection, sql, rows)
            else:  # one statement changes each row once
                for row in rows:
                    _write(self.connection, sql, [row])
        self.updates.clear()


class Tx:
    """What a unit works with: the transaction, and one `now_us` for all it does."""

    __slots__ = ("_after_commit", "_batch", "_inserts", "_on_rollback", "_saved", "_updates", "asks", "now_us")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.now_us = batch.now_us
        self.asks = False
        """It asked SQLite before there was a transaction, and what it did must not stay."""
        self._saved = False
        self._inserts: list[tuple[str, Row]] = []
        self._updates: list[tuple[str, Row]] = []
        self._on_rollback: list[Callable[[], None]] = []
        self._after_commit: list[Callable[[], None]] = []

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Ask or change something now; what waits to be written is written before."""
        return self.connection.execute(sql, values)

    def will_ask(self) -> None:
        """Say so before what is remembered is changed: a unit that asks later has it undone, and so read from rows again."""
        if self._batch.connection is None:
            self.asks = True
            raise AsksSqlite

    @property
    def connection(self) -> sqlite3.Connection:
        """As this unit sees it; in a savepoint of its own from here on. Raises AsksSqlite before the transaction begins."""
        self.will_ask()
        connection = self._batch.connection
        assert connection is not None
        if not self._saved:
            self._batch.write()
            connection.execute("SAVEPOINT unit")
            self._saved = True
        if self._inserts or self._updates:
            self._note()
            self._batch.put()
        return connection

    def insert(self, sql: str, row: Row) -> None:
        """A row to be written with others, before anything is read and before all `update`s.

        `sql` holds one `VALUES (?,…)`, which is repeated for so many rows. It must be a row that fits: else no unit of the
        batch is committed.
        """
        self._inserts.append((sql, row))

    def update(self, sql: str, row: Row) -> None:
        """As `insert`: a change of one row by its key, the last of `row`, after all inserts and in the order of the units."""
        self._updates.append((sql, row))

    def on_rollback(self, step: Callable[[], None]) -> None:
        """Run if this unit raises, the last one first; must not fail.

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

    def undo(self, error: BaseException | None = None) -> None:
        """Nothing of the unit stays, whatever it raised. Raises BatchLost where the store is what broke."""
        connection = self._batch.connection
        if connection is not None:
            if not connection.in_transaction or _store_is_broken(error):
                raise BatchLost(str(error)) from error
            if self._saved:
                self._batch.inserts.clear()  # those before the savepoint are written
                self._batch.updates.clear()
                connection.execute("ROLLBACK TO unit")
                connection.execute("RELEASE unit")
        for step in reversed(self._on_rollback):
            step()

    def _note(self) -> None:
        for waiting, rows in ((self._batch.inserts, self._inserts), (self._batch.updates, self._updates)):
            for sql, row in rows:
                waiting.setdefault(sql, []).append(row)
            rows.clear()


def _write(connection: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> None:
    for at in range(0, len(rows), TOGETHER_MAX):
        some = rows[at : at + TOGETHER_MAX]
        connection.execute(_of_rows(sql, len(some)), tuple(chain.from_iterable(some)))


@cache
def _of_rows(sql: str, count: int) -> str:
    """A statement of one row as one of `count`."""
    head, _, rest = sql.partition("VALUES (")
    row, _, tail = rest.partition(")")
    return f"{head}VALUES {', '.join([f'({row})'] * count)}{tail}"


def _store_is_broken(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN_STORE
