"""`haltline audit tail|query|export`: read the audit log in a terminal, or take it away as JSON lines."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeVar

import click

from haltline_client.commands.desk import Desk, examples, note, operator_options
from haltline_client.commands.events import event_line, print_events
from haltline_client.commands.words import count
from haltline_client.errors import RequestFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from haltline_client.results import AuditPage, Event

__all__ = ["export", "query", "tail"]

F = TypeVar("F", bound="Callable[..., Any]")
PAGE_EVENTS = 1000
POLL_S = 1.0


class Filters(NamedTuple):
    """Which events are meant."""

    agent: str | None
    session: str | None
    kind: str | None
    call: str | None
    tool: str | None
    since: str | None
    until: str | None


def _filter_options(command: Callable[..., None]) -> Callable[..., None]:
    @click.option("--agent", metavar="AGENT", help="Only this agent's.")
    @click.option("--session", metavar="SESSION", help="Only this session's.")
    @click.option("--kind", metavar="KIND", help="Only this kind, such as call.denied.")
    @click.option("--call", metavar="CALL", help="Only this call's.")
    @click.option("--tool", metavar="TOOL", help="Only this tool's.")
    @click.option("--since", metavar="TIME", help="From then on: ISO-8601, or an age such as 2h.")
    @click.option("--until", metavar="TIME", help="Until then.")
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        filters = Filters(**{name: kwargs.pop(name) for name in Filters._fields})
        command(*args, filters=filters, **kwargs)

    return run


@click.command("tail", epilog=examples("haltline audit tail", "haltline audit tail -f --agent research-bot"))
@click.option("-n", "lines", type=click.IntRange(0, PAGE_EVENTS), default=20, help="How many. [default: 20]")
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until Ctrl-C.")
@_filter_options
@operator_options
def tail(desk: Desk, filters: Filters, lines: int, follow: bool) -> None:
    """The newest events, and with -f those to come."""
    page = desk.ask(lambda control: control.query_audit(**filters._asdict(), limit=max(lines, 1), newest=True))
    events = _ordered(page)
    last = events[-1]["seq"] if events else 0
    _print_lines(desk, events[-lines:] if lines else [])
    if not events and not follow:
        note("No events.")
    while follow:
        time.sleep(POLL_S)
        for fresh in _pages(desk, filters, after_seq=last):
            _print_lines(desk, fresh)
            last = fresh[-1]["seq"] if fresh else last


@click.command(
    "query",
    epilog=examples(
        "haltline audit query --agent research-bot --kind call.denied --since 2h",
        "haltline audit query --call call_9fX --json",
    ),
)
@click.option("--after-seq", type=int, metavar="SEQ", help="After this event, for the next page.")
@click.option("--before-seq", type=int, metavar="SEQ", help="Before this event.")
@click.option("--limit", type=click.IntRange(1, PAGE_EVENTS), default=100, help="[default: 100]")
@click.option("--newest", is_flag=True, help="The newest that match, not the oldest.")
@_filter_options
@operator_options
def query(
    desk: Desk, filters: Filters, after_seq: int | None, before_seq: int | None, limit: int, newest: bool
) -> None:
    """A page of the events that match."""
    result = desk.ask(
        lambda control: control.query_audit(
            **filters._asdict(), after_seq=after_seq, before_seq=before_seq, limit=limit, newest=newest
        )
    )
    desk.show(result, lambda: print_events(desk, result["events"], empty="No events match."))
    following = result.get("next_after_seq")
    if following is not None and not desk.as_json:
        note(f"More follow: --after-seq {following}")


@click.command(
    "export",
    epilog=examples(
        "haltline audit export -o audit.jsonl",
        "haltline audit export --since 24h | jq -r .kind | sort | uniq -c",
    ),
)
@click.option("-o", "--output", metavar="FILE", default="-", help="A new file, only for you. [default: - for stdout]")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--after-seq", type=int, metavar="SEQ", help="Only events after this one, to continue an export.")
@_filter_options
@operator_options
def export(desk: Desk, filters: Filters, output: str, force: bool, after_seq: int | None) -> None:
    """All events that match, oldest first, one JSON object a line."""
    if output == "-":
        _export(desk, filters, after_seq, sys.stdout)
        return
    target = Path(output)
    if target.exists() and not force:
        raise click.UsageError(f"{target} exists already: choose another name, or --force to replace it.")
    partial = target.with_name(f".{target.name}.part")
    try:
        # The log names tasks and tools, so the file is for its owner; and it has its name only when it is whole.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            written = _export(desk, filters, after_seq, file)
        partial.replace(target)
    except OSError as error:
        raise click.ClickException(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    note(f"{count(written)} events written to {target}.")


def _export(desk: Desk, filters: Filters, after_seq: int | None, out: TextIO) -> int:
    written, progress = 0, sys.stderr.isatty() and out is not sys.stdout
    for events in _pages(desk, filters, after_seq=after_seq):
        out.writelines(f"{json.dumps(event, separators=(',', ':'))}\n" for event in events)
        written += len(events)
        if progress:
            click.echo(f"\r{count(written)} events", nl=False, err=True)
    out.flush()
    if progress:
        click.echo("\r", nl=False, err=True)
    return written


def _pages(desk: Desk, filters: Filters, *, after_seq: int | None) -> Iterator[list[Event]]:
    """Every page after `after_seq`, each asked for when the one before is done with."""
    after = after_seq or 0
    while True:
        page = _page_after(desk, filters, after)
        yield _ordered(page)
        following = page.get("next_after_seq")
        if following is None:
            return
        if following <= after:
            raise RequestFailed("answer.invalid", f"the broker's pages do not advance past event {after}")
        after = following


def _page_after(desk: Desk, filters: Filters, after: int) -> AuditPage:
    return desk.ask(lambda control: control.query_audit(**filters._asdict(), after_seq=after, limit=PAGE_EVENTS))


def _ordered(page: AuditPage) -> list[Event]:
    return sorted(page["events"], key=lambda event: event["seq"])


def _print_lines(desk: Desk, events: list[Event]) -> None:
    for event in events:
        if desk.as_json:
            click.echo(json.dumps(event, separators=(",", ":")))
        else:
            event_line(desk, event)
    sys.stdout.flush()
