"""The status: everything an operator looks at first, as of now. Not recorded: it shows no history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.clock import iso
from haltline.control.agents import AGENTS_A_UNIT, agent_state, today
from haltline.control.allowances import ALLOWANCES_MAX, shown_allowances
from haltline.control.views import Shown, shown_upstream
from haltline.halts import EVERYTHING

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.halts import HaltRow
    from haltline.health import Health
    from haltline.identity import AgentRow
    from haltline.ledger import Doubted
    from haltline.store.writer import Tx
    from haltline_client import cap_results as c
    from haltline_client import results as r
    from haltline_client import status_results as s

__all__ = ["StatusDesk"]

HALTS_MAX = 500


class StatusDesk:
    def __init__(self, desk: Desk, health: Health, version: str) -> None:
        self._desk = desk
        self._parts = desk.parts
        self._health = health
        self._version = version

    async def status(self, request: Request) -> s.Status:
        now_us, rows, in_doubt, store = await self._desk.act(request, self._first)
        handles = {agent.id: agent.handle for agent, _ in rows}
        halts = await self._parts.halts.standing(self._parts.reader, now_us, HALTS_MAX)
        granted = await self._parts.halts.granted_to_all(self._parts.reader, now_us, ALLOWANCES_MAX)
        allowances: list[c.Allowance] = []
        if granted:
            allowances = await self._parts.writer.run(lambda tx: shown_allowances(tx, self._parts, granted))
        agents: list[s.StatusAgent] = []
        for start in range(0, len(rows), AGENTS_A_UNIT):
            some = rows[start : start + AGENTS_A_UNIT]
            agents += await self._parts.writer.run(lambda tx, some=some: [self._agent(tx, *one) for one in some])  # type: ignore[misc]
        problem = self._health.problem
        return {
            "now": iso(now_us),
            "uptime_s": (now_us - self._health.started_us) / 1_000_000,
            "version": self._version,
            "policy": self._policy(),
            "ready": problem is None,
            "not_ready_because": problem,
            "halts": [_halt(halt, handles) for halt in halts],
            "allowances": allowances,
            "agents": agents,
            "in_doubt": self._in_doubt(in_doubt),
            "alerts": await self._parts.outbox.backlog(),  # type: ignore[typeddict-item]  # as the client names it
            "upstreams": [shown_upstream(self._parts, state) for state in self._parts.catalog.states()],
            "store": store,
        }

    def _first(self, tx: Tx, _: Operator) -> tuple[int, list[tuple[AgentRow, int]], Doubted, s.StatusStore]:
        pages, page_bytes = (tx.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        store: s.StatusStore = {
            "events": self._parts.audit.head(tx)[0],
            "size_bytes": pages * page_bytes + self._parts.writer.wal_bytes,
            "queue": self._parts.writer.waiting,
        }
        return tx.now_us, self._parts.identity.agents(tx), self._parts.ledger.doubted(tx), store

    def _agent(self, tx: Tx, agent: AgentRow, sessions_open: int) -> s.StatusAgent:
        now = today(tx, self._desk, agent)
        return {
            "agent": agent.handle,
            "tier": agent.tier,
            "state": agent_state(agent, self._parts.halts.on(tx, "", agent.id)),
            "sessions_open": sessions_open,
            **now,
        }

    def _policy(self) -> s.StatusPolicy:
        policies = self._parts.policies
        problems: list[object] = [
            {"file": one.file, "line": one.line, "key": one.key, "message": one.message} for one in policies.problems
        ]
        if policies.current is None:
            return {"version": "none", "mode": "refusing", "problems": problems}
        return {"version": policies.current.version, "mode": policies.current.mode, "problems": problems}

    def _in_doubt(self, found: Doubted) -> s.StatusInDoubt:
        return {
            "count": found.calls,
            "amount": Shown(self._parts.policies.current).money(found.amount_micros),
            "oldest_at": None if found.oldest_us is None else iso(found.oldest_us),
            "charges_at": None if found.charges_at_us is None else iso(found.charges_at_us),
        }


def _halt(halt: HaltRow, handles: dict[str, str]) -> r.Halt:
    targets = {"session": halt.subject_id, "everything": EVERYTHING}
    return {
        "target": targets.get(halt.scope) or handles.get(halt.subject_id, halt.subject_id),
        "scope": halt.scope,
        "code": halt.code,
        "text": halt.text,
        "by": halt.by,
        "since": iso(halt.set_us),
    }
