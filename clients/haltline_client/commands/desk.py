"""What every operator command shares: the options for reaching a broker, the request, and the two ways to answer.

Owns the `--json` contract (exactly the structured result, one line) and asking for a person's own credential where the
local one is refused (R21). Knows no command.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from haltline_client.client import ControlClient
from haltline_client.commands.page import Page, stdout_page
from haltline_client.discover import Connection, discover
from haltline_client.errors import BrokerUnreachable, Refused, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Desk", "examples", "note", "operator_options", "print_token", "reason_option"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")


class Desk:
    """One command's link to the broker, its page and whether it answers in JSON."""

    def __init__(self, connection: Connection, *, timeout_s: float, insecure_http: bool, as_json: bool) -> None:
        self.connection = connection
        self.as_json = as_json
        self.page: Page = stdout_page()
        self.now = datetime.now(UTC)
        self.took_ms = 0
        self._timeout_s = timeout_s
        self._open = functools.partial(ControlClient, timeout_s=timeout_s, insecure_http=insecure_http)
        self._client = self._open(connection.url, connection.token)

    def ask(self, request: Callable[[ControlClient], T]) -> T:
        """The answer to one request. Where only a person may do it, a person at a terminal is asked for theirs."""
        try:
            return self._timed(request)
        except Refused as refusal:
            if refusal.code != "operator.forbidden" or not self.connection.local or not self.at_terminal():
                raise
            note(f"Refused: {refusal.message}")
        self._client.close()
        own = click.prompt("Your own operator credential (not shown, not kept)", hide_input=True, err=True)
        self.connection = self.connection._replace(token=own.strip(), token_from="your typing", local=False)  # noqa: S106 - says where from
        self._client = self._open(self.connection.url, self.connection.token)
        return self._timed(request)

    def be_patient(self, timeout_s: float) -> None:
        """Wait so long for the answer, whatever is usual."""
        self._client.close()
        self._open = functools.partial(self._open, timeout_s=max(timeout_s, self._timeout_s))
        self._client = self._open(self.connection.url, self.connection.token)

    def show(self, result: Mapping[str, Any], render: Callable[[], None]) -> None:
        """Print the result: as JSON where asked, else by `render`."""
        if self.as_json:
            click.echo(json.dumps(result, separators=(",", ":")))
        else:
            render()

    def at_terminal(self) -> bool:
        """Whether a person can be asked something."""
        return not self.as_json and sys.stdin.isatty() and sys.stderr.isatty()

    def close(self) -> None:
        self._client.close()

    def _timed(self, request: Callable[[ControlClient], T]) -> T:
        start = time.perf_counter()
        try:
            return request(self._client)
        except BrokerUnreachable as error:
            if error.sent:
                raise
            hint = "Is it running? Start it with: haltline serve"
            raise BrokerUnreachable(
                f"{error.message} (address from {self.connection.url_from})\n{hint}", sent=False
            ) from error
        finally:
            self.took_ms = round((time.perf_counter() - start) * 1000)


def operator_options(command: Callable[Concatenate[Desk, P], None]) -> Callable[..., None]:
    """Give a command the options that reach a broker, and a Desk as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
    @click.option("--url", metavar="URL", help="Control URL. [default: HALTLINE_URL, else the running broker's]")
    @click.option(
        "--token-file", metavar="FILE", help="File with an operator credential; - asks for it or reads stdin."
    )
    @click.option("--data", metavar="FOLDER", help="The broker's data folder, to find its address and credential.")
    @click.option("--timeout", type=click.FloatRange(0.1, 600), default=10, metavar="SECONDS", help="[default: 10]")
    @click.option("--insecure-http", is_flag=True, help="Allow http to another machine (the credential is readable).")
    @functools.wraps(command)
    def run(
        *args: Any,
        as_json: bool,
        url: str | None,
        token_file: str | None,
        data: str | None,
        timeout: float,
        insecure_http: bool,
        **kwargs: Any,
    ) -> None:
        connection = _connection(url, token_file, data)
        desk = Desk(connection, timeout_s=timeout, insecure_http=insecure_http, as_json=as_json)
        try:
            command(desk, *args, **kwargs)
        finally:
            desk.close()

    return run


def _connection(url: str | None, token_file: str | None, data: str | None) -> Connection:
    if token_file != "-":  # noqa: S105 - stands for standard input
        return discover(url=url, token_file=token_file, data=data)
    if sys.stdin.isatty():
        typed = click.prompt("Operator credential (not shown)", hide_input=True, err=True)
    else:
        typed = sys.stdin.readline()
    if not typed.strip():
        raise SettingError("no operator credential on standard input")
    return discover(url=url, data=data, environ={**os.environ, "HALTLINE_OPERATOR_TOKEN": typed})


def reason_option(command: F, *, unless: str = "", otherwise: str = "") -> F:
    """`--reason`, required, for acts that the audit log must explain; with the flag `unless` it is `otherwise`.

    That flag must be eager, so that it is known before.
    """

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
        spared = not value and bool(unless) and context.params.get(unless) is True
        return otherwise if spared else _read_reason(context, parameter, value)

    return click.option(
        "--reason",
        metavar="TEXT",
        callback=read,
        help="Why; it is recorded in the audit log. Required. [- reads stdin]",
    )(command)


def _read_reason(context: click.Context, _: click.Parameter, value: str | None) -> str:
    if context.resilient_parsing:
        return ""
    text = sys.stdin.read() if value == "-" else value or ""
    if not text.strip():
        raise click.UsageError("Missing option '--reason': say why, it goes into the audit log.", context)
    return text.strip()


def examples(*lines: str) -> str:
    """The examples that close a command's help, each on its own line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def note(text: str) -> None:
    """A line beside the result: on standard error, so that a pipe gets the result alone."""
    click.echo(text, err=True)


def print_token(page: Page, token: str, use: str) -> None:
    """A credential, alone on its line, and what to do with it."""
    page.line("")
    page.line(token)
    page.line("")
    page.line(f"This is shown once. {use}")
