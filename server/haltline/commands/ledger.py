"""`haltline ledger check`: prove the balances. The running broker compares what it remembers; without one, the records alone.

Asks the broker where there is one; else reads the database of the data folder, as `audit verify` does.
"""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haltline.audit_check import Fault
from haltline.books import Books, check_books
from haltline.commands.progress import Progress, waiting
from haltline.errors import StoreError
from haltline.store.database import connect_reader
from haltline_client.commands.desk import Desk, examples, note, operator_options
from haltline_client.commands.page import Styled, stdout_page
from haltline_client.commands.words import clean, count
from haltline_client.discover import data_folder
from haltline_client.errors import BrokerUnreachable, SettingError

if TYPE_CHECKING:
    from haltline_client.commands.page import Page
    from haltline_client.ledger_results import LedgerChecked

__all__ = ["check"]

EXIT_FAILURE = 1
PATIENCE_S = 600.0
FAULTS_MAX = 100


def _ask(desk: Desk) -> None:
    desk.be_patient(PATIENCE_S)
    with waiting("the broker reads its books"):
        result = desk.ask(lambda control: control.check_ledger())
    desk.show(result, lambda: _print(desk.page, result))
    _leave(result)


_online = operator_options(_ask)


@click.command(
    "check",
    epilog=examples(
        "haltline ledger check",
        "haltline ledger check --json",
        "haltline ledger check --data /backup/haltline-data",
    ),
)
@functools.wraps(_online, assigned=())  # its options, and words of its own
def check(**options: Any) -> None:
    """Recompute every balance from the audit events and from the ledger, and name each difference.

    A running broker also compares what its decisions remember. Where none runs, the records in the data folder are
    compared. Exit code 1 when anything differs.
    """
    try:
        _online(**options)
    except (BrokerUnreachable, SettingError) as error:
        if options["url"] or os.environ.get("HALTLINE_URL") or getattr(error, "sent", False):
            raise
        database = data_folder(os.environ, data=options["data"], folder=Path()).path / "haltline.db"
        if not database.is_file():
            raise
        note(f"No running broker was asked, so only the records were compared: {error}")
        result = _offline(database)
        if options["as_json"]:
            click.echo(json.dumps(result, separators=(",", ":")))
        else:
            _print(stdout_page(), result)
        _leave(result)


def _leave(result: LedgerChecked) -> None:
    if not result["ok"]:
        sys.exit(EXIT_FAILURE)


def _offline(database: Path) -> LedgerChecked:
    books = Books()
    try:
        with closing(connect_reader(database)) as connection:
            [last] = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
            progress = Progress("events", last)
            found = check_books(connection, books, progress)
            faults = list(islice(found, FAULTS_MAX))
            for _ in found:  # to the end: the sums are of all calls
                pass
            progress.done()
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{database} cannot be read: {error}; haltline audit verify says where") from error
    return {
        "ok": not faults,
        "calls": books.calls,
        "agents": None,
        "sessions": None,
        "rows": books.rows,  # type: ignore[typeddict-item]  # the three sums
        "events": books.events,  # type: ignore[typeddict-item]  # the three sums
        "differences": [],
        "faults": [_fault(one) for one in faults],
    }


def _fault(one: Fault) -> Any:
    return {"seq": one.seq, "what": one.what}


def _print(page: Page, result: LedgerChecked) -> None:
    for what in (*result["differences"], *result["faults"]):
        page.line(Styled(f"✗ {clean(what['what'])}", "bad"))
    page.fact("calls", count(result["calls"]))
    for name, sums in (("rows", result["rows"]), ("events", result["events"])):
        page.fact(
            name,
            f"{count(sums['settled'])} settled, {count(sums['held'])} held, {count(sums['in_doubt'])} in doubt (millionths)",
        )
    if result["agents"] is not None:
        page.fact(
            "in memory",
            f"{_many(result['agents'], 'agent')}, {_many(result['sessions'] or 0, 'session')}: who called since the start",
        )
    if result["ok"]:
        page.line(
            Styled(
                "✓ Every hold, session, agent and allowance is what the events say, and every balance their sum.",
                "good",
            )
        )
    else:
        page.line(
            Styled("✗ The books do not agree: haltline audit verify says whether the log itself was changed.", "bad")
        )


def _many(number: int, what: str) -> str:
    return f"{count(number)} {what}{'' if number == 1 else 's'}"
