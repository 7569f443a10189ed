"""What an agent or a session has left under each cap, and what it did last: the lower half of both `show` commands, and
the caps of the status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline_client.commands.events import print_events
from haltline_client.commands.page import Column, Styled
from haltline_client.commands.words import amount, bare_amount, clean, resets

if TYPE_CHECKING:
    from datetime import datetime

    from haltline_client.cap_results import Allowance, Balance
    from haltline_client.commands.desk import Desk
    from haltline_client.commands.page import Cell, Page
    from haltline_client.results import Event, Quantity

__all__ = ["COLUMNS", "balance_cells", "print_actions", "print_allowances", "print_balances"]

COLUMNS = (
    Column("CAP"),
    Column("SPENT", right=True),
    Column("HELD", right=True),
    Column("IN DOUBT", right=True),
    Column("LEFT", right=True),
    Column("OF", right=True),
    Column("RESETS", right=True, spare=1),
)


def print_balances(desk: Desk, balances: list[Balance], session: str | None = None) -> None:
    """The balances as a table, after an empty line. `session`: whose they are, so that those of one above it are named."""
    desk.page.line("")
    rows = [balance_cells(one, desk.now, session) for one in balances]
    desk.page.table(COLUMNS, rows, empty="No caps apply.")


def balance_cells(one: Balance, now: datetime, session: str | None = None) -> tuple[Cell, ...]:
    """One cap under COLUMNS; what it does not count is left empty."""
    whose = one.get("session")
    numbers = [bare_amount(one[name]) if one[name] is not None else "" for name in ("settled", "held", "in_doubt")]
    doubted = Styled(numbers[2], "warn" if _some(one["in_doubt"]) else "plain")
    left = one["remaining"]
    return (
        clean(one["cap"]) if whose in {None, session} else f"{clean(one['cap'])} of {clean(whose)}",
        *numbers[:2],
        doubted,
        "" if left is None else Styled(bare_amount(left), "bad" if _none_left(left) else "plain"),
        amount(one["limit"]),
        resets(one.get("resets_at"), now),
    )


def print_allowances(page: Page, allowances: list[Allowance], now: datetime) -> None:
    """A line for what was added to each cap; nothing where nothing was."""
    for one in allowances:
        added = f"{amount(one['amount'])} added to the {clean(one['cap'])} cap of {clean(one['target'])}"
        until = resets(one["until"], now)
        page.fact("allowance", f"{added}, {bare_amount(one['left'])} of it left, until {until}, by {clean(one['by'])}")


def print_actions(desk: Desk, actions: list[Event]) -> None:
    """The last actions, after an empty line."""
    desk.page.line("")
    desk.page.title("Last actions")
    print_events(desk, actions, empty="None yet.")


def _none_left(value: Quantity) -> bool:
    left = value["micros"] if isinstance(value, dict) else value
    return isinstance(left, int) and left <= 0


def _some(value: Quantity) -> bool:
    return bool(value["micros"] if isinstance(value, dict) else value)
