"""What an agent or a session has left under each cap, and what it did last: the lower half of both `show` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline_client.commands.events import print_events
from haltline_client.commands.page import Column, Styled
from haltline_client.commands.words import amount, bare_amount, clean, when

if TYPE_CHECKING:
    from datetime import datetime

    from haltline_client.cap_results import Allowance, Balance
    from haltline_client.commands.desk import Desk
    from haltline_client.commands.page import Page
    from haltline_client.results import Event, Quantity

__all__ = ["print_actions", "print_allowances", "print_balances"]

COLUMNS = (
    Column("CAP"),
    Column("SPENT", right=True),
    Column("HELD", right=True),
    Column("IN DOUBT", right=True),
    Column("LEFT", right=True),
    Column("OF", right=True),
    Column("RESETS", spare=True),
)


def print_balances(desk: Desk, balances: list[Balance]) -> None:
    """The balances as a table, after an empty line."""
    desk.page.line("")
    rows = [
        (
            clean(one["cap"]),
            bare_amount(one["settled"]),
            bare_amount(one["held"]),
            bare_amount(one["in_doubt"]),
            Styled(bare_amount(one["remaining"]), "bad" if _none_left(one["remaining"]) else "plain"),
            amount(one["limit"]),
            when(one["resets_at"], desk.now, seconds=False) if one.get("resets_at") else "",
        )
        for one in balances
    ]
    desk.page.table(COLUMNS, rows, empty="No caps apply.")


def print_allowances(page: Page, allowances: list[Allowance], now: datetime) -> None:
    """A line for what was added to each cap; nothing where nothing was."""
    for one in allowances:
        left = f"{amount(one['amount'])} added to the {clean(one['cap'])} cap of {clean(one['target'])}"
        until = when(one["until"], now, seconds=False)
        page.fact("allowance", f"{left}, {bare_amount(one['left'])} left, until {until} (by {clean(one['by'])})")


def print_actions(desk: Desk, actions: list[Event]) -> None:
    """The last actions, after an empty line."""
    desk.page.line("")
    desk.page.title("Last actions")
    print_events(desk, actions, empty="None yet.")


def _none_left(value: Quantity) -> bool:
    left = value["micros"] if isinstance(value, dict) else value
    return isinstance(left, int) and left <= 0
