"""The tools and agents that a broker's data folder remembers, for those who check a policy without asking a broker. Reads only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haltline.store.database import connect_reader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["SeenTool", "seen_agents", "seen_tools"]


@dataclass(frozen=True, slots=True)
class SeenTool:
    """As its upstream showed it last; `schema` None where that is not kept."""

    name: str
    upstream: str
    schema: Mapping[str, Any] | None


def seen_tools(database: Path) -> list[SeenTool]:
    """None of a broker from before there were pins."""
    rows = _rows(database, "SELECT name, upstream, seen_text FROM pins ORDER BY name, upstream")
    return [SeenTool(name, upstream, _schema(text)) for name, upstream, text in rows]


def seen_agents(database: Path) -> list[tuple[str, str]]:
    """(handle, tier) of those that are not revoked."""
    return [(row[0], row[1]) for row in _rows(database, "SELECT handle, tier FROM agents WHERE state = 'active'")]


def _rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(connect_reader(database)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []


def _schema(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        schema = orjson.loads(text).get("inputSchema")
    except orjson.JSONDecodeError:  # cut short
        return None
    return schema if isinstance(schema, dict) else None
