"""`haltline sessions`: open a run of an agent on a task, and look at those there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.balances import print_actions, print_allowances, print_balances
from haltline_client.commands.caps import cap_option
from haltline_client.commands.desk import Desk, examples, operator_options, print_token
from haltline_client.commands.page import Column, state
from haltline_client.commands.stops import cause, since
from haltline_client.commands.words import age, amount, bare_amount, caps, clean, count, when

if TYPE_CHECKING:
    from haltline_client.results import Caps, OpenedSession, Session, SessionDetail

__all__ = ["list_sessions", "open_session", "print_sessions", "show"]

AGENT = Column("AGENT")
COLUMNS = (
    Column("SESSION"),
    Column("STATE"),
    Column("RUNNING", right=True, spare=3),
    Column("CALLS", right=True, spare=2),
    Column("SPENT", right=True),
    Column("HELD", right=True, spare=1),
    Column("IN DOUBT", right=True, spare=1),
    Column("OF CAP", right=True),
    Column("ENDS", spare=4),
    Column("TASK", flex=True),
)


@click.command(
    "open",
    epilog=examples(
        'haltline sessions open research-bot --task "summarise ticket 4711"',
        "haltline sessions open billing --task refunds --tool 'payments__*' --cap task=2.00 --expires-in 1h",
        "export HALTLINE_TOKEN=$(haltline sessions open bot --task t --json | jq -r .token)",
    ),
)
@click.argument("agent")
@click.option("--task", required=True, metavar="TEXT", help="What this run is for; shown wherever the session is.")
@click.option("--tool", "tools", multiple=True, metavar="PATTERN", help="Only tools like this; may be repeated.")
@cap_option
@click.option("--expires-in", metavar="DURATION", help="Such as 30m or 8h. [default: 8h]")
@operator_options
def open_session(
    desk: Desk, agent: str, task: str, tools: tuple[str, ...], caps: Caps | None, expires_in: str | None
) -> None:
    """Open a session and print its credential, once."""
    result = desk.ask(
        lambda control: control.open_session(agent, task, tools=tools or None, caps=caps, expires_in=expires_in)
    )
    desk.show(result, lambda: _print_opened(desk, result))


@click.command("list", epilog=examples("haltline sessions list", "haltline sessions list research-bot --all"))
@click.argument("agent", required=False)
@click.option("--all", "all_states", is_flag=True, help="Also those that ended.")
@operator_options
def list_sessions(desk: Desk, agent: str | None, all_states: bool) -> None:
    """Open sessions, of one agent or of all."""
    result = desk.ask(lambda control: control.list_sessions(agent=agent, all_states=all_states))
    desk.show(result, lambda: print_sessions(desk, result["sessions"], with_agent=True))


@click.command("show", epilog=examples("haltline sessions show ses_7Kq2"))
@click.argument("session")
@operator_options
def show(desk: Desk, session: str) -> None:
    """One session: tools, caps, balances, last actions."""
    result = desk.ask(lambda control: control.show_session(session))
    desk.show(result, lambda: _print_detail(desk, result))


def print_sessions(desk: Desk, sessions: list[Session], *, with_agent: bool) -> None:
    """Sessions as a table; the agent's column only where it is not the same for all."""
    columns = (COLUMNS[0], AGENT, *COLUMNS[1:]) if with_agent else COLUMNS
    rows = []
    for one in sessions:
        first = (clean(one["session"]), clean(one["agent"])) if with_agent else (clean(one["session"]),)
        rest = (
            state(one["state"]),
            count(one["running"]),
            count(one["calls"]) + (f" of {count(one['calls_cap'])}" if one.get("calls_cap") is not None else ""),
            bare_amount(one["spent"]),
            bare_amount(one["held"]),
            bare_amount(one.get("in_doubt")),
            amount(one["cap"]),
            when(one["expires_at"], desk.now, seconds=False),
            f"{'└ ' if one.get('parent') else ''}{clean(one['task'])}",
        )
        rows.append((*first, *rest))
    desk.page.table(columns, rows, empty="No open sessions.")


def _print_opened(desk: Desk, result: OpenedSession) -> None:
    page = desk.page
    page.line(f"Opened session {clean(result['session'])} for {clean(result['agent'])}.")
    page.fact("task", clean(result["task"]))
    page.fact("tier", clean(result["tier"]))
    page.fact("caps", caps(result["caps"]))
    page.fact("tools", ", ".join(clean(tool) for tool in result["tools"]) or "none")
    page.fact("expires", _ends(desk, result["expires_at"]))
    print_token(
        page,
        result["token"],
        f'Give it to the run as HALTLINE_TOKEN; revoke with: haltline revoke {clean(result["session"])} --reason "..."',
    )


def _print_detail(desk: Desk, session: SessionDetail) -> None:
    page = desk.page
    page.title(clean(session["session"]))
    page.fact("state", state(session["state"]))
    halt = session.get("halt")
    if halt:
        page.fact("halted", f"{cause(halt)} ({since(halt, desk.now)})")
    page.fact("agent", clean(session["agent"]))
    page.fact("task", clean(session["task"]))
    parent = session.get("parent")
    if parent:
        page.fact("opened for", f"a sub-agent of session {clean(parent)}")
    page.fact("opened", f"{when(session['opened_at'], desk.now)} ({age(session['opened_at'], desk.now)} ago)")
    page.fact("expires", _ends(desk, session["expires_at"]))
    page.fact("calls", f"{count(session['calls'])}, {count(session['running'])} running")
    page.fact("tools", ", ".join(clean(tool) for tool in session["tools"]) or "none")
    page.fact("caps", caps(session["caps"]))
    print_balances(desk, session["balances"], session["session"])
    print_allowances(desk.page, session.get("allowances", []), desk.now)
    children = session.get("children", [])
    if children:
        page.line("")
        page.line("Sessions of sub-agents (what they spend is in the balances above):")
        print_sessions(desk, children, with_agent=False)
    print_actions(desk, session["last_actions"])


def _ends(desk: Desk, stamp: str) -> str:
    text = when(stamp, desk.now)
    past = stamp < desk.now.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text} ({age(stamp, desk.now)} ago)" if past else f"{text} (in {age(stamp, desk.now)})"
