"""What a command says on a terminal while long work goes on; nothing where standard error is none."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from haltline_client.commands.words import count

__all__ = ["Progress", "waiting"]

_EVERY_S = 0.5
_CLEAR = "\r\x1b[K"


class Progress:
    """Told how far a log was read, says it: of how many, where that is known. `done` takes the line away."""

    def __init__(self, what: str, total: int = 0) -> None:
        self._what = what
        self._total = total
        self._next_s = time.monotonic() + _EVERY_S
        self._shown = False

    def __call__(self, reached: int) -> None:
        if sys.stderr.isatty() and time.monotonic() >= self._next_s:
            of = f" of {count(self._total)}, {min(100, 100 * reached // self._total)} %" if self._total else ""
            click.echo(f"{_CLEAR}{count(reached)} {self._what}{of}", nl=False, err=True)
            self._next_s, self._shown = time.monotonic() + _EVERY_S, True

    def done(self) -> None:
        if self._shown:
            click.echo(_CLEAR, nl=False, err=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says for how long somebody else has been working."""
    if not sys.stderr.isatty():
        yield
        return
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(1.0):
            click.echo(f"{_CLEAR}{what}: {time.monotonic() - began:.0f} s", nl=False, err=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        click.echo(_CLEAR, nl=False, err=True)
