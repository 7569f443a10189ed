"""The full screen of `haltline top`: the same words as `haltline status`, redrawn in place by Rich."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from haltline_client.commands.page import Page, Styled
from haltline_client.commands.status import print_status
from haltline_client.commands.words import moment

if TYPE_CHECKING:
    from haltline_client.status_results import Status

__all__ = ["Screen"]


class Screen:
    """The alternate screen of the terminal while it is open."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._last: Status | None = None
        self._live = Live(console=Console(no_color=not colour), screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, result: Status | None, trouble: str) -> None:
        """Show a status; where there is none, the last one under a line that says why."""
        self._last = result or self._last
        out = io.StringIO()
        size = shutil.get_terminal_size()
        page = Page(out, width=size.columns, colour=self._colour)
        if trouble:
            page.line(Styled("NO ANSWER", "bad bold"), "  what follows is old" if self._last else "")
            page.wrapped(trouble.replace("\n", " "))
            page.line("")
        now = moment(self._last["now"]) if self._last else None
        if self._last and now:
            print_status(page, self._last, now)
        body = out.getvalue().splitlines()[: size.lines - 2]
        body += [""] * (size.lines - 2 - len(body))
        text = Text.from_ansi("\n".join([*body, "", "q ends"]), no_wrap=True, overflow="crop")
        self._live.update(text, refresh=True)
