"""Whatever row or amount of the money somebody changes, adds or takes away: `check_books` names it (P7, P8)."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.big_book import write_book
from haltline import books
from haltline.books import Books, check_books

pytestmark = pytest.mark.promise("P7", "P8")
CALLS = 400
INTEGERS = {
    "holds": ("amount_micros", "charged_micros", "charge_on_error", "read_only", "admitted_us", "ended_us", "doubt_us", "charges_at_us"),
    "allowances": ("amount", "until_us", "granted_us"),
    "sessions": ("opened_us", "expires_us"),
}  # fmt: skip
NAMES = {
    "holds": ("id", "agent_id", "session_id", "tool", "upstream"),
    "sessions": ("id", "agent_id", "parent_id"),
    "agents": ("id", "tier"),
    "allowances": ("subject_id", "by"),
}
JSON = {"sessions": ("caps", "tools"), "agents": ("caps", "scopes")}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_book(tmp_path_factory.mktemp("book"), CALLS)


@pytest.fixture
def at(book: Path) -> Iterator[sqlite3.Connection]:
    """The book, whatever is changed in it undone afterwards."""
    with closing(sqlite3.connect(book, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for trigger in ("events_keep_update", "events_keep_delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        yield connection


def said(connection: sqlite3.Connection) -> list[str]:
    """As `check_books` in a transaction of its own, which here is the one that tampers."""
    return [fault.what for fault in check_books(Outer(connection), Books())]  # type: ignore[arg-type]


class Outer:
    """The connection, with the snapshots of the walk inside a transaction that is rolled back later."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: object = ()) -> sqlite3.Cursor:
        return self._connection.execute("SELECT 1" if sql == "BEGIN" else sql, parameters)  # type: ignore[arg-type]

    def rollback(self) -> None: ...


def changes(connection: sqlite3.Connection, dice: random.Random) -> Iterator[tuple[str, str, list[str]]]:
    """(what, SQL, names of which one must be said) for every column, and rows added and taken away, each at random rows."""
    for table, columns in INTEGERS.items():
        for column in columns:
            for row, name in rows(connection, dice, table, f"{column} IS NOT NULL"):
                to = (
                    f"1 - {column}"
                    if column in {"charge_on_error", "read_only"}
                    else f"{column} + {dice.choice((-1, 1, 3_600_000_000))}"
                )
                yield f"{table}.{column}", f"UPDATE {table} SET {column} = {to} WHERE rowid = {row}", name
    for table, columns in (NAMES | JSON).items():
        for column in NAMES.get(table, ()) + JSON.get(table, ()) if table in NAMES else columns:
            value = "'{\"task_micros\": 9}'" if column in {"caps", "tools", "scopes"} else f"'other_{dice.random()}'"
            for row, name in rows(connection, dice, table, "1"):
                yield f"{table}.{column}", f"UPDATE {table} SET {column} = {value} WHERE rowid = {row}", name
    for table in ("holds", "sessions", "agents", "allowances"):
        for row, name in rows(connection, dice, table, "1"):
            yield f"{table} taken away", f"DELETE FROM {table} WHERE rowid = {row}", name
    for row, name in rows(connection, dice, "holds", "1"):
        yield (
            "holds.state",
            f"UPDATE holds SET state = CASE state WHEN 'settled' THEN 'voided' ELSE 'settled' END WHERE rowid = {row}",
            name,
        )
    for row, _ in rows(connection, dice, "events", "1"):
        yield "events taken away", f"DELETE FROM events WHERE rowid = {row}", [f"event {row} "]
        yield (
            "events.body",
            f"UPDATE events SET body = CAST(replace(CAST(body AS TEXT), '_micros\":', '_micros\":1') || ' ' AS BLOB) WHERE rowid = {row}",
            [f"event {row} "],
        )
        yield "events.call_id", f"UPDATE events SET call_id = 'other' WHERE rowid = {row}", [f"event {row}:"]
    yield (
        "holds added",
        "INSERT INTO holds SELECT 'call_new', agent_id, session_id, tool, upstream, 1, NULL, 'held', 1, 0, admitted_us, NULL, NULL, NULL, NULL FROM holds LIMIT 1",
        ["call call_new "],
    )
    yield (
        "allowances added",
        "INSERT INTO allowances SELECT 999, scope, subject_id, cap, 5, until_us, by, granted_us + 1 FROM allowances LIMIT 1",
        ["allowance 999"],
    )
    yield (
        "sessions added",
        "INSERT INTO sessions SELECT 'ses_new', agent_id, task, tools, caps, state, opened_by, opened_us, expires_us, last_used_us, ended_us, NULL, NULL, NULL FROM sessions LIMIT 1",
        ["session ses_new "],
    )
    yield (
        "agents added",
        "INSERT INTO agents SELECT 'agt_new', 'new', tier, owner, scopes, hours, caps, state, created_us FROM agents LIMIT 1",
        ["agent agt_new "],
    )


def rows(
    connection: sqlite3.Connection, dice: random.Random, table: str, where: str, most: int = 2
) -> list[tuple[int, list[str]]]:
    """Some rows, each with what it may be called by."""
    name = {"allowances": "subject_id", "events": "call_id", "agents": "id || ' ' || handle"}.get(table, "id")
    found = connection.execute(f"SELECT rowid, {name} FROM {table} WHERE {where}").fetchall()
    assert found, (table, where)
    return [(row, str(called).split()) for row, called in dice.sample(found, min(most, len(found)))]


def test_a_book_nobody_touched_holds_with_every_ending_in_it(book: Path) -> None:
    with closing(sqlite3.connect(book)) as connection:
        read = Books()
        assert list(check_books(connection, read)) == []
        states = dict(connection.execute("SELECT state, count(*) FROM holds GROUP BY state"))
        kinds = {kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM events")}
        sums = dict(
            connection.execute("SELECT state, sum(coalesce(charged_micros, amount_micros)) FROM holds GROUP BY state")
        )
    assert set(states) == {"held", "settled", "voided", "in_doubt"}
    assert {"call.failed", "call.late_answer", "call.resolved", "session.resumed", "agent.resumed"} <= kinds
    assert read.calls == sum(states.values()) == read.found["holds"]
    assert read.rows == read.events == {state: sums[state] for state in ("settled", "held", "in_doubt")}
    assert min(read.found.values()) > 0


def test_every_change_of_a_row_is_found_and_the_row_named(at: sqlite3.Connection) -> None:
    unseen, unnamed, count = [], [], 0
    for what, sql, names in list(changes(at, random.Random(7))):
        at.execute("BEGIN")
        try:
            assert at.execute(sql).rowcount == 1, sql
            faults = said(at)
        finally:
            at.execute("ROLLBACK")
        count += 1
        unseen += [what] if not faults else []
        unnamed += [(what, names, faults[:3])] if not any(name in fault for name in names for fault in faults) else []
    assert unseen == []
    assert unnamed == []
    assert count > 60
    assert said(at) == []


def test_with_little_room_for_open_calls_the_same_is_found(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "OPEN_MAX", 3)
    with closing(sqlite3.connect(book)) as connection:
        small, read = Books(), Books()
        assert list(check_books(connection, small)) == []
        monkeypatch.undo()
        assert list(check_books(connection, read)) == []
    assert small == read
