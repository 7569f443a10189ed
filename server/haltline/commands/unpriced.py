"""Which tools no price covers, of those that a broker's data folder remembers from its upstreams. Reads, changes nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from haltline.errors import ConfigError, Problem, StoreError
from haltline.policy.policy import Policy, ToolDefaults
from haltline.setup.settings import load_settings
from haltline.store.database import connect_reader
from haltline_client.discover import data_folder

if TYPE_CHECKING:
    from haltline.policy.folder import Merged
    from haltline.upstreams.model import UpstreamSpec

__all__ = ["unpriced"]


def unpriced(merged: Merged, data: str | None) -> tuple[Problem, ...]:
    """A warning for each. None where there is no broker here yet, or its haltline.yaml cannot be read.

    Raises StoreError where `data` is named and holds no database.
    """
    database = data_folder(os.environ, data=data, folder=Path()).path / "haltline.db"
    if not database.is_file():
        if data is not None:
            raise StoreError(f"{database} is not there; name the broker's data folder with --data")
        return ()
    try:
        specs = {spec.name: spec for spec in load_settings().upstreams}
        policy = Policy(merged, {name: _defaults(spec) for name, spec in specs.items()})
    except ConfigError:
        return ()
    return tuple(
        _problem(tool, upstream)
        for tool, upstream in _seen(database)
        if upstream in specs and specs[upstream].kind != "python" and policy.price(tool, upstream) is None
    )


def _defaults(spec: UpstreamSpec) -> ToolDefaults:
    return ToolDefaults(spec.price, spec.read_only, spec.timeout_s)


def _seen(database: Path) -> list[tuple[str, str]]:
    with closing(connect_reader(database)) as connection:
        try:
            rows: list[tuple[str, str]] = connection.execute(
                "SELECT name, upstream FROM pins ORDER BY name, upstream"
            ).fetchall()
        except sqlite3.OperationalError:  # of a broker from before there were pins
            return []
    return rows


def _problem(tool: str, upstream: str) -> Problem:
    told = f"no price covers it, so every call is refused; set one, or run: haltline tools import {upstream}"
    return Problem("upstreams", None, tool, told)
