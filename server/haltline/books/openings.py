"""What the events say of agents, sessions and allowances, for those decide whose balance a call is part of and what its limit
is; and rows that no event speaks of at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from haltline.audit import RARE, Kind
from haltline.audit_check import Fault

if TYPE_CHECKING:
    import sqlite3

__all__ = ["OPENINGS", "Found", "opening_faults", "unannounced"]

_RESUMED = frozenset({Kind.AGENT_RESUMED, Kind.SESSION_RESUMED})
OPENINGS = frozenset({Kind.SESSION_OPENED, Kind.AGENT_ADDED, *_RESUMED})
_NAMED_MAX = 20
_UNANNOUNCED = (
    ("call", "has a hold, but no event admitted it", "holds", "events.call_id = holds.id", Kind.CALL_ALLOWED),
    (
        "session",
        "is there, but no event opened it",
        "sessions",
        f"events.session_id = sessions.id AND {RARE}",
        Kind.SESSION_OPENED,
    ),
    ("agent", "is there, but no event added it", "agents", f"events.agent_id = agents.id AND {RARE}", Kind.AGENT_ADDED),
)
Found = dict[str, int]
"""By table, how many rows the events led to."""


def opening_faults(
    connection: sqlite3.Connection, seq: int, kind: str, said: Mapping[str, Any], found: Found
) -> Iterator[Fault]:
    """Where the row that this event wrote is another now."""
    if kind == Kind.SESSION_OPENED:
        yield from _session(connection, seq, said, found)
    elif kind == Kind.AGENT_ADDED:
        yield from _agent(connection, seq, said, found)
    elif said.get("allowance") is not None:
        yield from _allowance(connection, seq, kind, said, found)


def _session(connection: sqlite3.Connection, seq: int, said: Mapping[str, Any], found: Found) -> Iterator[Fault]:
    name = said.get("session")
    row = connection.execute(
        "SELECT agent_id, parent_id, caps, tools, expires_us, opened_us FROM sessions WHERE id = ?", (name,)
    ).fetchone()
    if row is None:
        yield Fault(seq, f"session {name} was opened by event {seq}, but is gone")
        return
    found["sessions"] += 1
    agent_id, parent, caps, tools, expires_us, opened_us = row
    yield from _compared(
        f"session {name}",
        seq,
        said,
        {
            "agent": (agent_id, said.get("agent_id")),
            "parent": (parent, said.get("parent")),
            "caps": (_read(caps), said.get("caps") or {}),
            "tools": (_read(tools), said.get("tools")),
            "end": (expires_us, said.get("expires_us")),
            "beginning": (opened_us, said.get("at_us")),
        },
    )


def _agent(connection: sqlite3.Connection, seq: int, said: Mapping[str, Any], found: Found) -> Iterator[Fault]:
    name = said.get("agent")
    row = connection.execute("SELECT id, tier, caps, scopes FROM agents WHERE handle = ?", (name,)).fetchone()
    if row is None:
        yield Fault(seq, f"agent {name} was added by event {seq}, but is gone")
        return
    found["agents"] += 1
    identifier, tier, caps, scopes = row
    yield from _compared(
        f"agent {name}",
        seq,
        said,
        {
            "id": (identifier, said.get("agent_id")),
            "tier": (tier, said.get("tier")),
            "caps": (_read(caps), said.get("caps") or {}),
            "scopes": (_read(scopes), said.get("scopes") or []),
        },
    )


def _allowance(
    connection: sqlite3.Connection, seq: int, kind: str, said: Mapping[str, Any], found: Found
) -> Iterator[Fault]:
    of_session = kind == Kind.SESSION_RESUMED
    subject, cap = said.get("session" if of_session else "agent_id"), said.get("cap")
    rows = connection.execute(
        "SELECT amount, until_us, by FROM allowances WHERE subject_id = ? AND scope = ? AND cap = ? AND granted_us = ?",
        (subject, "session" if of_session else "agent", cap, said.get("at_us")),
    ).fetchall()
    found["allowances"] += len(rows)
    wanted = (said["allowance"], said.get("until_us"), said.get("actor"))
    if not any((amount, until_us if wanted[1] is not None else None, by) == wanted for amount, until_us, by in rows):
        yield Fault(seq, f"event {seq} added {wanted[0]} to the {cap} cap of {subject}; no allowance says the same")


def _compared(whose: str, seq: int, said: Mapping[str, Any], values: Mapping[str, tuple[Any, Any]]) -> Iterator[Fault]:
    for name, (mine, theirs) in values.items():
        if mine != theirs and not said.get("cut"):  # an event that was too long to be kept whole says less
            yield Fault(seq, f"{whose}: its {name} is {_short(mine)}, event {seq} says {_short(theirs)}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _read(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def unannounced(connection: sqlite3.Connection, found: Found) -> Iterator[Fault]:
    """Rows that no event speaks of; looked for only where there are more rows than events led to."""
    for what, why, table, same, kind in _UNANNOUNCED:
        if _count(connection, table) == found[table]:
            continue
        missing = f"SELECT {table}.id FROM {table} WHERE NOT EXISTS (SELECT 1 FROM events WHERE {same} AND events.kind = ?) LIMIT ?"  # noqa: S608 - constants
        for (name,) in connection.execute(missing, (kind, _NAMED_MAX)).fetchall():
            yield Fault(None, f"{what} {name} {why}")
    if _count(connection, "allowances") != found["allowances"]:
        yield from _not_given(connection)


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a constant


def _not_given(connection: sqlite3.Connection) -> Iterator[Fault]:
    rows = connection.execute(
        "SELECT id, subject_id, cap, amount FROM allowances WHERE NOT EXISTS (SELECT 1 FROM events"
        " WHERE kind = CASE scope WHEN 'session' THEN 'session.resumed' ELSE 'agent.resumed' END AND at_us = granted_us"
        " AND subject_id = CASE scope WHEN 'session' THEN session_id ELSE agent_id END) LIMIT ?",
        (_NAMED_MAX,),
    )
    for identifier, subject, cap, amount in rows.fetchall():
        yield Fault(None, f"allowance {identifier}: {amount} on the {cap} cap of {subject}, which no resume gave")
