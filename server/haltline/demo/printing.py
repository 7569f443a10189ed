"""How the demonstration tells what happens: scenes, lines, and for each promise a tick or a cross, as it happens.

Owns the layout and what held; decides nothing. What agents and upstreams said is cleaned before it reaches a terminal.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from haltline_client.commands.page import Cell, Column, Page, Styled
from haltline_client.commands.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Check", "Teller"]

INDENT = "   "
CHECK_INDENT = "     "
HANG = "    "
LABEL_WIDTH = 14
NARROWEST = 40


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should hold."""

    scene: str
    text: str
    held: bool


class Teller:
    """The storyteller: prints at once, remembers what held and the facts for `--json`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._page = Page.of(self._out)
        self._begun = time.monotonic()
        self._scene = ""
        self._scenes = 0
        self.checks: list[Check] = []
        self.facts: dict[str, Any] = {}

    @property
    def held(self) -> bool:
        return bool(self.checks) and all(check.held for check in self.checks)

    @property
    def took_s(self) -> float:
        return round(time.monotonic() - self._begun, 2)

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._scenes += 1
        self._scene = title
        stamp = Styled(f"{self.took_s:5.1f} s", "dim")
        self._line()
        self._line(Styled(f"{self._scenes}  {title}", "bold"), "  ", stamp)

    def say(self, text: str, style: str = "plain") -> None:
        """One line, or as many as it takes on this terminal."""
        for line in self._wrapped(clean(text), INDENT):
            self._line(INDENT, Styled(line, style))

    def quote(self, text: str) -> None:
        """What somebody else printed, line by line as it was."""
        for line in text.rstrip().splitlines():
            safe = clean(line.rstrip()) if line.strip() else ""
            leading = " " * (len(safe) - len(safe.lstrip()))
            self._dim(safe, f"{leading}{HANG}")

    def command(self, *words: str) -> None:
        """A command as it is typed; never wrapped, so that it can be copied."""
        self._line(INDENT, Styled(f"$ haltline {shlex.join(words)}", "bold"))

    def labelled(self, label: str, lines: Sequence[str]) -> None:
        """A label before its lines, aligned with other labels."""
        for line in lines:
            self._dim(f"{label:<{LABEL_WIDTH}}{clean(line)}", " " * LABEL_WIDTH)
            label = ""

    def check(self, held: bool, text: str) -> None:
        """A promise that held, or did not."""
        self.checks.append(Check(self._scene, text, held))
        mark = Styled("✓ ", "good") if held else Styled("✗ ", "bad bold")
        first, *more = self._wrapped(clean(text), CHECK_INDENT)
        self._line(INDENT, mark, first if held else Styled(first, "bad"))
        for line in more:
            self._line(CHECK_INDENT, line if held else Styled(line, "bad"))

    def fact(self, name: str, value: object) -> None:
        """Something for `--json`; prints nothing."""
        self.facts[name] = value

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        self._page.table(columns, rows, empty="nothing", indent=INDENT)
        self._out.flush()

    def heading(self, text: str) -> None:
        self._line(Styled(text, "bold"))

    def end(self) -> None:
        """The last line: what held and how long it took."""
        failed = [check for check in self.checks if not check.held]
        self._line()
        if self.held:
            self._line(
                Styled("✓ ", "good"),
                Styled(f"All {len(self.checks)} things held", "bold"),
                f", in {self.took_s:.1f} s.",
            )
            return
        self._line(
            Styled("✗ ", "bad bold"), Styled(f"{len(failed)} of {len(self.checks)} things did not hold:", "bold")
        )
        for check in failed:
            self._line(INDENT, f"{clean(check.scene)}: {clean(check.text)}")

    def _dim(self, text: str, hang: str) -> None:
        first, *more = self._wrapped(text, INDENT + hang)
        self._line(INDENT, Styled(first, "dim"))
        for rest in more:
            self._line(INDENT, Styled(f"{hang}{rest}", "dim"))

    def _line(self, *parts: Cell) -> None:
        self._page.line(*parts)
        self._out.flush()

    def _wrapped(self, text: str, indent: str) -> list[str]:
        if self._page.width is None:
            return [text]
        room = max(self._page.width - len(indent), NARROWEST)
        return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
