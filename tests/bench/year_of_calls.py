"""A year of calls of many agents, hour by hour, written by the broker's own code but for the wire and the decision.

Schema, ids, events and their chain, holds, and the signals with their snapshots are the product's: each event is folded as
it is written. Indexes are made at the end, and nothing waits for the disk meanwhile.
"""

from __future__ import annotations

import hmac
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from haltline.audit import Audit, Event, Kind
from haltline.identity import AgentRow, Identity, SessionRow, new_id
from haltline.redact import Redactor
from haltline.signals.table import Signals
from haltline.store.database import connect_writer
from haltline.store.folder import DataFolder
from haltline.store.unit import Batch, Tx

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DAY_US", "HOUR_US", "signals_of", "write"]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
HOURS_A_DAY = 6
"""Of each agent, on weekdays; a quarter of the agents work at night and on weekends too."""
A_COMMIT = 10_000
TOOL, UPSTREAM = "http__echo", "http"
FACTS = {"task": [0, 0], "hour": [0, 0], "day": [0, 0], "calls": [0, 0], "running": 0}
_HOLD = (
    "INSERT INTO holds (id, agent_id, session_id, tool, upstream, amount_micros, charged_micros, state, charge_on_error,"
    " read_only, admitted_us, ended_us) VALUES (?,?,?,?,?,?,?,'settled',1,0,?,?)"
)


def signals_of(folder: DataFolder, zone: str) -> Signals:
    """As the broker has them, for any number of agents."""
    pepper = folder.key("pepper", may_create=False)
    return Signals(lambda: zone, hmac.digest(pepper, b"signals", "sha256"), remembered_max=1_000_000)


def write(data: Path, *, agents: int, days: int, tier: str, zone: str, say: Callable[[str], None]) -> int:
    """Fill the data folder, which must not be there, up to an hour ago. Returns how many calls it holds."""
    folder = DataFolder.claim(data)
    try:
        pepper, _ = folder.key("pepper", may_create=True), folder.key("signing", may_create=True)
        connect_writer(folder.database).close()
        with closing(sqlite3.connect(folder.database, isolation_level=None, cached_statements=256)) as store:
            return _Year(store, Identity(pepper), signals_of(folder, zone), say).write(agents, days, tier)
    finally:
        folder.release()


class _Year:
    def __init__(
        self, store: sqlite3.Connection, identity: Identity, signals: Signals, say: Callable[[str], None]
    ) -> None:
        self._store = store
        self._identity = identity
        self._signals = signals
        self._audit = Audit(Redactor(()))
        self._audit.listener = signals.heard
        self._say = say
        self._calls = 0

    def write(self, agents: int, days: int, tier: str) -> int:
        indexes = self._fast()
        until = time.time_ns() // 1_000 // HOUR_US - 1
        first = until - days * 24
        self._begin(first * HOUR_US)
        known = [self._agent(number, tier, until) for number in range(agents)]
        begun = time.monotonic()
        for hour in range(first, until):
            for number, (agent, session) in enumerate(known):
                if _works(number, hour):
                    self._call(agent, session, hour * HOUR_US + number * HOUR_US // agents)
            if (hour - first) % (24 * 30) == 24 * 30 - 1:
                took = time.monotonic() - begun
                self._say(f"{self._calls:,} calls in {took:.0f} s, {(hour - first) // 24 + 1} of {days} days")
        while self._signals.save(self._tx):
            pass
        self._commit()
        for sql in indexes:
            self._store.execute(sql)
        self._store.execute("PRAGMA journal_mode = WAL")
        return self._calls

    def _begin(self, now_us: int) -> None:
        self._store.execute("BEGIN")
        self._batch = Batch(self._store, now_us)
        self._tx = Tx(self._batch)

    def _commit(self) -> None:
        self._tx.end()
        self._batch.write()
        self._store.execute("COMMIT")

    def _agent(self, number: int, tier: str, until: int) -> tuple[AgentRow, SessionRow]:
        agent = self._identity.add_agent(self._tx, handle=f"agent-{number}", tier=tier)
        session = self._identity.open_session(
            self._tx, agent, task="a year's work", expires_us=until * HOUR_US, opened_by="operator:admin"
        )
        return agent, session

    def _call(self, agent: AgentRow, session: SessionRow, at_us: int) -> None:
        """Its hold, which ended well, and its two events."""
        call, tx = new_id("call"), self._tx
        self._calls += 1
        tx.now_us = at_us
        micros = 10_000 + self._calls % 7 * 1_000
        marks = {
            "same": self._signals.same(TOOL, {"text": f"{self._calls}"}),
            "destination": f"payee-{self._calls % 5}",
        }
        allowed = {"decision": "allow", "amount_micros": micros, "price": "0.01", "facts": FACTS, **marks}
        ended = {"outcome": {"transport": "ok"}, "duration_us": 0, "charged_micros": micros, "amount_micros": micros}
        for kind, body in ((Kind.CALL_ALLOWED, allowed), (Kind.CALL_SUCCEEDED, ended)):
            named = {"agent": agent.handle, "agent_id": agent.id, "session": session.id, "call": call}
            self._audit.append(
                tx, Event(kind, f"agent:{agent.handle}", **named, tool=TOOL, upstream=UPSTREAM, body=body)
            )
        tx.insert(_HOLD, (call, agent.id, session.id, TOOL, UPSTREAM, micros, micros, at_us, at_us))
        if self._calls % A_COMMIT == 0:
            self._commit()
            self._begin(at_us)

    def _fast(self) -> list[str]:
        """Nothing durable, no index; what makes the indexes again."""
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -500000"):
            self._store.execute(f"PRAGMA {pragma}")
        found = self._store.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            " AND tbl_name IN ('events', 'holds')"
        ).fetchall()
        for name, _ in found:
            self._store.execute(f"DROP INDEX {name}")
        return [sql for _, sql in found]


def _works(number: int, hour: int) -> bool:
    begins = 7 + number % 5
    if number % 4 == 3:
        return hour % 4 == number // 4 % 4  # around the clock
    return (hour // 24 + 3) % 7 < 5 and begins <= hour % 24 < begins + HOURS_A_DAY
