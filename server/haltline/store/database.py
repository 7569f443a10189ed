"""Opening the SQLite file: pragmas, numbered migrations with a backup first, read-only connections.

Exactly one connection of one process ever writes or checkpoints (the writer's); every other is read-only. That is what
keeps a SQLite in the range of the WAL-reset bug (sqlite.org/wal.html) safe.
"""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

from haltline.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["APPLICATION_ID", "connect_reader", "connect_writer", "migrations"]

APPLICATION_ID = 0x484C_544C
"""`HLTL`: tells our files from anybody else's."""
_BUSY_TIMEOUT_MS = 2_000
_CACHE_KIB = 16_384
_STATEMENTS_CACHED = 256


def migrations() -> dict[int, str]:
    """Schema number → SQL that leads to it from the one before."""
    folder = resources.files("haltline.store") / "migrations"
    found = {
        int(entry.name.split("_", 1)[0]): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }
    return dict(sorted(found.items()))


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection: migrated, WAL, `synchronous=FULL`, foreign keys on.

    Raises StoreError for a file that is not ours, is newer than this program, or fails its integrity check.
    """
    fresh = not path.exists()
    try:
        connection = _connect(path, "rwc")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection, path, fresh=fresh)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    if fresh:
        path.chmod(0o600)
    if connection.execute("PRAGMA synchronous").fetchone()[0] != 2:
        raise StoreError(f"{path}: synchronous=FULL did not hold, so nothing could be promised; refusing to start")
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection; it never checkpoints. Raises StoreError when the file is not there or not ours."""
    try:
        connection = _connect(path, "ro")
        connection.execute("PRAGMA query_only = ON")
        _check_ours(connection, path)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{path}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS_CACHED,
    )
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    return connection


def _check_ours(connection: sqlite3.Connection, path: Path) -> int:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is a SQLite file of another program; move it away or use another --data folder")
    newest = max(migrations())
    if version > newest:
        raise StoreError(
            f"{path} has schema {version}, this haltline knows up to {newest}: install the newer haltline again, "
            f"or restore the backup it made ({path.name}.before-*)"
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
    empty = fresh or not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    version = 0 if empty else _check_ours(connection, path)
    steps = {number: sql for number, sql in migrations().items() if number > version}
    if not steps:
        return
    if not empty:
        backup = path.with_name(f"{path.name}.before-{max(steps)}")
        with sqlite3.connect(backup) as target:
            connection.backup(target)
        target.close()
        backup.chmod(0o600)
    for number, sql in steps.items():
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )
