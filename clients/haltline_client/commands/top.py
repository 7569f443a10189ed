"""`haltline top`: the status once a second: full screen in a terminal, a line each time when piped.

Owns the refresh and the keys. Keeps going while the broker is away and says so.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.words import amount, clean, count, moment
from haltline_client.errors import BrokerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haltline_client.status_results import Status

__all__ = ["top"]


@click.command("top", epilog=examples("haltline top", "haltline top --count 60 --json > minute.jsonl"))
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, metavar="SECONDS", help="[default: 1]")
@click.option("--count", "times", type=click.IntRange(1), metavar="NUMBER", help="End after so many.")
@operator_options
def top(desk: Desk, interval: float, times: int | None) -> None:
    """Live status. q or Ctrl-C ends it."""
    if desk.as_json or desk.page.width is None:
        _repeat_lines(desk, interval, times)
        return
    # Rich costs 100 ms to import; only this screen needs it.
    from haltline_client.commands.screen import Screen  # noqa: PLC0415 - see above

    with _keys() as quit_pressed, Screen(colour=desk.page.colour) as screen:
        for _ in _ticks(times):
            result, trouble = _look(desk)
            screen.draw(result, trouble)
            if quit_pressed(interval):
                return


def _repeat_lines(desk: Desk, interval: float, times: int | None) -> None:
    for number in _ticks(times):
        if number:
            time.sleep(interval)
        # A broker that was never there ends the command; one that goes away meanwhile is waited for.
        result, trouble = (desk.ask(lambda control: control.status()), "") if number == 0 else _look(desk)
        if result is None:
            click.echo(trouble, err=True)
        elif desk.as_json:
            click.echo(json.dumps(result, separators=(",", ":")))
        else:
            click.echo(summary(result))


def _ticks(times: int | None) -> Iterator[int]:
    number = 0
    while times is None or number < times:
        yield number
        number += 1


def _look(desk: Desk) -> tuple[Status | None, str]:
    """The status, or None and why there is none. A dead credential ends the command; an absent broker does not."""
    try:
        return desk.ask(lambda control: control.status()), ""
    except BrokerUnreachable as error:
        return None, error.message


def summary(result: Status) -> str:
    """The status on one line, for logs."""
    at = moment(result["now"])
    clock = f"{at.astimezone():%H:%M:%S}" if at else clean(result["now"])
    ready = "ready" if result["ready"] else f"NOT READY ({clean(result.get('not_ready_because'))})"
    agents, doubt, alerts = result["agents"], result["in_doubt"], result["alerts"]
    facts = (
        f"agents {len(agents)}",
        f"sessions {count(sum(one['sessions_open'] for one in agents))}",
        f"running {count(sum(one['running'] for one in agents))}",
        f"halts {len(result['halts'])}",
        f"in doubt {count(doubt['count'])}" + (f" ({amount(doubt['amount'])})" if doubt["count"] else ""),
        f"alerts waiting {count(alerts['backlog'])}",
        f"events {count(result['store']['events'])}",
    )
    return "  ".join((clock, ready, *facts))


class _Quit:
    """Waits for the next tick, or for a q."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            if self._descriptor is None:
                time.sleep(left)
            elif select.select([self._descriptor], [], [], left)[0]:
                pressed = os.read(self._descriptor, 64)
                if b"q" in pressed.lower():
                    return True
                if not pressed:
                    self._descriptor = None
        return False


@contextmanager
def _keys() -> Iterator[_Quit]:
    """Single keys from the terminal without Enter; without one, or without termios, only Ctrl-C ends."""
    if os.name == "nt" or not sys.stdin.isatty():
        yield _Quit(None)
        return
    import termios  # noqa: PLC0415 - not on Windows
    import tty  # noqa: PLC0415 - not on Windows

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Quit(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
