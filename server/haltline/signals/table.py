"""Every agent's signals in memory, gone on from their snapshots, so that a start folds only what came after the last one.

The log is the truth. They always say what the writer's connection sees now: folded with each event, dropped when a unit
rolls back or a commit fails. Touched by units alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any

from haltline.signals import snapshots
from haltline.signals.facts import FOLDED, Fact
from haltline.signals.state import AgentSignals
from haltline.stored_json import json_text, loads

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["REMEMBERED_MAX", "Signals", "folded"]

REMEMBERED_MAX = 2_000
"""Of more agents than this the one loaded longest ago is let go of, and loaded again when touched."""
SAVED_PER_UNIT = 20
FOLDED_PER_UNIT = 5_000
LEFT_FOR_LATER = 500
"""So few events are folded when their agent is first heard of; more of them at the start."""
LOOKED_AT_PER_UNIT = 200


class Signals:
    """`zone` gives that of the policy in force; `key` hides arguments in the mark of a call (R30)."""

    def __init__(self, zone: Callable[[], str], key: bytes, remembered_max: int = REMEMBERED_MAX) -> None:
        self._zone = zone
        self._key = key
        self._most = remembered_max
        self._agents: dict[str, AgentSignals] = {}
        self._touched: dict[str, None] = {}
        self._unsaved: set[str] = set()
        self._caught_up = ""
        """At a start: the agent, by its id, up to which every history was looked at."""

    def forget(self) -> None:
        """Drop all that is remembered: a commit failed."""
        self._agents.clear()

    @property
    def waits(self) -> int:
        """How many agents have facts since `touched` named them."""
        return len(self._touched)

    def touched(self, most: int) -> list[str]:
        """Agents with facts since they were last named here, the one that waits longest first."""
        found = list(islice(self._touched, most))
        for agent_id in found:
            del self._touched[agent_id]
        return found

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
        self._touched[agent_id] = None
        self._unsaved.add(agent_id)

    def agent(self, tx: Tx, agent_id: str) -> AgentSignals:
        known, zone = self._agents.get(agent_id), self._zone()
        if known is None:
            if len(self._agents) >= self._most:
                self._let_go(tx)
            known = snapshots.read(tx, agent_id) or AgentSignals()
            while _fold_on(tx, agent_id, known, zone) == FOLDED_PER_UNIT:
                pass
            self._agents[agent_id] = known
        if known.zone != zone:
            known.rezone(zone)
        return known

    def _let_go(self, tx: Tx) -> None:
        """Of one, its snapshot written first, so that it need not be folded again."""
        agent_id = next(iter(self._agents))
        if agent_id in self._unsaved:
            snapshots.write(tx, agent_id, self._agents[agent_id])
            self._unsaved.discard(agent_id)
        del self._agents[agent_id]

    def _drop(self, agent_id: str) -> None:
        self._agents.pop(agent_id, None)

    # snapshots

    def save(self, tx: Tx) -> int:
        """Write the snapshots of some agents with new facts; returns how many are left."""
        for _ in range(min(SAVED_PER_UNIT, len(self._unsaved))):
            agent_id = self._unsaved.pop()
            state = self._agents.get(agent_id)
            if state is not None:
                snapshots.write(tx, agent_id, state)
        return len(self._unsaved)

    def in_other_zones(self, tx: Tx) -> list[str]:
        """Agents whose hours of the week are to be counted again, as their snapshots say."""
        return snapshots.in_other_zones(tx, self._zone())

    def counted(self, tx: Tx, agent_id: str, zone: str, up_to: int, week: list[int]) -> None:
        """The hours of the week of an agent's events up to one; of no use if the zone was changed again meanwhile."""
        state = self.agent(tx, agent_id)
        if (state.zone, state.week_after) == (zone, up_to):
            tx.on_rollback(lambda: self._drop(agent_id))
            state.counted(week)
            snapshots.write(tx, agent_id, state)

    def catch_up(self, tx: Tx) -> bool:
        """Fold some of what no snapshot says yet; False when little is left of every agent. Before agents are served."""
        zone = self._zone()
        agents = tx.execute(
            "SELECT id FROM agents WHERE id > ? ORDER BY id LIMIT ?", (self._caught_up, LOOKED_AT_PER_UNIT)
        ).fetchall()
        for (agent_id,) in agents:
            snapshots.usable(tx, agent_id)
            if _behind(tx, agent_id) >= LEFT_FOR_LATER:
                state = snapshots.read(tx, agent_id) or AgentSignals()
                _fold_on(tx, agent_id, state, zone)
                snapshots.write(tx, agent_id, state)
                return True
            self._caught_up = agent_id
        return bool(agents)


def folded(bodies: list[bytes], state: AgentSignals, time_zone: str) -> AgentSignals:
    """Stored events of one agent, in the order of the log, on top of a state."""
    for body in bodies:
        event = loads(body)
        if event["kind"] in FOLDED:
            state.fold(Fact.of(event["seq"], event["at_us"], event["kind"], event, event), time_zone)
        else:
            state.seq = event["seq"]
    return state


def _behind(tx: Tx, agent_id: str) -> int:
    """How many events its snapshot does not know, counted no further than matters."""
    row = tx.execute(
        "SELECT count(*) FROM (SELECT 1 FROM events WHERE agent_id = ?"
        " AND seq > coalesce((SELECT seq FROM signals WHERE agent_id = ?), 0) LIMIT ?)",
        (agent_id, agent_id, LEFT_FOR_LATER),
    ).fetchone()
    return int(row[0])


def _fold_on(tx: Tx, agent_id: str, state: AgentSignals, time_zone: str) -> int:
    rows = tx.execute(
        "SELECT body FROM events WHERE agent_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (agent_id, state.seq, FOLDED_PER_UNIT),
    ).fetchall()
    folded([row[0] for row in rows], state, time_zone)
    return len(rows)
