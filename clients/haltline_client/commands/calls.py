"""`haltline calls`: calls whose outcome nobody knows, and a person's word on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options, reason_option
from haltline_client.commands.page import Column
from haltline_client.commands.words import age, amount, clean, duration

if TYPE_CHECKING:
    from haltline_client.results import InDoubt, Resolved

__all__ = ["in_doubt", "settle", "void"]

COLUMNS = (
    Column("CALL"),
    Column("AMOUNT", right=True),
    Column("AGE", right=True),
    Column("BY ITSELF"),
    Column("AGENT", spare=2),
    Column("SESSION", spare=3),
    Column("TOOL", flex=True, spare=1),
    Column("WHY", flex=True),
)


@click.command("in-doubt", epilog=examples("haltline calls in-doubt"))
@operator_options
def in_doubt(desk: Desk) -> None:
    """Calls that were sent and whose outcome is unknown. They count against their caps."""
    result = desk.ask(lambda control: control.list_in_doubt())
    desk.show(result, lambda: _print_calls(desk, result["calls"]))


@click.command(
    "settle",
    epilog=examples(
        'haltline calls settle call_9fX --reason "charged, see invoice 812"',
        'haltline calls settle call_9fX --amount 0.30 --reason "partial"',
    ),
)
@click.argument("call")
@click.option("--amount", metavar="AMOUNT", help="What it cost, such as 0.30. [default: its full hold]")
@reason_option
@operator_options
def settle(desk: Desk, call: str, amount: str | None, reason: str) -> None:
    """It happened: charge it. Needs a person's own credential."""
    result = desk.ask(lambda control: control.resolve_in_doubt(call, "settle", amount=amount, reason=reason))
    desk.show(result, lambda: _print_resolved(desk, result))


@click.command("void", epilog=examples('haltline calls void call_9fX --reason "upstream has no such charge"'))
@click.argument("call")
@reason_option
@operator_options
def void(desk: Desk, call: str, reason: str) -> None:
    """It did not happen: give its hold back. Needs a person's own credential."""
    result = desk.ask(lambda control: control.resolve_in_doubt(call, "void", reason=reason))
    desk.show(result, lambda: _print_resolved(desk, result))


def _print_calls(desk: Desk, calls: list[InDoubt]) -> None:
    rows = [
        (
            clean(one["call"]),
            amount(one["amount"]),
            duration(one["age_s"]),
            _by_itself(one, desk),
            clean(one["agent"]),
            clean(one["session"]),
            clean(one["tool"]),
            clean(one["why"]),
        )
        for one in calls
    ]
    desk.page.table(COLUMNS, rows, empty="No calls in doubt.")
    if calls:
        desk.page.line("")
        desk.page.line('It happened:      haltline calls settle CALL --reason "..."')
        desk.page.line('It did not:       haltline calls void CALL --reason "..."')


def _by_itself(one: InDoubt, desk: Desk) -> str:
    """`charged in 23 h`, or `voided in 23 h` where the operator declared that the tool only reads."""
    if not one.get("charges_at"):
        return ""
    return f"{'voided' if one.get('then') == 'void' else 'charged'} in {age(one['charges_at'], desk.now)}"


def _print_resolved(desk: Desk, result: Resolved) -> None:
    if result["outcome"] == "void":
        desk.page.line(f"Voided {clean(result['call'])}: nothing is charged.")
    else:
        over = f", {amount(result['overage'])} over its hold" if result.get("overage") else ""
        desk.page.line(f"Settled {clean(result['call'])}: {amount(result['amount'])} charged{over}.")
    for target in result.get("halted", []):
        desk.page.line(
            f'Halted {clean(target)} for it; to let it go on: haltline resume {clean(target)} --reason "..."'
        )
