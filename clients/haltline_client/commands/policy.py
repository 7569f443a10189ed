"""`haltline policy explain|reload`: what the policy in force says to a call, and taking up a new one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haltline_client.commands.balances import print_allowances
from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Column, Styled, state
from haltline_client.commands.words import amount, clean

if TYPE_CHECKING:
    from haltline_client.results import Explanation, ReloadedPolicy

__all__ = ["explain", "reload"]

VERDICTS = {"allow": Styled("ALLOW", "good"), "deny": Styled("DENY", "warn"), "halt": Styled("HALT", "bad bold")}
COLUMNS = (Column("SAID"), Column("RULE"), Column("WHERE", spare=1), Column("WHY", flex=True))


def _arguments(context: click.Context, option: click.Parameter, value: str | None) -> dict[str, Any] | None:
    if value is None or context.resilient_parsing:
        return None
    try:
        if value == "-":
            value = sys.stdin.read()
        elif value.startswith("@"):
            value = Path(value[1:]).read_text(encoding="utf-8")
        parsed = json.loads(value)
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}", context, option) from error
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", context, option) from error
    if not isinstance(parsed, dict):
        raise click.BadParameter('a JSON object is wanted, such as \'{"amount": "5"}\'', context, option)
    return parsed


@click.command(
    "explain",
    epilog=examples(
        "haltline policy explain research-bot search__web",
        'haltline policy explain billing payments__refund --arguments \'{"amount": "1.20"}\'',
        "jq .arguments call.json | haltline policy explain billing payments__refund --arguments -",
    ),
)
@click.argument("agent")
@click.argument("tool")
@click.option(
    "--arguments", callback=_arguments, metavar="JSON", help="The call's arguments; - reads stdin, @FILE a file."
)
@click.option("--session", metavar="SESSION", help="As a call of this session.")
@operator_options
def explain(desk: Desk, agent: str, tool: str, arguments: dict[str, Any] | None, session: str | None) -> None:
    """What would be decided about this call now, and which rule says so. Nothing is called or held."""
    result = desk.ask(lambda control: control.explain_decision(agent, tool, arguments=arguments, session=session))
    desk.show(result, lambda: _print_explanation(desk, result, f"{agent} → {tool}"))


@click.command("reload", epilog=examples("haltline policy reload"))
@operator_options
def reload(desk: Desk) -> None:
    """Read the policy folder again now. Needs a person's own credential."""
    result = desk.ask(lambda control: control.reload_policy())
    desk.show(result, lambda: _print_reloaded(desk, result))


def _print_explanation(desk: Desk, result: Explanation, call: str) -> None:
    page = desk.page
    price = f"  {amount(result['amount'])}" if result.get("amount") else ""
    verdict = VERDICTS.get(result["decision"], Styled(clean(result["decision"]), "bold"))
    page.line(verdict, f"  {clean(call)}{price}")
    for reason in result["reasons"]:
        again = " (may be retried)" if reason.get("retryable") else ""
        page.wrapped(f"[{clean(reason['code'])}] {clean(reason['text'])}{again}")
    page.line("")
    rows = [
        (state(one["spoke"]), clean(one["rule"]), clean(one["where"]), clean(one["text"])) for one in result["rules"]
    ]
    page.table(COLUMNS, rows, empty="No rule was asked.")
    print_allowances(page, result.get("allowances", []), desk.now)


def _print_reloaded(desk: Desk, result: ReloadedPolicy) -> None:
    version = clean(result["version"])
    desk.page.line(f"Policy {version} is in force now." if result["changed"] else f"No change: policy {version} stays.")
