"""Opening the SQLite file: pragmas, numbered migrations with a backup first, read-only connections.

Exactly one connection of one process ever writes or checkpoints (the writer's); every other is read-only. That is what
keeps a SQLite in the range of the WAL-reset bug (sqlite.org/wal.html) safe.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote

from haltline.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["APPLICATION_ID", "connect_reader", "connect_writer", "migrations", "uri"]

APPLICATION_ID = 0x484C_544C
"""`HLTL`: tells our files from anybody else's."""
_BUSY_TIMEOUT_MS = 2_000
_CACHE_KIB = 8_192
_STATEMENTS_CACHED = 512
"""Of the writer most are those of so many rows at once (see `unit`)."""
_WAL_KEPT_BYTES = 8 * 1024 * 1024
"""What the write-ahead log is cut back to once it was checkpointed."""


def migrations() -> dict[int, str]:
    """Schema number → SQL that leads to it from the one before."""
    folder = resources.files("haltline.store") / "migrations"
    found = {
        int(entry.name.split("_", 1)[0]): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }
    return dict(sorted(found.items()))


def uri(path: Path, mode: str) -> str:
    """SQLite's URI for a file, whatever characters its path has; `mode` is `rwc`, `ro`, or `ro&immutable=1`."""
    return f"file:{quote(str(path))}?mode={mode}"


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection: migrated, WAL, `synchronous=FULL`, foreign keys on.

    Raises StoreError for a file that is not ours, is newer than this program, or cannot be written.
    """
    fresh = _create_private(path)
    try:
        connection = _connect(path, "rw")
        try:
            version = _version(connection, path, fresh=fresh)  # first: nothing of a foreign file is touched
            _set_up(connection)
            _migrate(connection, path, version)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    return connection


def connect_reader(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """A read-only connection; it never checkpoints. Raises StoreError when the file is not there or not ours.

    `immutable`: for a copy that nobody writes, in a place where nothing can be written.
    """
    try:
        connection = _connect(path, "ro&immutable=1" if immutable else "ro")
        try:
            connection.execute("PRAGMA query_only = ON")
            _check_ours(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return connection


def _create_private(path: Path) -> bool:
    """Make the file readable for its owner alone before SQLite opens it: its WAL inherits its rights. False: it is there."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be created: {error.strerror}") from error
    return True


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri(path, mode),
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS_CACHED,
    )
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    return connection


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA temp_store = MEMORY")  # what undoes a statement of many rows is not worth a file
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    if connection.execute("PRAGMA synchronous").fetchone()[0] != 2:
        raise StoreError("synchronous=FULL did not hold, so nothing could be promised; refusing to start")


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


def _version(connection: sqlite3.Connection, path: Path, *, fresh: bool) -> int:
    if fresh or not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    return _check_ours(connection, path)


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    steps = {number: sql for number, sql in migrations().items() if number > version}
    if steps and version:
        backup = path.with_name(f"{path.name}.before-{max(steps)}")
        _create_private(backup)
        with closing(sqlite3.connect(backup)) as target:
            connection.backup(target)
    for number, sql in steps.items():
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )
