"""Queries beside the hot path: bounded in time, ended when nobody wants them, never writing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from haltline.errors import StoreError
from haltline.store.database import connect_writer
from haltline.store.reader import Reader

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    path = tmp_path / "odd ?#% name.db"
    connection = connect_writer(path)
    connection.execute("INSERT INTO meta (key, value) VALUES ('a', '1'), ('b', '2')")
    reader = Reader(path, timeout_s=0.3)
    yield reader
    await reader.aclose()
    connection.close()


async def test_rows_carry_their_names(reader: Reader) -> None:
    rows = await reader.rows("SELECT key, value FROM meta WHERE value > ? ORDER BY key", ("1",))
    assert [(row["key"], row["value"]) for row in rows] == [("b", "2")]
    assert (await reader.row("SELECT value FROM meta WHERE key = 'a'"))["value"] == "1"
    assert await reader.row("SELECT value FROM meta WHERE key = 'none'") is None


async def test_a_query_that_takes_too_long_ends_and_its_place_is_free_again(reader: Reader) -> None:
    for _ in range(4):  # more than there are connections
        with anyio.fail_after(30), pytest.raises(TimeoutError):
            await reader.rows(ENDLESS)
    assert len(await reader.rows("SELECT key FROM meta")) == 2


async def test_a_query_whose_caller_went_away_ends(reader: Reader) -> None:
    with anyio.fail_after(30):
        for _ in range(4):
            with anyio.move_on_after(0.02) as scope:
                await reader.rows(ENDLESS)
            assert scope.cancelled_caught
        assert len(await reader.rows("SELECT key FROM meta")) == 2


async def test_waiting_for_a_connection_counts_as_well(reader: Reader) -> None:
    ended: list[str] = []

    async def ask(name: str) -> None:
        with pytest.raises(TimeoutError):
            await reader.rows(ENDLESS)
        ended.append(name)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(ask, name)
    assert len(ended) == 4


async def test_a_reader_cannot_write(reader: Reader) -> None:
    for sql in ("INSERT INTO meta (key, value) VALUES ('c', '3')", "DELETE FROM meta", "PRAGMA user_version = 9"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await reader.rows(sql)


async def test_a_mistake_in_a_query_is_an_error_and_costs_nothing(reader: Reader) -> None:
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError):
            await reader.rows("SELECT nothing FROM nowhere")
    assert len(await reader.rows("SELECT key FROM meta")) == 2


async def test_a_reader_sees_what_was_committed_meanwhile(tmp_path: Path) -> None:
    connection = connect_writer(tmp_path / "haltline.db")
    reader = Reader(tmp_path / "haltline.db")
    for number in range(3):
        connection.execute("INSERT INTO meta (key, value) VALUES (?, 'x')", (str(number),))
        assert len(await reader.rows("SELECT key FROM meta")) == number + 1
    await reader.aclose()
    connection.close()


async def test_a_missing_file_is_an_error_that_leaves_no_thread(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "none.db")
    for _ in range(3):
        with pytest.raises(StoreError, match="is not there"):
            await reader.rows("SELECT 1")
    await reader.aclose()
