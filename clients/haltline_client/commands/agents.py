"""`haltline agents`: register agents, look at them, give a revoked one a new start."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from haltline_client.commands.balances import print_actions, print_allowances, print_balances
from haltline_client.commands.caps import cap_option
from haltline_client.commands.desk import Desk, examples, operator_options, print_token, reason_option
from haltline_client.commands.page import Column, Page, state
from haltline_client.commands.sessions import print_sessions
from haltline_client.commands.stops import cause, since
from haltline_client.commands.words import amount, bare_amount, caps, clean, count

if TYPE_CHECKING:
    from haltline_client.results import AddedAgent, Agent, AgentDetail, Caps, Hours, Reissued

__all__ = ["add", "list_agents", "reissue", "show"]

HOURS = re.compile(r"(?P<days>\S+)\s+(?P<start>\d{1,2}:\d\d)-(?P<end>\d{1,2}:\d\d)\s+(?P<zone>\S+)")
TOKEN_USE = "Give it to the agent as HALTLINE_TOKEN; see: haltline client-config --help"  # noqa: S105 - a sentence
COLUMNS = (
    Column("AGENT"),
    Column("TIER", spare=1),
    Column("STATE"),
    Column("SESSIONS", right=True),
    Column("TODAY", right=True),
    Column("HELD", right=True),
    Column("IN DOUBT", right=True),
    Column("DAY CAP", right=True),
    Column("OWNER", flex=True, spare=1),
)


def _hours(context: click.Context, option: click.Parameter, value: str | None) -> Hours | None:
    found = HOURS.fullmatch(value.strip()) if value else None
    if value and not found:
        raise click.BadParameter('write it as "mon-fri 08:00-18:00 Europe/Berlin"', context, option)
    if not found:
        return None
    return {"days": found["days"], "from": found["start"], "to": found["end"], "time_zone": found["zone"]}


@click.command(
    "add",
    epilog=examples(
        "haltline agents add research-bot --tier experimental",
        "haltline agents add billing --tier production --owner anna --cap day=100 --credential",
        'haltline agents add nightly --tier staging --hours "mon-fri 08:00-18:00 Europe/Berlin"',
    ),
)
@click.argument("handle")
@click.option("--tier", required=True, metavar="TIER", help="experimental, staging, production or one of yours.")
@click.option("--owner", metavar="NAME", help="Who answers for it.")
@click.option("--scope", "scopes", multiple=True, metavar="NAME", help="A named scope; may be repeated.")
@click.option("--hours", callback=_hours, metavar="TEXT", help='When it may work: "mon-fri 08:00-18:00 Europe/Berlin".')
@cap_option
@click.option("--credential", is_flag=True, help="Also make a permanent credential, for hosts with a fixed config.")
@operator_options
def add(
    desk: Desk,
    handle: str,
    tier: str,
    owner: str | None,
    scopes: tuple[str, ...],
    hours: Hours | None,
    caps: Caps | None,
    credential: bool,
) -> None:
    """Register an agent. HANDLE is its name: lower-case letters, digits and hyphens."""
    result = desk.ask(
        lambda control: control.add_agent(
            handle, tier, owner=owner, scopes=scopes or None, hours=hours, caps=caps, credential=credential
        )
    )
    desk.show(result, lambda: _print_added(desk, result))


@click.command("list", epilog=examples("haltline agents list", "haltline agents list --json"))
@operator_options
def list_agents(desk: Desk) -> None:
    """All agents: state, tier and what they spent today."""
    result = desk.ask(lambda control: control.list_agents())
    desk.show(result, lambda: _print_agents(desk, result["agents"]))


@click.command("show", epilog=examples("haltline agents show research-bot"))
@click.argument("agent")
@operator_options
def show(desk: Desk, agent: str) -> None:
    """One agent: caps, balances, open sessions, last actions."""
    result = desk.ask(lambda control: control.show_agent(agent))
    desk.show(result, lambda: _print_detail(desk, result))


@click.command("reissue", epilog=examples('haltline agents reissue research-bot --credential --reason "leak closed"'))
@click.argument("agent")
@click.option("--credential", is_flag=True, help="Also make a new permanent credential.")
@reason_option
@operator_options
def reissue(desk: Desk, agent: str, credential: bool, reason: str) -> None:
    """Let a revoked agent work again. What it has spent stays spent. Needs a person's own credential."""
    result = desk.ask(lambda control: control.reissue_agent(agent, reason=reason, credential=credential))
    desk.show(result, lambda: _print_reissued(desk, result))


def _print_added(desk: Desk, result: AddedAgent) -> None:
    owner = f", owner {clean(result['owner'])}" if result.get("owner") else ""
    desk.page.line(f"Added agent {clean(result['agent'])}, tier {clean(result['tier'])}{owner}.")
    token = result.get("token")
    if token:
        print_token(desk.page, token, TOKEN_USE)
    else:
        desk.page.line(f'Open a session for it: haltline sessions open {clean(result["agent"])} --task "..."')


def _print_reissued(desk: Desk, result: Reissued) -> None:
    desk.page.line(f"Agent {clean(result['agent'])} may work again.")
    token = result.get("token")
    if token:
        print_token(desk.page, token, TOKEN_USE)


def _print_agents(desk: Desk, agents: list[Agent]) -> None:
    rows = [
        (
            clean(agent["agent"]),
            clean(agent["tier"]),
            state(agent["state"]),
            count(agent["sessions_open"]),
            bare_amount(agent["spent_day"]),
            bare_amount(agent.get("held")),
            bare_amount(agent.get("in_doubt")),
            amount(agent["cap_day"]),
            clean(agent.get("owner")),
        )
        for agent in agents
    ]
    desk.page.table(COLUMNS, rows, empty="No agents yet. Add one: haltline agents add NAME --tier experimental")


def _print_detail(desk: Desk, agent: AgentDetail) -> None:
    page = desk.page
    page.title(clean(agent["agent"]))
    page.fact("state", state(agent["state"]))
    halt = agent.get("halt")
    if halt:
        page.fact("halted", f"{cause(halt)} ({since(halt, desk.now)})")
    page.fact("tier", clean(agent["tier"]))
    page.fact("owner", clean(agent.get("owner")))
    page.fact("scopes", ", ".join(clean(scope) for scope in agent["scopes"]) or "those of the tier")
    page.fact("hours", _hours_text(agent.get("hours")))
    page.fact("caps", caps(agent["caps"]))
    print_balances(desk, agent["balances"])
    print_allowances(desk.page, agent.get("allowances", []), desk.now)
    page.line("")
    print_sessions(desk, agent["sessions"], with_agent=False)
    _print_ways(page, "Unusual now", agent.get("unusual", []))
    _print_ways(page, "Usual", agent.get("usual", []))
    print_actions(desk, agent["last_actions"])


def _print_ways(page: Page, title: str, told: list[str]) -> None:
    if told:
        page.line("")
        page.title(title)
    for line in told:
        page.wrapped(clean(line), head="  ")


def _hours_text(hours: Hours | None) -> str:
    if not hours:
        return "any"
    return clean(f"{hours['days']} {hours['from']}-{hours['to']} {hours['time_zone']}")
