"""The page a command prints on: tables, labelled lines and colour, as wide as the terminal and plain when piped.

Owns layout only. Small enough to start fast, which is why it is not a library.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from typing import TYPE_CHECKING, NamedTuple, TextIO

from haltline_client.commands.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Cell", "Column", "Page", "Styled", "state"]

STYLES = {"good": "32", "warn": "33", "bad": "31", "bad bold": "1;31", "bold": "1", "dim": "2", "plain": ""}
STATES = {
    "active": "good", "open": "good", "ready": "good", "allow": "good", "delivered": "good", "sent": "good",
    "halted": "bad", "halt": "bad", "deny": "warn", "would_deny": "warn", "failed": "bad", "in_doubt": "warn",
    "starting": "warn", "pending": "warn", "retrying": "warn", "down": "bad", "given_up": "bad",
    "revoked": "dim", "expired": "dim", "silent": "dim",
}  # fmt: skip
GAP = "  "
SHORTEST = 12
LABEL_WIDTH = 11


class Styled(NamedTuple):
    """Text with a named style."""

    text: str
    style: str


Cell = str | Styled


class Column(NamedTuple):
    """A table column. `flex`: may be cut to fit; `spare`: may be left out where there is no room, the higher the sooner;
    `wraps`, of the last one: goes on below itself where there is no room.
    """

    title: str
    right: bool = False
    flex: bool = False
    spare: int = 0
    wraps: bool = False


def state(word: object) -> Styled:
    """A state word in its colour."""
    text = clean(word)
    return Styled(text, STATES.get(text, "plain"))


class Page:
    """Where a command's human output goes. `width` is None when it is not a terminal: then nothing is cut."""

    def __init__(self, out: TextIO, *, width: int | None, colour: bool) -> None:
        self._out = out
        self.width = width
        self.colour = colour

    @classmethod
    def of(cls, out: TextIO, environ: Mapping[str, str] = os.environ) -> Page:
        """The page for a stream: colour on a terminal only, and not with NO_COLOR or a dumb one."""
        if not out.isatty():
            return cls(out, width=None, colour=False)
        colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return cls(out, width=shutil.get_terminal_size().columns, colour=colour)

    def line(self, *parts: Cell) -> None:
        """One line; the parts follow each other as they are."""
        print("".join(self._paint(part) for part in parts), file=self._out)

    def title(self, text: str) -> None:
        self.line(Styled(text, "bold"))

    def fact(self, label: str, *parts: Cell) -> None:
        """`label   value`, wrapped under itself when it is longer than the terminal."""
        head = f"{label:<{LABEL_WIDTH}}{GAP}"
        length = len(head) + sum(_width(_text(part)) for part in parts)
        if self.width is None or length <= self.width:
            self.line(Styled(head, "dim"), *parts)
            return
        self.wrapped("".join(_text(part) for part in parts), head=head)

    def wrapped(self, text: str, *, head: str = "  ", style: str = "plain", head_style: str = "") -> None:
        """Text that breaks between words and continues under its first word."""
        room = None if self.width is None else max(self.width - len(head), SHORTEST)
        for number, line in enumerate([text] if room is None else _broken(text, room)):
            begins = " " * len(head) if number else head
            self.line(Styled(begins, head_style or style), Styled(line, style))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, empty: str, indent: str = "") -> None:
        """An aligned table under its titles, or the sentence `empty`."""
        cells = [list(row) for row in rows]
        if not cells:
            self.line(indent, Styled(empty, "dim"))
            return
        kept, widths = _fit(columns, cells, None if self.width is None else self.width - len(indent))
        self._row([Styled(columns[i].title, "dim") for i in kept], [columns[i] for i in kept], widths, indent)
        for row in cells:
            for part in _rows([row[i] for i in kept], [columns[i] for i in kept], widths):
                self._row(part, [columns[i] for i in kept], widths, indent)

    def _row(self, row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], indent: str) -> None:
        parts: list[Cell] = [indent]
        for number, (cell, column, width) in enumerate(zip(row, columns, widths, strict=True)):
            text = _cut(_text(cell), width)
            padding = " " * (width - _width(text))
            last = number == len(widths) - 1
            painted: Cell = Styled(text, cell.style) if isinstance(cell, Styled) else text
            parts += [padding, painted] if column.right else [painted, "" if last else padding]
            parts.append("" if last else GAP)
        while parts and not _text(parts[-1]).strip():
            parts.pop()
        self.line(*parts)

    def _paint(self, part: Cell) -> str:
        if isinstance(part, str):
            return part
        codes = STYLES[part.style]
        return f"\x1b[{codes}m{part.text}\x1b[0m" if self.colour and codes else part.text


def stdout_page() -> Page:
    """The page of standard output as it is now."""
    return Page.of(sys.stdout)


def _broken(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]


def _rows(row: list[Cell], columns: Sequence[Column], widths: Sequence[int]) -> Iterator[list[Cell]]:
    """The row, and what of its last cell goes on below it."""
    if not columns[-1].wraps or not row:
        yield row
        return
    *others, last = row
    for number, line in enumerate(_broken(_text(last), max(widths[-1], 1))):
        yield [*(others if number == 0 else [""] * len(others)), line]


def _fit(columns: Sequence[Column], cells: list[list[Cell]], room: int | None) -> tuple[list[int], list[int]]:
    """Which columns stay and how wide each is: first the flexible ones shrink, then the spare ones go, of equals the last first."""
    natural = [max(len(column.title), *(_width(_text(row[i])) for row in cells)) for i, column in enumerate(columns)]
    kept = list(range(len(columns)))
    while room is not None:
        least = sum(min(natural[i], SHORTEST) if _gives(columns[i]) else natural[i] for i in kept)
        spare = [i for i in kept if columns[i].spare]
        if least + len(GAP) * (len(kept) - 1) <= room or not spare:
            break
        kept.remove(max(spare, key=lambda i: (columns[i].spare, i)))
    widths = {i: natural[i] for i in kept}
    if room is not None:
        over = sum(widths.values()) + len(GAP) * (len(kept) - 1) - room
        _shrink(widths, [i for i in kept if _gives(columns[i])], over)
    return kept, [widths[i] for i in kept]


def _gives(column: Column) -> bool:
    return column.flex or column.wraps


def _shrink(widths: dict[int, int], flexible: list[int], over: int) -> None:
    """Take `over` columns of text away from the widest flexible columns."""
    for _ in range(max(over, 0)):
        widest = max(flexible, key=lambda i: widths[i], default=None)
        if widest is None or widths[widest] <= SHORTEST:
            return
        widths[widest] -= 1


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _columns(character)
        if used > width - 1:
            break
        kept += character
    return kept + "…"
