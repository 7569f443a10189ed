"""Every agent's signals in memory, and their snapshots, so that a start folds only what came after the last one.

Owns the table signals; the log is the truth, a snapshot only saves reading it. They always say what the writer's connection
sees now: folded with each event, dropped when a unit rolls back or a commit fails. Touched in the writer thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from haltline.signals.facts import FOLDED, Fact
from haltline.signals.state import AgentSignals
from haltline.stored_json import json_text, loads

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["REMEMBERED_MAX", "Signals", "folded"]

REMEMBERED_MAX = 2_000
"""More agents than this are all dropped, and loaded again when touched."""
SAVED_PER_UNIT = 20
FOLDED_PER_UNIT = 5_000


class Signals:
    """`zone` gives that of the policy in force; `key` hides arguments in the mark of a call (R30)."""

    def __init__(self, zone: Callable[[], str], key: bytes, remembered_max: int = REMEMBERED_MAX) -> None:
        self._zone = zone
        self._key = key
        self._most = remembered_max
        self._agents: dict[str, AgentSignals] = {}
        self._touched: set[str] = set()
        self._unsaved: set[str] = set()

    def forget(self) -> None:
        """Drop all that is remembered; in the writer thread: a commit failed, or the policy's zone changed."""
        self._agents.clear()

    @property
    def waits(self) -> bool:
        """Something was folded since `touched` was last asked."""
        return bool(self._touched)

    def touched(self, most: int) -> list[str]:
        """Agents with facts since they were last named here."""
        return [self._touched.pop() for _ in range(min(most, len(self._touched)))]

    def same(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Equal for calls of one tool with equal arguments, and saying nothing of them."""
        return blake2b(f"{tool} {json_text(arguments)}".encode(), digest_size=8, key=self._key).hexdigest()

    def heard(
        self, tx: Tx, seq: int, kind: str, agent_id: str, named: Mapping[str, Any], body: Mapping[str, Any]
    ) -> None:
        """An event was written in this transaction."""
        if kind not in FOLDED:
            return
        state = self._agents.get(agent_id)
        tx.on_rollback(lambda: self._drop(agent_id))
        if state is None:
            self.agent(tx, agent_id)  # which reads this event too
        else:
            state.fold(Fact.of(seq, tx.now_us, kind, named, body), self._zone())
        self._touched.add(agent_id)
        self._unsaved.add(agent_id)

    def agent(self, tx: Tx, agent_id: str) -> AgentSignals:
        known = self._agents.get(agent_id)
        if known is None:
            if len(self._agents) >= self._most:
                self._agents.clear()
            zone = self._zone()
            known = _loaded(tx, agent_id, zone)
            while _fold_on(tx, agent_id, known, zone) == FOLDED_PER_UNIT:
                pass
            self._agents[agent_id] = known
        return known

    def _drop(self, agent_id: str) -> None:
        self._agents.pop(agent_id, None)

    # snapshots

    def save(self, tx: Tx) -> int:
        """Write the snapshots of some agents with new facts; returns how many are left."""
        zone = self._zone()
        for _ in range(min(SAVED_PER_UNIT, len(self._unsaved))):
            agent_id = self._unsaved.pop()
            state = self._agents.get(agent_id)
            if state is not None:
                _save(tx, agent_id, state, zone)
        return len(self._unsaved)

    def catch_up(self, tx: Tx) -> bool:
        """Fold some of a long history that has no snapshot yet; False when none is left. Before agents are served."""
        row = tx.execute(
            "SELECT agents.id FROM agents LEFT JOIN signals ON signals.agent_id = agents.id"
            " WHERE (SELECT count(*) FROM (SELECT 1 FROM events WHERE events.agent_id = agents.id"
            " AND events.seq > coalesce(signals.seq, 0) LIMIT ?)) = ? LIMIT 1",
            (FOLDED_PER_UNIT, FOLDED_PER_UNIT),
        ).fetchone()
        if row is None:
            return False
        zone = self._zone()
        state = _loaded(tx, row[0], zone)
        _fold_on(tx, row[0], state, zone)
        _save(tx, row[0], state, zone)
        return True


def folded(bodies: list[bytes], state: AgentSignals, time_zone: str) -> AgentSignals:
    """Stored events of one agent, in the order of the log, on top of a state."""
    for body in bodies:
        event = loads(body)
        if event["kind"] in FOLDED:
            state.fold(Fact.of(event["seq"], event["at_us"], event["kind"], event, event), time_zone)
        else:
            state.seq = event["seq"]
    return state


def _loaded(tx: Tx, agent_id: str, time_zone: str) -> AgentSignals:
    row = tx.execute("SELECT time_zone, state FROM signals WHERE agent_id = ?", (agent_id,)).fetchone()
    if row is None or row[0] != time_zone:
        return AgentSignals()
    return AgentSignals.loaded(orjson.loads(row[1]))


def _fold_on(tx: Tx, agent_id: str, state: AgentSignals, time_zone: str) -> int:
    rows = tx.execute(
        "SELECT body FROM events WHERE agent_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (agent_id, state.seq, FOLDED_PER_UNIT),
    ).fetchall()
    folded([row[0] for row in rows], state, time_zone)
    return len(rows)


def _save(tx: Tx, agent_id: str, state: AgentSignals, zone: str) -> None:
    data = orjson.dumps(state.stored(), option=orjson.OPT_NON_STR_KEYS)
    tx.execute(
        "INSERT INTO signals (agent_id, seq, time_zone, state) VALUES (?,?,?,?) ON CONFLICT (agent_id)"
        " DO UPDATE SET seq = excluded.seq, time_zone = excluded.time_zone, state = excluded.state",
        (agent_id, state.seq, zone, data),
    )
