"""Drills as they are asked for: one at a time, refused while everything is halted, each with its evidence in the audit log.

Owns `drill.started` and `drill.ended`, and the alert of one that failed. What a drill shows is `drill`'s.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from haltline.alerts.episodes import about
from haltline.alerts.model import Alert
from haltline.audit import Event, Kind
from haltline.clock import iso
from haltline.drill.drill import Drill, Endpoint
from haltline.errors import Conflict
from haltline.halts import EVERYTHING
from haltline.policy.drill import DRILL

if TYPE_CHECKING:
    from haltline.control.desk import Operator
    from haltline.drill.drill import How
    from haltline.health import Health
    from haltline.parts import Parts
    from haltline.store.writer import Tx
    from haltline.upstreams.drill import DrillUpstream
    from haltline_client.drill_results import Drilled

__all__ = ["ABOUT", "Drills"]

WHOLE_S = 80.0
"""A stop path that takes longer than 90 s to prove is not proved."""


class Drills:
    def __init__(self, parts: Parts, health: Health, upstream: DrillUpstream) -> None:
        self._parts = parts
        self._health = health
        self._upstream = upstream
        self._endpoint: Endpoint | None = None
        self._busy = anyio.Lock()

    def serve_at(self, endpoint: Endpoint) -> None:
        """Where its clients connect, once that is known."""
        self._endpoint = endpoint

    async def run(self, operator: Operator, *, agent: str | None = None, halt: bool = False) -> Drilled:
        """Drill the drill's own agent, or `agent` in a session of its own. Raises Conflict where none may run now."""
        fault = self._health.fault
        if self._endpoint is None or fault is not None:
            why = "the listener of agents is not up yet" if fault is None else fault.text
            raise Conflict(f"no drill can run now: {why}")
        try:
            self._busy.acquire_nowait()
        except anyio.WouldBlock:
            raise Conflict("a drill is running; look at the audit log for how it ends") from None
        try:
            how: How = "halt" if halt else "revoke"
            return await self._run(
                Drill(self._parts, self._upstream, self._endpoint, operator, how), operator, agent, how
            )
        finally:
            self._busy.release()

    async def _run(self, drill: Drill, operator: Operator, agent: str | None, how: How) -> Drilled:
        name, target = f"drl_{secrets.token_hex(8)}", agent or DRILL
        await self._parts.writer.run(lambda tx: self._started(tx, operator, name, target, how))
        over = False
        try:
            with anyio.move_on_after(WHOLE_S) as whole:
                await drill.run(target)
            if whole.cancelled_caught:
                drill.timeline.broken_off(f"it was not over within {WHOLE_S:g} s")
            over = True
        finally:
            if not over:
                drill.timeline.broken_off("it was broken off")
            with anyio.CancelScope(shield=True):
                result = _result(drill, name, target, how)
                result["at"] = await self._parts.writer.run(lambda tx: self._ended(tx, operator, result))
        return result

    def _started(self, tx: Tx, operator: Operator, name: str, agent: str, how: How) -> None:
        everything = self._parts.halts.get(tx, "everything", EVERYTHING)
        if everything is not None:
            raise Conflict(f"everything is halted ({everything.text}, by {everything.by}), which stops drills too")
        self._parts.audit.append(
            tx, Event(Kind.DRILL_STARTED, operator.actor, agent=agent, body={"drill": name, "how": how})
        )

    def _ended(self, tx: Tx, operator: Operator, result: Drilled) -> str:
        body: dict[str, Any] = {key: value for key, value in result.items() if key not in {"agent", "session", "at"}}
        event = Event(
            Kind.DRILL_ENDED, operator.actor, agent=result["agent"], session=result["session"] or None, body=body
        )
        seq = self._parts.audit.append(tx, event)
        outbox = self._parts.outbox
        if result["ok"]:  # what an earlier one told is over, everywhere
            outbox.resolve(tx, seq, outbox.episodes.live_about(tx, about(ABOUT)), operator.actor)
        else:
            outbox.enqueue(tx, seq, replace(ABOUT, code="drill.failed", text=_text(result), by=operator.actor))
        return iso(tx.now_us)


def _result(drill: Drill, name: str, agent: str, how: How) -> Drilled:
    failed = drill.timeline.failed
    return {
        "drill": name,
        "ok": failed is None,
        "agent": agent,
        "session": drill.session,
        "how": how,
        "failed": failed,
        "systems": 1,
        "took_ms": drill.timeline.took_ms,
        "at": "",
        "steps": drill.timeline.steps,
    }


ABOUT = Alert(kind=Kind.DRILL_ENDED.value, code="", text="", tool=DRILL, commands=("haltline drill",))
"""What drills tell is about them, and about no agent."""


def _text(result: Drilled) -> str:
    step = next(one for one in result["steps"] if one["state"] == "failed")
    return f"the drill failed at: {step['step']}: {step['text']}; do not trust the stop path until one has held"
