"""A store as years leave it: so many events, sessions, agents and holds, written by the broker's own code but for the wire.

The schema, ids, credentials, the chain, redaction and the signals' snapshots are the product's; what an event says is taken
from events that a broker wrote of real calls. Indexes are made once at the end, and nothing waits for the disk meanwhile.
"""

from __future__ import annotations

import hmac
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.audit import Audit, Event, Kind
from haltline.identity import AgentRow, Identity, SessionRow, new_id
from haltline.redact import Redactor
from haltline.signals.table import Signals
from haltline.store.database import connect_reader, connect_writer
from haltline.store.folder import DataFolder
from haltline.store.unit import Batch, Tx
from haltline.stored_json import loads

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BYTES_AN_EVENT", "EVENTS_A_S", "Sample", "grow", "sample_of"]

BYTES_AN_EVENT = 1_300
"""Roughly, with its payload and its share of a hold; what it takes on disk while indexes are made is in it."""
EVENTS_A_S = 12_000
"""Roughly, on a quiet machine."""
YEAR_US = 300 * 86_400_000_000
A_COMMIT = 20_000
AT_ONCE = 64
"""Sessions that call at one time."""
OPEN_FOR_US = 7 * 86_400_000_000
_COLUMNS = {
    "seq",
    "at_us",
    "kind",
    "actor",
    "agent",
    "agent_id",
    "session",
    "call",
    "tool",
    "upstream",
    "policy",
    "payloads",
}
_HOLD = (
    "INSERT INTO holds (id, agent_id, session_id, tool, upstream, amount_micros, charged_micros, state, charge_on_error,"
    " read_only, admitted_us, ended_us) VALUES (?,?,?,?,?,?,?,'settled',1,0,?,?)"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the two events of a call say beside its names."""

    allowed: Mapping[str, Any]
    succeeded: Mapping[str, Any]
    policy: str
    price_micros: int


def sample_of(database: Path) -> Sample:
    """From the newest call of a stopped broker's store."""
    with closing(connect_reader(database)) as store:
        bodies = {}
        for kind in ("call.allowed", "call.succeeded"):
            row = store.execute("SELECT body FROM events WHERE kind = ? ORDER BY seq DESC LIMIT 1", (kind,)).fetchone()
            bodies[kind] = loads(row[0])
    allowed = bodies["call.allowed"]
    own = {kind: {key: value for key, value in body.items() if key not in _COLUMNS} for kind, body in bodies.items()}
    return Sample(own["call.allowed"], own["call.succeeded"], allowed["policy"], allowed["amount_micros"])


def grow(
    data: Path,
    sample: Sample,
    *,
    events: int,
    sessions: int,
    agents: int,
    tools: list[tuple[str, str]],
    tiers: tuple[str, ...],
    say: Callable[[str], None],
) -> list[str]:
    """Fill the data folder `data`, which must not be there, up to now. Returns the sessions' credentials, the oldest first.

    `tools`: (name, upstream).
    """
    folder = DataFolder.claim(data)
    try:
        pepper, _ = folder.key("pepper", may_create=True), folder.key("signing", may_create=True)
        connect_writer(folder.database).close()
        with closing(sqlite3.connect(folder.database, isolation_level=None, cached_statements=256)) as store:
            return _Growing(store, pepper, sample, tools, say).run(events, sessions, agents, tiers)
    finally:
        folder.release()


class _Growing:
    def __init__(
        self,
        store: sqlite3.Connection,
        pepper: bytes,
        sample: Sample,
        tools: list[tuple[str, str]],
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._identity = Identity(pepper)
        self._audit = Audit(Redactor(()))
        self._signals = Signals(lambda: "UTC", hmac.digest(pepper, b"signals", "sha256"), remembered_max=1_000_000)
        self._audit.listener = self._signals.heard
        self._sample = sample
        self._tools = tools
        self._say = say

    def run(self, events: int, sessions: int, agents: int, tiers: tuple[str, ...]) -> list[str]:
        indexes = self._fast()
        end_us = time.time_ns() // 1_000
        tx = self._begin(end_us - YEAR_US)
        known = [self._agent(tx, number, tiers) for number in range(agents)]
        opened = [self._session(tx, known[number % agents], number, end_us) for number in range(sessions)]
        self._commit(tx)
        calls = max((events - agents - sessions) // 2, 0)
        self._calls([(known[number % agents], one) for number, (one, _) in enumerate(opened)], calls, end_us)
        tx = self._begin(end_us)
        while self._signals.save(tx):
            pass
        self._commit(tx)
        self._durable(indexes)
        return [token for _, token in opened]

    def _begin(self, now_us: int) -> Tx:
        self._store.execute("BEGIN")
        self._batch = Batch(self._store, now_us)
        return Tx(self._batch)

    def _commit(self, tx: Tx) -> None:
        tx.end()
        self._batch.write()
        self._store.execute("COMMIT")

    def _agent(self, tx: Tx, number: int, tiers: tuple[str, ...]) -> AgentRow:
        agent = self._identity.add_agent(tx, handle=f"grown-{number}", tier=tiers[number % len(tiers)])
        self._audit.append(
            tx,
            Event(Kind.AGENT_ADDED, "operator:admin", agent=agent.handle, agent_id=agent.id, body={"tier": agent.tier}),
        )
        return agent

    def _session(self, tx: Tx, agent: AgentRow, number: int, end_us: int) -> tuple[SessionRow, str]:
        session = self._identity.open_session(
            tx, agent, task=f"task {number}", expires_us=end_us + OPEN_FOR_US, opened_by="operator:admin"
        )
        body = {"task": session.task, "expires_us": session.expires_us}
        self._audit.append(
            tx,
            Event(
                Kind.SESSION_OPENED,
                "operator:admin",
                agent=agent.handle,
                agent_id=agent.id,
                session=session.id,
                body=body,
            ),
        )
        return session, self._identity.issue_session_credential(tx, session)

    def _calls(self, who: list[tuple[AgentRow, SessionRow]], calls: int, end_us: int) -> None:
        step_us, begun = YEAR_US // (calls + 1), time.monotonic()
        tx = self._begin(end_us - YEAR_US)
        for number, (agent, session) in enumerate(_turns(who, calls), start=1):
            tx.now_us = end_us - YEAR_US + number * step_us
            self._call(tx, agent, session, number)
            if number % A_COMMIT == 0:
                self._commit(tx)
                tx = self._begin(tx.now_us)  # the old one has a step for each event that it might roll back
            if number % (A_COMMIT * 10) == 0:
                took = time.monotonic() - begun
                self._say(
                    f"{2 * number:,} events of calls, {took:.0f} s, about {took / number * (calls - number):.0f} s to go"
                )
        self._commit(tx)

    def _call(self, tx: Tx, agent: AgentRow, session: SessionRow, number: int) -> None:
        """Its hold, which ended well, and its two events."""
        call, (tool, upstream) = new_id("call"), self._tools[number % len(self._tools)]
        text = f"the customer of order {number} asks where it is"
        arguments = {"text": text}
        same = {"same": self._signals.same(tool, arguments)} if "same" in self._sample.allowed else {}
        result = {"content": [{"type": "text", "text": text}], "isError": False}
        for kind, body, payloads in (
            (Kind.CALL_ALLOWED, {**self._sample.allowed, **same}, {"arguments": arguments}),
            (Kind.CALL_SUCCEEDED, self._sample.succeeded, {"result": result}),
        ):
            self._audit.append(
                tx,
                Event(
                    kind,
                    f"agent:{agent.handle}",
                    agent=agent.handle,
                    agent_id=agent.id,
                    session=session.id,
                    call=call,
                    tool=tool,
                    upstream=upstream,
                    policy=self._sample.policy,
                    body=body,
                    payloads=payloads,
                ),
            )
        micros = self._sample.price_micros
        tx.insert(_HOLD, (call, agent.id, session.id, tool, upstream, micros, micros, tx.now_us, tx.now_us))

    def _fast(self) -> list[str]:
        """Nothing durable, no index; what makes the indexes again."""
        self._store.execute("PRAGMA journal_mode = OFF")
        for pragma in ("synchronous = OFF", "foreign_keys = OFF", "cache_size = -2000000", "temp_store = FILE"):
            self._store.execute(f"PRAGMA {pragma}")
        found = self._store.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            " AND tbl_name IN ('events', 'payloads', 'holds')"
        ).fetchall()
        for name, _ in found:
            self._store.execute(f"DROP INDEX {name}")
        return [sql for _, sql in found]

    def _durable(self, indexes: list[str]) -> None:
        for sql in indexes:
            begun = time.monotonic()
            self._store.execute(sql)
            self._say(f"{' '.join(sql.split()[:3])}: {time.monotonic() - begun:.0f} s")
        self._store.execute("PRAGMA journal_mode = WAL")


def _turns(who: list[tuple[AgentRow, SessionRow]], calls: int) -> Iterator[tuple[AgentRow, SessionRow]]:
    """Sessions call in groups, one group after the other, so that each has its time in the year."""
    groups = [who[start : start + AT_ONCE] for start in range(0, len(who), AT_ONCE)]
    for number, group in enumerate(groups):
        share = calls * (number + 1) // len(groups) - calls * number // len(groups)
        yield from (group[turn % len(group)] for turn in range(share))
