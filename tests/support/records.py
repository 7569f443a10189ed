"""What tests of the records share: a database of their own, units run in one thread, and rows that refer to each other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from haltline.audit import Audit, Event, Kind
from haltline.ledger import Hold
from haltline.store.database import connect_writer
from haltline.store.unit import Batch, Tx

__all__ = ["HOUR", "NOON_US", "SECOND", "Store", "a_hold", "announce", "utc_day"]

T = TypeVar("T")
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOON_US = 1_790_000_000_000_000 // DAY * DAY + 12 * HOUR


class Lost(Exception):
    """Raised by a test where a COMMIT would have failed."""


class Store:
    """A database and its units of work without the writer's thread: savepoints, rollbacks and lost batches as it does them."""

    def __init__(self, folder: Path, *, at_us: int = NOON_US, on_lost: tuple[Callable[[], None], ...] = ()) -> None:
        self.path = folder / "haltline.db"
        self.connection = connect_writer(self.path)
        self.now_us = at_us
        self.on_lost = on_lost

    def run(self, unit: Callable[[Tx], T]) -> T:
        with self.batch() as one:
            return one(unit)

    @contextmanager
    def batch(self, *, lost: bool = False) -> Iterator[Callable[[Callable[[Tx], Any]], Any]]:
        """Several units in one transaction; with `lost`, its COMMIT fails."""
        self.connection.execute("BEGIN IMMEDIATE")
        together = Batch(self.connection, self.now_us)
        try:
            yield lambda unit: self._unit(together, unit)
            together.write()
        except BaseException:
            self._lose()
            raise
        if lost:
            self._lose()
        else:
            self.connection.execute("COMMIT")

    @staticmethod
    def _unit(together: Batch, unit: Callable[[Tx], T]) -> T:
        tx = Tx(together)
        try:
            result = unit(tx)
            tx.end()
        except BaseException as error:
            tx.undo(error)
            raise
        return result

    def _lose(self) -> None:
        self.connection.execute("ROLLBACK")
        for hook in self.on_lost:
            hook()

    def people(self, agents: dict[str, tuple[str, ...]]) -> None:
        """Agents with their sessions, as the ledger's foreign keys want them."""
        add_people(self.connection, agents, self.now_us)

    def close(self) -> None:
        self.connection.close()


def add_people(connection: sqlite3.Connection, agents: dict[str, tuple[str, ...]], now_us: int = NOON_US) -> None:
    for agent, sessions in agents.items():
        connection.execute(
            "INSERT INTO agents (id, handle, tier, created_us) VALUES (?,?,?,?)", (agent, agent, "t", now_us)
        )
        for session in sessions:
            connection.execute(
                "INSERT INTO sessions (id, agent_id, task, opened_by, opened_us, expires_us, last_used_us)"
                " VALUES (?,?,'a task','test',?,?,?)",
                (session, agent, now_us, now_us + 365 * DAY, now_us),
            )


def announce(tx: Tx, audit: Audit) -> None:
    """The events that the acts which add agents and open sessions would have written."""
    for handle, agent, tier, caps in tx.execute("SELECT handle, id, tier, caps FROM agents").fetchall():
        body = {"tier": tier, "caps": json.loads(caps) or None}
        audit.append(tx, Event(Kind.AGENT_ADDED, "test", agent=handle, agent_id=agent, body=body))
    rows = tx.execute("SELECT id, agent_id, parent_id, caps, expires_us FROM sessions").fetchall()
    for session, agent, parent, caps, expires_us in rows:
        body = {"parent": parent, "caps": json.loads(caps) or None, "expires_us": expires_us}
        audit.append(tx, Event(Kind.SESSION_OPENED, "test", agent_id=agent, session=session, body=body))


def a_hold(call: str, amount: int = 100, *, agent: str = "a1", session: str = "s1", tool: str = "up__tool") -> Hold:
    return Hold(call, agent, session, tool, "up", amount, None, "held", True, False, 0, None, None, None)


def utc_day(now_us: int) -> tuple[int, int]:
    start = now_us // DAY * DAY
    return start, start + DAY
