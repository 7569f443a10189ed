"""The `haltline` command: a map of names to modules that are imported only when their command runs.

Owns names, short help and exit codes. A kill switch must start fast, so nothing of the server is imported here; a
command of the server and one of the client may share a group (`audit`, `policy`).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import click
from click.shell_completion import CompletionItem

from haltline.errors import HaltlineError
from haltline_client.commands.words import clean
from haltline_client.errors import ClientError
from haltline_client.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COMMANDS", "Lazy", "LazyGroup", "haltline", "main"]

EXIT_FAILURE = 1
EXIT_DENIED = 2
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Lazy(NamedTuple):
    """A command to be imported: `module:attribute`, and its line in the help of its group."""

    target: str
    help: str


class Branch(NamedTuple):
    """A group of commands and its line in the help."""

    help: str
    commands: Mapping[str, Lazy]


_CLIENT = "haltline_client.commands"
_SERVER = "haltline.commands"

COMMANDS: Mapping[str, Mapping[str, Lazy | Branch]] = {
    "Stop and resume": {
        "revoke": Lazy(f"{_CLIENT}.stops:revoke", "End a session, or an agent with all its sessions, for good."),
        "halt": Lazy(f"{_CLIENT}.stops:halt", "Stop a session, an agent or everything until resumed."),
        "resume": Lazy(f"{_CLIENT}.resume:resume", "Lift one halt, after showing its cause."),
        "drill": Lazy(f"{_CLIENT}.drill:drill", "Prove that stopping works, with a timeline."),
    },
    "Watch": {
        "status": Lazy(f"{_CLIENT}.status:status", "What is halted, who spends, what waits for a person."),
        "top": Lazy(f"{_CLIENT}.top:top", "Live status; q ends."),
        "audit": Branch(
            "The audit log.",
            {
                "tail": Lazy(f"{_CLIENT}.audit:tail", "The newest events; -f follows."),
                "query": Lazy(f"{_CLIENT}.audit:query", "A page of the events that match."),
                "export": Lazy(f"{_CLIENT}.audit:export", "All events that match, as JSON lines."),
                "verify": Lazy(f"{_SERVER}.audit:verify", "Prove that the log was only added to."),
            },
        ),
        "ledger": Branch(
            "The ledger of money and calls.",
            {"check": Lazy(f"{_SERVER}.ledger:check", "Prove that every balance follows from the events.")},
        ),
        "alerts": Branch(
            "What was sent to people.",
            {
                "list": Lazy(f"{_CLIENT}.alerts:list_alerts", "The newest episodes, and what could not be delivered."),
                "ack": Lazy(f"{_CLIENT}.alerts:ack", "Say that you have one in hand."),
                "resolve": Lazy(f"{_CLIENT}.alerts:resolve", "Say that one is over."),
                "test": Lazy(f"{_CLIENT}.alerts:test", "Send a marked one to a channel."),
                "retry": Lazy(f"{_CLIENT}.alerts:retry", "Send again what was given up."),
                "stats": Lazy(f"{_CLIENT}.alerts:stats", "How long people took."),
            },
        ),
        "calls": Branch(
            "Calls whose outcome is unknown.",
            {
                "in-doubt": Lazy(f"{_CLIENT}.calls:in_doubt", "List them."),
                "settle": Lazy(f"{_CLIENT}.calls:settle", "It happened: charge it."),
                "void": Lazy(f"{_CLIENT}.calls:void", "It did not happen: give its hold back."),
            },
        ),
    },
    "Agents": {
        "agents": Branch(
            "Register agents and look at them.",
            {
                "add": Lazy(f"{_CLIENT}.agents:add", "Register an agent."),
                "list": Lazy(f"{_CLIENT}.agents:list_agents", "All agents: state, tier, spent today."),
                "show": Lazy(f"{_CLIENT}.agents:show", "One agent: caps, balances, sessions, last actions."),
                "reissue": Lazy(f"{_CLIENT}.agents:reissue", "Let a revoked agent work again."),
            },
        ),
        "sessions": Branch(
            "Open sessions and look at them.",
            {
                "open": Lazy(f"{_CLIENT}.sessions:open_session", "Open a session and print its credential, once."),
                "list": Lazy(f"{_CLIENT}.sessions:list_sessions", "Open sessions."),
                "show": Lazy(f"{_CLIENT}.sessions:show", "One session: tools, caps, balances, last actions."),
            },
        ),
        "tools": Branch(
            "What agents may call, and its price.",
            {
                "list": Lazy(f"{_CLIENT}.tools:list_tools", "Tools, prices and upstreams."),
                "import": Lazy(f"{_CLIENT}.tools:import_tools", "Write price entries for what an upstream offers."),
                "pin": Lazy(f"{_CLIENT}.pins:pin", "Look at changed definitions, and approve them."),
            },
        ),
        "client-config": Lazy(f"{_CLIENT}.client_config:client_config", "Print the configuration for a host."),
    },
    "Policy and operators": {
        "policy": Branch(
            "Check, explain and reload the policy.",
            {
                "check": Lazy(f"{_SERVER}.policy:check", "Check the policy files."),
                "explain": Lazy(f"{_CLIENT}.policy:explain", "What would be decided about a call, and why."),
                "reload": Lazy(f"{_CLIENT}.policy:reload", "Read the policy folder again now."),
                "test": Lazy(f"{_SERVER}.policy:test", "Run the tests beside the policy files."),
                "schema": Lazy(f"{_SERVER}.policy:schema", "Print the JSON schema of the policy files."),
            },
        ),
        "operators": Branch(
            "Who may operate the broker.",
            {
                "add": Lazy(f"{_CLIENT}.operators:add", "A new operator; prints the credential once."),
                "list": Lazy(f"{_CLIENT}.operators:list_operators", "Operators and their credentials' class."),
                "rotate": Lazy(f"{_CLIENT}.operators:rotate", "A new credential; the old one ends."),
                "revoke": Lazy(f"{_CLIENT}.operators:revoke", "End an operator's credential."),
            },
        ),
    },
    "Run": {
        "serve": Lazy(f"{_SERVER}.serve:command", "Run the broker."),
        "demo": Lazy(f"{_SERVER}.demo:command", "See it work, with nothing set up."),
        "init": Lazy(f"{_SERVER}.init:command", "Write a first configuration."),
        "doctor": Lazy(f"{_SERVER}.doctor:command", "Check this installation."),
        "stdio": Lazy(f"{_CLIENT}.stdio:stdio", "The bridge for hosts that only launch commands."),
        "completion": Lazy(f"{_CLIENT}.completion:completion", "Print the completion script for a shell."),
    },
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and short help, and imports one only to run it or to print its help."""

    def __init__(self, name: str, sections: Mapping[str, Mapping[str, Lazy | Branch]], **attrs: str) -> None:
        super().__init__(name, context_settings=SETTINGS, help=attrs.get("help"))
        self.sections = sections
        self.entries = {key: entry for section in sections.values() for key, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        entry = self.entries.get(cmd_name)
        if isinstance(entry, Branch):
            return LazyGroup(cmd_name, {"Commands": entry.commands}, help=entry.help)
        return None if entry is None else load(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args and not args[0].startswith("-") and args[0] not in self.entries:
            ctx.fail(f"No such command {args[0]!r}.{_nearest(args[0], self.entries)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        width = max(map(len, self.entries))
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in entries.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(k, help=entry.help) for k, entry in self.entries.items() if k.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def load(entry: Lazy) -> click.Command:
    """Import a command."""
    module, _, attribute = entry.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command), f"{entry.target} is not a command"
    return command


def _nearest(name: str, names: Mapping[str, object]) -> str:
    import difflib  # noqa: PLC0415 - only a typing error needs it

    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


haltline = click.version_option(__version__, prog_name="haltline", message="%(prog)s %(version)s")(
    LazyGroup("haltline", COMMANDS, help="Say which agent did what and what it cost, and stop exactly that one, now.")
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = haltline.main(given, "haltline", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else EXIT_FAILURE
    except BrokenPipeError:
        # The reader went away (`| head`): nothing to say, and nothing may be left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except (click.ClickException, click.Abort, ClientError, HaltlineError) as error:
        return _report(error, as_json="--json" in given)
    return code if isinstance(code, int) else 0


def _report(error: click.ClickException | click.Abort | ClientError | HaltlineError, *, as_json: bool) -> int:
    """Say what went wrong on standard error; the exit code that goes with it."""
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if as_json:
        return _report_json(error)
    if isinstance(error, click.ClickException):
        error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else error.exit_code
    verb = "Refused" if error.exit_code == EXIT_DENIED else "Error"
    head = f"{verb} [{error.code}]: "
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    # What the broker says may quote what an agent said: it must not steer the terminal.
    text = "\n".join(clean(line) for line in str(error).splitlines())
    click.echo((click.style(head, fg="red") if colour else head) + text, err=True)
    return error.exit_code


def _report_json(error: click.ClickException | ClientError | HaltlineError) -> int:
    """One line for a program: `{"error": {"code": …, "message": …}}`."""
    if isinstance(error, click.ClickException):
        usage = isinstance(error, click.UsageError)
        code, message, status = "usage", error.format_message(), EXIT_USAGE if usage else error.exit_code
    else:
        code, message, status = error.code, str(error), error.exit_code
    click.echo(json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":")), err=True)
    return status
