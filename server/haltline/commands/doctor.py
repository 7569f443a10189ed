"""`haltline doctor`: check this installation, also while a broker runs on it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from haltline.errors import ConfigError
from haltline.setup.doctor import configuration, machine, records
from haltline.setup.doctor.finding import Finding
from haltline.setup.settings import Settings, load_settings
from haltline_client.commands.desk import examples
from haltline_client.commands.page import Page, stdout_page

__all__ = ["command", "findings"]

_STYLES = {"ok": "good", "warn": "warn", "fail": "bad"}


@click.command("doctor", epilog=examples("haltline doctor", "haltline doctor --config haltline.yaml --json"))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="[default: ./haltline.yaml]")
@click.option("--data", metavar="FOLDER", help="Where the records and keys are.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(config: Path | None, data: str | None, as_json: bool) -> int:
    """Check Python, SQLite, the data folder, keys, settings, policy, upstreams and ports. Exit code 1 if any fails."""
    found, page = [], stdout_page()
    for finding in findings(config, data):
        found.append(finding)
        if not as_json:
            _print(page, finding)
    failed = sum(finding.status == "fail" for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in found]}))
    else:
        warned = sum(finding.status == "warn" for finding in found)
        page.line(f"\n{len(found)} checks, {failed} failed, {warned} to look at.")
    return int(failed > 0)


def findings(config: Path | None, data: str | None) -> Iterator[Finding]:
    """Every finding, one by one. What cannot be looked at without valid settings is left out when they are not."""
    yield from machine.python()
    yield from machine.sqlite()
    try:
        settings = load_settings(config, environ=os.environ, overrides={"data": data})
    except ConfigError as error:
        yield from configuration.problems("settings", error)
        yield from machine.clock(time.time_ns() // 1000, None)
        return
    where = "none, defaults are used; write them with: haltline init"
    yield Finding("settings", "ok", str(settings.config_file or where))
    yield from _of(settings)


def _of(settings: Settings) -> Iterator[Finding]:
    yield from configuration.policy(settings)
    yield from configuration.upstreams(settings, os.environ)
    yield from configuration.listeners(settings)
    newest_us = None
    folder = list(records.folder(settings.data))
    yield from folder
    # Opening the database of another user's folder could leave a file there that its owner cannot open.
    if all(finding.status == "ok" for finding in folder):
        yield from records.keys(settings.data)
        yield from records.space(settings.data)
        yield from records.storage(settings.data)
        yield from records.database(settings.data)
        yield from records.alerts(settings.data)
        newest_us = records.newest_event_us(settings.data)
    yield from machine.clock(time.time_ns() // 1000, newest_us)


def _print(page: Page, finding: Finding) -> None:
    page.wrapped(f"{finding.check}: {finding.text}", head=f"{finding.status:<4}  ", head_style=_STYLES[finding.status])
    if finding.to_do:
        page.wrapped(finding.to_do, head="      -> ")
