"""The drill: asks the broker to prove its stop path, prints the timeline, and fails loudly where something did not hold."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options
from haltline_client.commands.page import Column, Styled
from haltline_client.commands.words import clean, many

if TYPE_CHECKING:
    from haltline_client.drill_results import Drilled

__all__ = ["drill"]

EXIT_DRILL_FAILED = 4
PATIENCE_S = 100.0
_STATES = {"ok": "good", "failed": "bad bold", "not_shown": "dim"}
_COLUMNS = (Column("at", right=True), Column("step"), Column("state"), Column("shown", wraps=True))


@click.command(
    "drill",
    epilog=examples(
        "haltline drill                             revoke, and show what a revoke promises",
        "haltline drill --halt                      halt and resume (a person's own credential)",
        "haltline drill --agent research-bot --json",
    ),
)
@click.option("--agent", metavar="AGENT", help="Drill this agent, in a session of its own that reaches no real tool.")
@click.option("--halt", is_flag=True, help="Halt and resume instead of revoking.")
@operator_options
def drill(desk: Desk, agent: str | None, halt: bool) -> None:
    """Prove that stopping works, in seconds, with real clients and real refused calls.

    Costs nothing and touches no real agent unless told to. Exit code 4 when anything did not hold.
    """
    desk.be_patient(PATIENCE_S)
    result = desk.ask(lambda control: control.run_drill(agent=agent, halt=halt))
    desk.show(result, lambda: _print(desk, result))
    if not result.get("ok"):
        sys.exit(EXIT_DRILL_FAILED)


def _print(desk: Desk, result: Drilled) -> None:
    rows = [
        (
            f"{one.get('at_ms', 0) / 1000:.3f} s",
            clean(one.get("step")),
            Styled(clean(one.get("state")).replace("_", " "), _STATES.get(clean(one.get("state")), "plain")),
            clean(one.get("text")),
        )
        for one in result.get("steps", [])
    ]
    desk.page.table(_COLUMNS, rows, empty="nothing was shown")
    touched = f"{many(result.get('systems', 0), 'system')} touched to stop it"
    seconds = f"{result.get('took_ms', 0) / 1000:.1f} s"
    if result.get("ok"):
        desk.page.line(Styled(f"The drill held: {seconds}, {touched}.", "good"))
    else:
        desk.page.line(Styled(f"THE DRILL FAILED at: {clean(result.get('failed'))} ({seconds}).", "bad bold"))
        desk.page.wrapped(
            "Do not trust the stop path until a drill holds; the broker's log and the audit log say more.", head=""
        )
