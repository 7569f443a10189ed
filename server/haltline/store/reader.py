"""Queries beside the hot path: a few read-only aiosqlite connections, each query bounded in time.

A query whose caller went away ends too, so that it holds neither a place nor the write-ahead log. How many rows a query
may return is for its LIMIT to say.
"""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import aiosqlite
import anyio
import anyio.to_thread

from haltline.errors import StoreError
from haltline.store.database import connect_reader, uri

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

__all__ = ["QUERY_TIMEOUT_S", "Reader"]

T = TypeVar("T")
_CONNECTIONS = 2
QUERY_TIMEOUT_S = 10.0
_STEPS_BETWEEN_LOOKS = 5_000
"""SQLite's virtual machine instructions between two looks at whether the query is still wanted (well under 1 ms)."""


class _Connection:
    """One connection with its thread, and the one way to stop what runs in it from outside."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self.db = db
        self._unwanted = False

    async def prepare(self) -> None:
        self.db.row_factory = sqlite3.Row
        await self.db.execute("PRAGMA query_only = ON")
        await self.db.set_progress_handler(lambda: int(self._unwanted), _STEPS_BETWEEN_LOOKS)

    async def stop(self) -> None:
        """End the query that runs; returns when the thread is free again."""
        self._unwanted = True
        await self.db.rollback()  # waits its turn in the thread behind the query
        self._unwanted = False


class Reader:
    """`rows` returns `sqlite3.Row`s. A reader never writes and never checkpoints."""

    def __init__(self, path: Path, timeout_s: float = QUERY_TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []
        self._places = anyio.Semaphore(_CONNECTIONS)
        self._long = anyio.CapacityLimiter(1)

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of one query. Raises TimeoutError after `timeout_s` seconds, waiting for a connection included."""
        with anyio.fail_after(self._timeout_s):
            async with self._connection() as connection:
                try:
                    return list(await connection.db.execute_fetchall(sql, parameters))
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await connection.stop()
                    raise

    async def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        found = await self.rows(sql, parameters)
        return found[0] if found else None

    async def in_thread(self, work: Callable[[sqlite3.Connection, Callable[[], bool]], T]) -> T:
        """Run `work` on a read-only connection of its own, in a thread, however long it takes; one at a time.

        `work` gets the connection and asks the other argument, between pieces, whether it is still wanted.
        """
        wanted = True

        def whole() -> T:
            connection = connect_reader(self._path)
            try:
                return work(connection, lambda: wanted)
            finally:
                connection.close()

        try:
            return await anyio.to_thread.run_sync(whole, abandon_on_cancel=True, limiter=self._long)
        finally:
            wanted = False

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().db.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        async with self._places:
            connection = self._idle.pop() if self._idle else await self._open()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def _open(self) -> _Connection:
        if not self._path.is_file():
            raise StoreError(f"{self._path} is not there")
        with anyio.CancelScope(shield=True):  # a cancelled opening would leave its thread behind
            connection = _Connection(await aiosqlite.connect(uri(self._path, "ro"), uri=True, isolation_level=None))
            try:
                await connection.prepare()
            except BaseException:
                await connection.db.close()
                raise
        return connection
