"""`haltline tools`: what agents may call and at which price, and price entries for what an upstream offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Column, Styled
from haltline_client.commands.status import upstream_words
from haltline_client.commands.words import clean

if TYPE_CHECKING:
    from haltline_client.results import ImportedTools, Tool, ToolList

__all__ = ["import_tools", "list_tools"]

COLUMNS = (
    Column("TOOL"),
    Column("PRICE", right=True),
    Column("DEFINITION"),
    Column("PRICED BY", flex=True, spare=1),
    Column("UPSTREAM"),
    Column("DESCRIPTION", flex=True, spare=1),
)


@click.command("list", epilog=examples("haltline tools list", "haltline tools list --upstream payments"))
@click.option("--upstream", metavar="NAME", help="Only this upstream's.")
@operator_options
def list_tools(desk: Desk, upstream: str | None) -> None:
    """The tools on offer, their prices, and the state of their upstreams."""
    result = desk.ask(lambda control: control.list_tools(upstream=upstream))
    desk.show(result, lambda: _print_tools(desk, result))


@click.command("import", epilog=examples("haltline tools import payments"))
@click.argument("upstream")
@operator_options
def import_tools(desk: Desk, upstream: str) -> None:
    """Write price entries for what an upstream offers, at price 0 and for your review. Needs a person's credential."""
    result = desk.ask(lambda control: control.import_tools(upstream))
    desk.show(result, lambda: _print_imported(desk, result))


def _print_tools(desk: Desk, result: ToolList) -> None:
    rows = [
        (
            clean(one["tool"]),
            _price(one),
            _defined(one),
            clean(one.get("matched_by")),
            clean(one["upstream"]),
            clean(one.get("description")),
        )
        for one in result["tools"]
    ]
    desk.page.table(COLUMNS, rows, empty="No tools: no upstream offers any.")
    shared = sorted({clean(one["upstream"]) for one in result["tools"] if one.get("shared_credential")})
    desk.page.line("")
    for upstream in result["upstreams"]:
        desk.page.line(*upstream_words(upstream))
    if shared:
        desk.page.wrapped(f"One credential for all agents: {', '.join(shared)}", head="")
    if any(one.get("state") == "quarantined" for one in result["tools"]):
        desk.page.wrapped("A quarantined tool is not served. What changed: haltline tools pin --diff", head="")
    for one in result["tools"]:
        if one.get("problem"):
            text = (
                f"{clean(one['tool'])}: {clean(one['problem'])}, so every call is refused. Mend its entry in the policy"
            )
            desk.page.wrapped(text, head="")
    if any(one["price"] is None for one in result["tools"]):
        desk.page.wrapped(
            "A tool without a price is refused. Write entries for review: haltline tools import UPSTREAM", head=""
        )


def _price(one: Tool) -> Styled:
    return Styled("unpriced", "warn") if one["price"] is None else Styled(clean(one["price"]), "plain")


def _defined(one: Tool) -> Styled:
    return (
        Styled("QUARANTINED", "bad") if one.get("state") == "quarantined" else Styled(clean(one.get("state")), "plain")
    )


def _print_imported(desk: Desk, result: ImportedTools) -> None:
    tools = result["tools"]
    if not tools:
        desk.page.line("Nothing to import: every tool of it has a price entry.")
        return
    desk.page.line(f"{len(tools)} entries written to {clean(result['written'])}, all at price 0:")
    for tool in tools:
        desk.page.line(f"  {clean(tool)}")
    desk.page.wrapped(
        "They count within a second, for every agent whose scope has these tools: set the prices now.", head=""
    )
