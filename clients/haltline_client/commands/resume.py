"""`haltline resume`: what stands still, why, what ran since and what lies ahead, then the lifting of one halt."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from haltline_client.commands.balances import print_balances
from haltline_client.commands.desk import Desk, examples, note, operator_options, reason_option
from haltline_client.commands.events import print_events
from haltline_client.commands.page import Styled
from haltline_client.commands.stops import print_halt
from haltline_client.commands.words import amount, clean, count, when

if TYPE_CHECKING:
    from haltline_client.resume_results import Resumed, SinceHalt

__all__ = ["resume"]

_EVERYTHING = ("everything", "everything")


@click.command(
    "resume",
    epilog=examples(
        'haltline resume research-bot --reason "checked, was a retry storm"',
        'haltline resume ses_7Kq2 --allow 0.50 --reason "task needs a little more"',
        'haltline resume research-bot --allow day=2.00 --for 2h --reason "month end"',
        "haltline resume research-bot --preview",
        "HALTLINE_OPERATOR_TOKEN=hl_o_... haltline resume everything --yes --reason fixed",
    ),
)
@click.argument("target", metavar="SESSION|AGENT|everything")
@click.option(
    "--allow",
    metavar="[CAP=]AMOUNT",
    help="Add this to the cap that caused the halt, such as 0.50, or to the one you name, such as day=2.00.",
)
@click.option(
    "--for", "allow_for", metavar="DURATION", help="How long that holds, such as 2h. [default: the cap's window]"
)
@click.option("--preview", is_flag=True, is_eager=True, help="Only say what will happen; lift nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@functools.partial(reason_option, unless="preview", otherwise="a look ahead; nothing is lifted")
@operator_options
def resume(
    desk: Desk, target: str, allow: str | None, allow_for: str | None, preview: bool, yes: bool, reason: str
) -> None:
    """Lift one halt, after showing its cause, what ran since and what lies ahead.

    Needs a person's own operator credential; to look ahead (--preview) any operator's will do.
    """
    if allow_for is not None and allow is None:
        raise click.UsageError("--for says how long what --allow adds is to hold; give --allow too.")

    def ask(*, preview: bool) -> Resumed:
        return desk.ask(
            lambda control: control.resume(target, reason=reason, allow=allow, allow_for=allow_for, preview=preview)
        )

    seen = False
    if not desk.as_json:
        _print_cause(desk, target)
        if desk.at_terminal() and not (yes or preview):
            _print_seen(desk, ask(preview=True))
            click.confirm("Resume?", abort=True, err=True)
            seen = True
    result = ask(preview=preview)
    desk.show(result, lambda: _print_resumed(desk, result, target, seen=seen))


def _print_cause(desk: Desk, target: str) -> None:
    halts = desk.ask(lambda control: control.status()).get("halts", [])
    standing = [one for one in halts if one.get("target") == target or (target, one.get("scope")) == _EVERYTHING]
    if not standing:
        note(f"No halt of {clean(target)} stands.")
    for one in standing:
        print_halt(desk.page, one, desk.now)
    others = [clean(one.get("target")) for one in halts if one not in standing]
    if standing and others:
        desk.page.fact("stays", "halted by its own halt: ", ", ".join(others))


def _print_resumed(desk: Desk, result: Resumed, target: str, *, seen: bool) -> None:
    if result.get("preview"):
        desk.page.line(Styled("Nothing was lifted: this is a preview.", "bold"))
    else:
        desk.page.line(Styled(f"Resumed {clean(result.get('target', target))} in {desk.took_ms} ms.", "bold"))
    if not seen:
        _print_seen(desk, result)
    if result.get("allowance"):
        cap = f"the {clean(result['allowance_cap'])} cap" if result.get("allowance_cap") else "the cap"
        until = f" until {when(result['allowance_until'], desk.now)}" if result.get("allowance_until") else ""
        desk.page.fact("allowance", f"{amount(result['allowance'])} added to {cap}{until}")
    elif clean(result.get("was", {}).get("code")).startswith(("budget.", "calls.")):
        text = "Nothing was added to the cap: a call that exceeds it halts again, and a resume with --allow AMOUNT adds to it."
        desk.page.wrapped(text, head="")


def _print_seen(desk: Desk, result: Resumed) -> None:
    """What a person should know before."""
    since = result.get("since_halt")
    if since is not None:
        desk.page.fact("since then", _since(since))
    if result.get("ahead"):
        desk.page.fact("ahead", clean(result["ahead"]))
    if result.get("balances"):
        print_balances(desk, result["balances"])
    if since is not None and since["last"]:
        desk.page.line("")
        print_events(desk, since["last"], empty="")
    if result.get("balances") or (since is not None and since["last"]):
        desk.page.line("")


def _since(since: SinceHalt) -> str:
    """`3 calls ended well, 0.15 USD charged; 42 refused`."""
    words = {"succeeded": "ended well", "failed": "failed", "in_doubt": "in doubt", "running": "still running"}
    went_on = [f"{count(since[key])} {said}" for key, said in words.items() if since[key]]  # type: ignore[literal-required]
    charged = f", {amount(since['charged'])} charged" if since["charged"]["micros"] else ""
    refused = f"{count(since['refused'])}{' or more' if since['more'] else ''} refused" if since["refused"] else ""
    ran = f"of the calls that ran then {', '.join(went_on)}{charged}" if went_on else "nothing ran any more"
    return "; ".join(text for text in (ran, refused) if text)
