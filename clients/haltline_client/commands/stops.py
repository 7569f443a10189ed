"""The kill switch: revoke and halt. Prints what was stopped and how long it took.

These start fast and read leniently: a missing detail in an answer must not make a stop look like a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options, reason_option
from haltline_client.commands.page import Page, Styled
from haltline_client.commands.words import age, clean, when

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from haltline_client.results import Halt, Halted, Revoked

__all__ = ["cause", "halt", "print_halt", "revoke", "since"]


@click.command(
    "revoke",
    epilog=examples(
        'haltline revoke ses_7Kq2 --reason "wrong task"',
        'haltline revoke research-bot --reason "token leaked"     every session of the agent',
    ),
)
@click.argument("target", metavar="SESSION|AGENT")
@reason_option
@operator_options
def revoke(desk: Desk, target: str, reason: str) -> None:
    """End a session, or an agent with all its sessions, now and for good.

    Running calls are cancelled and their results withheld. An agent stays blocked until it is reissued.
    """
    result = desk.ask(lambda control: control.revoke(target, reason=reason))
    desk.show(result, lambda: _print_revoked(desk, result, target))


@click.command(
    "halt",
    epilog=examples(
        'haltline halt research-bot --reason "looping on refunds"',
        'haltline halt everything --reason "upstream incident"',
    ),
)
@click.argument("target", metavar="SESSION|AGENT|everything")
@reason_option
@operator_options
def halt(desk: Desk, target: str, reason: str) -> None:
    """Stop a session, an agent or everything until a person resumes it.

    Running calls are cancelled and their results withheld; credentials stay valid.
    """
    result = desk.ask(lambda control: control.halt(target, reason=reason))
    desk.show(result, lambda: _print_halted(desk, result, target))


def _print_revoked(desk: Desk, result: Revoked, target: str) -> None:
    sessions = [clean(session) for session in result.get("sessions", [])]
    desk.page.line(_headline("Revoked", result, target, desk))
    if sessions:
        desk.page.fact("sessions", f"{len(sessions)} ended: ", ", ".join(sessions))
    else:
        desk.page.fact("sessions", "none were open")
    _print_calls(desk, result)
    if result.get("kind") == "agent":
        desk.page.fact("blocked", f'until: haltline agents reissue {clean(target)} --reason "..."')


def _print_halted(desk: Desk, result: Halted, target: str) -> None:
    desk.page.line(_headline("Halted", result, target, desk))
    _print_calls(desk, result)
    desk.page.fact("resume", f'haltline resume {clean(target)} --reason "..."')


def _headline(verb: str, result: Revoked | Halted, target: str, desk: Desk) -> Styled:
    name = clean(result.get("target", target))
    if result.get("already"):
        return Styled(f"{name} was {verb.lower()} before; nothing of it runs.", "bold")
    return Styled(f"{verb} {name} in {desk.took_ms} ms.", "bold")


def _print_calls(desk: Desk, result: Revoked | Halted) -> None:
    cancelled = result.get("calls_cancelled", 0)
    desk.page.fact("calls", f"{cancelled} cancelled" if cancelled else "none were running")


def print_halt(page: Page, one: Halt, now: datetime) -> None:
    """One standing halt: what, since when, by whom and why."""
    scope, target = clean(one.get("scope")), clean(one.get("target"))
    name = target if scope == target else f"{target} ({scope})"
    page.line(Styled("Halted ", "bad"), Styled(name, "bold"), f" {since(one, now)}")
    page.wrapped(cause(one))


def cause(one: Mapping[str, object]) -> str:
    """`[budget.day_exceeded] day cap 5.00 USD, spent 4.98`."""
    return f"[{clean(one.get('code'))}] {clean(one.get('text'))}"


def since(one: Mapping[str, object], now: datetime) -> str:
    """`since 21:16:02, 12 min ago, by cap day`."""
    stamp = one.get("since")
    return f"since {when(stamp, now)}, {age(stamp, now)} ago, by {clean(one.get('by'))}"
