"""`haltline operators`: who may operate the broker, and their credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haltline_client.commands.desk import Desk, examples, operator_options, print_token, reason_option
from haltline_client.commands.page import Column, state
from haltline_client.commands.words import clean, when

if TYPE_CHECKING:
    from haltline_client.results import NewToken, Operator

__all__ = ["add", "list_operators", "revoke", "rotate"]

COLUMNS = (Column("OPERATOR", flex=True), Column("CLASS"), Column("STATE"), Column("SINCE"))
TOKEN_USE = "Keep it in a password store; use it as HALTLINE_OPERATOR_TOKEN."  # noqa: S105 - a sentence


@click.command("add", epilog=examples("haltline operators add anna"))
@click.argument("name")
@operator_options
def add(desk: Desk, name: str) -> None:
    """A new operator; prints the credential once. Needs a person's own credential."""
    result = desk.ask(lambda control: control.add_operator(name))
    desk.show(result, lambda: _print_token(desk, result, "Added operator"))


@click.command("list", epilog=examples("haltline operators list"))
@operator_options
def list_operators(desk: Desk) -> None:
    """The operators and the class of their credentials."""
    result = desk.ask(lambda control: control.list_operators())
    desk.show(result, lambda: _print_operators(desk, result["operators"]))


@click.command("rotate", epilog=examples("haltline operators rotate anna"))
@click.argument("name")
@operator_options
def rotate(desk: Desk, name: str) -> None:
    """A new credential for an operator; the old one ends now. Needs a person's own credential."""
    result = desk.ask(lambda control: control.rotate_operator(name))
    desk.show(result, lambda: _print_token(desk, result, "New credential for"))


@click.command("revoke", epilog=examples('haltline operators revoke anna --reason "left the team"'))
@click.argument("name")
@reason_option
@operator_options
def revoke(desk: Desk, name: str, reason: str) -> None:
    """End an operator's credential. Needs a person's own credential."""
    result = desk.ask(lambda control: control.revoke_operator(name, reason=reason))
    desk.show(result, lambda: desk.page.line(f"Revoked operator {clean(name)}."))


def _print_token(desk: Desk, result: NewToken, said: str) -> None:
    desk.page.line(f"{said} {clean(result['operator'])}.")
    print_token(desk.page, result["token"], TOKEN_USE)


def _print_operators(desk: Desk, operators: list[Operator]) -> None:
    rows = [
        (clean(one["name"]), clean(one["class"]), state(one["state"]), when(one["created_at"], desk.now))
        for one in operators
    ]
    desk.page.table(COLUMNS, rows, empty="No operators.")
