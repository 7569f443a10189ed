"""`haltline audit verify`: prove the records of a data folder, of a running broker, a stopped one or a copy.

Reads the database itself, read-only: a broker that was tampered with is not asked about itself.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haltline.audit_check import Fault, LogWalk, damage
from haltline.books import Books, check_books
from haltline.checkpoints import PUBLIC_KEY_FILE, Checkpoint, checkpoint_faults, read_checkpoints
from haltline.commands.progress import Progress
from haltline.errors import StoreError
from haltline.store.database import connect_reader
from haltline_client.commands.desk import examples
from haltline_client.commands.page import Styled, stdout_page
from haltline_client.commands.words import clean, count, many
from haltline_client.discover import data_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from haltline_client.commands.page import Page

__all__ = ["verify"]

EXIT_FAILURE = 1
FAULTS_MAX = 100
"""More than these are not listed: the first one says where to look."""
PROGRESS_EVERY_EVENTS = 50_000


@click.command(
    "verify",
    epilog=examples(
        "haltline audit verify",
        "haltline audit verify --data /backup/haltline-data --checkpoints /elsewhere/checkpoints.jsonl",
    ),
)
@click.option("--data", metavar="FOLDER", help="The data folder, or a copy. [default: as for the other commands]")
@click.option("--checkpoints", metavar="FILE", help="Signed checkpoints kept elsewhere. [default: those in the folder]")
@click.option(
    "--public-key", metavar="KEY", help="Their public key, or a file with it. [default: checkpoint.pub there]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def verify(data: str | None, checkpoints: str | None, public_key: str | None, as_json: bool) -> int:
    """Prove that the log was only added to, that it is what was signed, and that the money follows from it."""
    folder = data_folder(os.environ, data=data, folder=Path()).path
    with closing(_open(folder / "haltline.db")) as connection:
        result = _verify(connection, folder, checkpoints, public_key)
    if as_json:
        click.echo(json.dumps(result, separators=(",", ":")))
    else:
        _print(stdout_page(), folder, result)
    return 0 if result["ok"] else EXIT_FAILURE


def _open(database: Path) -> sqlite3.Connection:
    if not database.is_file():
        raise StoreError(f"{database} is not there; name the broker's data folder, or a copy of it, with --data")
    try:
        connection = connect_reader(database)
    except StoreError:
        # A copy in a place where nothing can be written has no shared memory to find its way in a write-ahead log.
        if os.access(database.parent, os.W_OK) or database.with_name(f"{database.name}-wal").exists():
            raise
        connection = connect_reader(database, immutable=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # a damaged file holds anything
    return connection


def _verify(
    connection: sqlite3.Connection, folder: Path, checkpoints: str | None, public_key: str | None
) -> dict[str, Any]:
    progress = Progress("events")
    walk, books = LogWalk(connection, progress), Books()
    file, key = Path(checkpoints) if checkpoints else folder / "checkpoints.jsonl", _key(public_key, folder)
    read = list(read_checkpoints(file)) if checkpoints or file.exists() else []
    signed = [one for one in read if isinstance(one, Checkpoint)]
    if read and key is None:
        raise StoreError("there are checkpoints but no public key to check them with: name it with --public-key")
    faults = [one for one in read if isinstance(one, Fault)]
    faults += islice(_faults(connection, walk, books, signed, key or ""), FAULTS_MAX)
    progress.done()
    return {
        "ok": not faults,
        "events": walk.seq,
        "head": walk.head.hex(),
        "first_bad_seq": min((fault.seq for fault in faults if fault.seq is not None), default=None),
        "faults": [{"seq": fault.seq, "what": fault.what} for fault in faults[:FAULTS_MAX]],
        "calls": books.calls,
        "micros": {"rows": books.rows, "events": books.events},
        "checkpoints": {
            "file": str(file),
            "outside": checkpoints is not None,
            "count": len(signed),
            "last_seq": max((one.seq for one in signed), default=None),
            "public_key": key,
        },
    }


def _faults(
    connection: sqlite3.Connection, walk: LogWalk, books: Books, signed: Sequence[Checkpoint], key: str
) -> Iterator[Fault]:
    try:
        yield from damage(connection)
        yield from walk.faults()
        if signed:
            yield from checkpoint_faults(connection, signed, key)
        yield from check_books(connection, books, walk.progress, chain=False)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes what it could not read
        yield Fault(walk.seq + 1, f"the file cannot be read after event {walk.seq}: {error}")


def _key(given: str | None, folder: Path) -> str | None:
    if given is not None and not Path(given).is_file():
        return given.strip()
    file = Path(given) if given is not None else folder / PUBLIC_KEY_FILE
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the public key in {file} cannot be read: {error}") from error


def _print(page: Page, folder: Path, result: dict[str, Any]) -> None:
    signed, micros = result["checkpoints"], result["micros"]["rows"]
    for fault in result["faults"]:
        page.wrapped(clean(fault["what"]), head="✗ ", style="bad")
    if len(result["faults"]) >= FAULTS_MAX:
        page.line(f"  … and perhaps more: the first {FAULTS_MAX} are shown.")
    page.fact("log", f"{many(result['events'], 'event')}, head {result['head'][:16]}…")
    page.fact(
        "money",
        f"{many(result['calls'], 'admitted call')}: {count(micros['settled'])} settled, {count(micros['held'])} held,"
        f" {count(micros['in_doubt'])} in doubt (millionths)",
    )
    if signed["count"]:
        page.fact("signed", f"{many(signed['count'], 'checkpoint')}, the last of event {signed['last_seq']}")
        page.fact("public key", signed["public_key"])
    else:
        page.fact("signed", "no checkpoint yet, so a cut tail cannot be seen")
    if result["ok"]:
        page.line(Styled("✓ The log was only added to, and the money follows from it.", "good"))
    elif result["first_bad_seq"] is not None:
        page.line(Styled(f"✗ The first event that does not hold: {result['first_bad_seq']}", "bad bold"))
    if signed["count"] and not signed["outside"]:
        text = (
            f"These checkpoints lie in {clean(folder)}: who can write there and read its signing key can rewrite both. "
            "A copy kept elsewhere proves the log up to its own last line: --checkpoints FILE"
        )
        page.wrapped(text, head="")
