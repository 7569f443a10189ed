"""`haltline ledger check` on the book of years: how long it takes, in how much memory, and that nothing changed in it escapes.

The book is written by `bench/big_book.py`; 1,000,000 calls in the full form.
"""

from __future__ import annotations

import json
import random
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.big_book import write_book
from support.figures import Figures

MEMORY_MAX_MIB = 128
TAMPERED = {
    "an amount held": "UPDATE holds SET amount_micros = amount_micros + 1 WHERE rowid = {row}",
    "an amount charged": "UPDATE holds SET charged_micros = charged_micros + 1 WHERE rowid = {row}",
    "a hold taken away": "DELETE FROM holds WHERE rowid = {row}",
    "a call moved to another session": "UPDATE holds SET session_id = (SELECT id FROM sessions WHERE rowid = 2) WHERE rowid = {row}",
}


def checked(data: Path) -> tuple[dict[str, Any], float]:
    """What the command says without a broker, and the processor time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ran = subprocess.run(
        [sys.executable, "-m", "haltline", "ledger", "check", "--json", "--data", str(data)],
        capture_output=True, text=True, check=False, cwd=data, timeout=3_600,
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


@pytest.mark.promise("P7", "P8")
def test_a_big_book_is_proved_in_bounded_memory_and_what_is_changed_in_it_is_named(tmp_path: Path, long: bool) -> None:
    calls, began = (1_000_000 if long else 5_000), time.monotonic()
    path = write_book(tmp_path, calls)
    figures = Figures(f"haltline ledger check of {calls:,} calls ({path.stat().st_size / 1e6:,.0f} MB)")
    figures.note("written in", f"{time.monotonic() - began:,.0f} s")
    found, cpu_s = checked(tmp_path)
    memory_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    figures.equal("calls proved", found["calls"], calls)
    figures.zero("faults where nobody changed anything", [one["what"] for one in found["faults"]])
    figures.equal("sums of the rows", found["rows"], found["events"])
    figures.note("processor time", f"{cpu_s:,.1f} s, {1e6 * cpu_s / calls:,.0f} µs a call")
    figures.must("memory, MiB", round(memory_mib), memory_mib < MEMORY_MAX_MIB, f"< {MEMORY_MAX_MIB}")
    dice = random.Random(calls)
    for what, sql in TAMPERED.items():
        row = dice.randrange(1, calls * 9 // 10)
        with closing(sqlite3.connect(path)) as connection:
            call = changed(connection, sql, row)
        found, _ = checked(tmp_path)
        named = [one["what"] for one in found["faults"] if call in one["what"]]
        figures.must(f"{what}: named", len(named), bool(named), "1 or more")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM holds WHERE id = ?", (call,))
            connection.execute("INSERT INTO holds SELECT * FROM kept")
            connection.execute("DROP TABLE kept")
            connection.commit()
    figures.show()


def changed(connection: sqlite3.Connection, sql: str, row: int) -> str:
    """Change one settled hold from this row on; which call it is of. The row as it was is in `kept`."""
    where = "WHERE rowid >= ? AND state = 'settled' ORDER BY rowid LIMIT 1"
    rowid, call = connection.execute(f"SELECT rowid, id FROM holds {where}", (row,)).fetchone()
    connection.execute(f"CREATE TABLE kept AS SELECT * FROM holds WHERE rowid = {rowid}")
    connection.execute(sql.format(row=rowid))
    connection.commit()
    return str(call)
