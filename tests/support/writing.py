"""What tests of the writer share: one in a folder of its own, units that put a key, and one that keeps it busy."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from haltline.store.database import connect_writer
from haltline.store.unit import Tx
from haltline.store.writer import Writer

__all__ = ["PUT", "Gate", "a_writer", "keys", "put"]

PUT = "INSERT INTO meta (key, value) VALUES (?,?)"


@asynccontextmanager
async def a_writer(
    folder: Path, connect: Callable[[Path], sqlite3.Connection] = connect_writer
) -> AsyncIterator[Writer]:
    writer = Writer(lambda: connect(folder / "haltline.db"), lambda: 7)
    writer.start()
    try:
        yield writer
    finally:
        await writer.aclose()


def put(key: str, value: str = "x") -> Callable[[Tx], None]:
    def unit(tx: Tx) -> None:
        tx.execute("INSERT INTO meta (key, value) VALUES (?,?)", (key, value))

    return unit


def keys(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "haltline.db")
    try:
        return [row[0] for row in connection.execute("SELECT key FROM meta ORDER BY rowid")]
    finally:
        connection.close()


class Gate:
    """A unit that keeps the writer busy until it is opened, so that others wait behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, tx: Tx) -> None:
        self.entered.set()
        assert self.open.wait(60)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 60)
