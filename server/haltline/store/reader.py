"""Queries beside the hot path: a few read-only aiosqlite connections, each query bounded in time and rows."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite
import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

__all__ = ["Reader"]

_CONNECTIONS = 2
QUERY_TIMEOUT_S = 10.0


class Reader:
    """`rows` returns `sqlite3.Row`s. A reader never writes and never checkpoints."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[aiosqlite.Connection] = []
        self._places = anyio.Semaphore(_CONNECTIONS)

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of one query. Raises TimeoutError after `QUERY_TIMEOUT_S` seconds."""
        async with self._connection() as connection:
            try:
                with anyio.fail_after(QUERY_TIMEOUT_S):
                    return list(await connection.execute_fetchall(sql, parameters))
            except TimeoutError:
                await connection.interrupt()
                raise

    async def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        found = await self.rows(sql, parameters)
        return found[0] if found else None

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._places:
            connection = self._idle.pop() if self._idle else await self._open()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def _open(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)
        connection.row_factory = sqlite3.Row
        await connection.execute("PRAGMA query_only = ON")
        return connection
