"""The page: what does not fit goes on below itself, and nothing is wider than the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from haltline.commands import audit, doctor
from haltline.setup.doctor.finding import Finding
from haltline_client.commands.page import Column, Page, Styled
from haltline_client.commands.words import many

LONG = (
    "a sentence that goes on and on until it has no room any more on one line of a terminal, and then on below itself"
)


def page(width: int | None = 100, *, colour: bool = False) -> tuple[Page, io.StringIO]:
    out = io.StringIO()
    return Page(out, width=width, colour=colour), out


def test_the_last_cell_of_a_row_goes_on_below_itself_whole() -> None:
    columns = (Column("at", right=True), Column("step"), Column("shown", wraps=True))
    rows = [("0.1 s", Styled("one", "good"), LONG), ("12.0 s", "two", "short")]
    on, out = page(60)
    on.table(columns, rows, empty="")
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith(" 0.1 s  one   a sentence")
    assert lines[2].startswith(" " * 14)
    assert " ".join(part.strip() for part in lines[1:-1]).split("one   ")[1] == LONG
    assert lines[-1] == "12.0 s  two   short"
    piped, out = page(None)
    piped.table(columns, rows, empty="")
    assert len(out.getvalue().splitlines()) == 3, "nothing is broken where nobody reads it on a terminal"


def test_wrapped_text_keeps_its_colour_on_every_line() -> None:
    on, out = page(60, colour=True)
    on.wrapped(LONG, head="warn  ", style="bad")
    assert all(line.count("\x1b[31m") == 2 for line in out.getvalue().splitlines())


def test_findings_of_the_doctor_and_of_a_verified_log_fit_a_terminal() -> None:
    on, out = page()
    doctor._print(on, Finding("storage", "warn", LONG, LONG))
    result: dict[str, Any] = {
        "events": 1,
        "calls": 1,
        "head": "ab" * 32,
        "ok": False,
        "first_bad_seq": 1,
        "faults": [{"seq": 1, "what": LONG}],
        "micros": {"rows": {"settled": 1, "held": 0, "in_doubt": 0}},
        "checkpoints": {"count": 1, "last_seq": 1, "public_key": "ab" * 32, "outside": False},
    }
    audit._print(on, Path("/srv/haltline/data"), result)
    assert max(map(len, out.getvalue().splitlines())) <= 100
    for said in ("1 event,", "1 admitted call:", "1 checkpoint,"):
        assert said in out.getvalue()


def test_a_number_of_things_is_one_or_many() -> None:
    assert [many(number, "delivery", "deliveries") for number in (0, 1, 2_000)] == [
        "0 deliveries",
        "1 delivery",
        "2 000 deliveries",
    ]
    assert many(1, "time") == "1 time"
