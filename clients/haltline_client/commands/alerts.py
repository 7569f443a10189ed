"""`haltline alerts list`: what was sent to people, and whether it reached them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Styled, state
from haltline_client.commands.words import clean, when

if TYPE_CHECKING:
    from haltline_client.results import Alert, Delivery

__all__ = ["list_alerts"]


@click.command("list", epilog=examples("haltline alerts list", "haltline alerts list --limit 5 --json"))
@click.option("--limit", type=click.IntRange(1, 1000), metavar="NUMBER", help="At most so many, the newest.")
@operator_options
def list_alerts(desk: Desk, limit: int | None) -> None:
    """The newest alerts and how far each delivery is."""
    result = desk.ask(lambda control: control.list_alerts(limit=limit))
    desk.show(result, lambda: _print_alerts(desk, result["alerts"]))


def _print_alerts(desk: Desk, alerts: list[Alert]) -> None:
    if not alerts:
        desk.page.line(Styled("No alerts.", "dim"))
    for alert in alerts:
        who = clean(alert.get("agent"))
        session = f"/{clean(alert['session'])}" if alert.get("session") else ""
        head = Styled(f"{clean(alert['kind'])}  {who}{session}", "bold")
        desk.page.line(f"{when(alert['at'], desk.now)}  ", head, Styled(f"  {clean(alert['id'])}", "dim"))
        desk.page.wrapped(clean(alert["summary"]), head="    ")
        for delivery in alert["deliveries"]:
            _print_delivery(desk, delivery)


def _print_delivery(desk: Desk, delivery: Delivery) -> None:
    attempts = delivery["attempts"]
    tried = "" if attempts <= 1 else f" after {attempts} attempts"
    error = f": {clean(delivery['last_error'])}" if delivery.get("last_error") else ""
    desk.page.line(f"    {clean(delivery['channel'])} ", state(delivery["state"]), f"{tried}{error}")
