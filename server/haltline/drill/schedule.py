"""The drill that runs by itself (`drill: {every: 7d}`), and the alert where none has held for longer than that.

Looks in the audit log for the last drill that held, whoever ran it. One that cannot run now is tried again soon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import orjson
import structlog

from haltline.audit import RARE, Event, Kind
from haltline.control.desk import Operator
from haltline.drill.runs import ABOUT
from haltline.errors import HaltlineError

if TYPE_CHECKING:
    from haltline.drill.runs import Drills
    from haltline.parts import Parts
    from haltline.store.writer import Tx

__all__ = ["Schedule"]

LOOK_EVERY_S = 30.0
AGAIN_AFTER_US = 600_000_000
"""After one that did not hold, or could not run."""
LATE_US = 3_600_000_000
"""So long after it was due it is overdue."""
_LOOKED_AT = 100
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Broker(Operator):
    @property
    def actor(self) -> str:
        return "broker"


class Schedule:
    def __init__(self, parts: Parts, drills: Drills, every_s: float) -> None:
        self._parts = parts
        self._drills = drills
        self._every_us = int(every_s * 1_000_000)
        self._started_us = parts.clock.now_us()
        self._not_before_us = 0
        self._told_us = -1

    async def run(self) -> None:
        while True:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Drill if one is due; tell if it is overdue."""
        now_us = self._parts.clock.now_us()
        held_us = await self._held_us()
        due_us = self._started_us if held_us is None else held_us + self._every_us
        if now_us < due_us:
            return
        if now_us >= self._not_before_us:
            self._not_before_us = now_us + AGAIN_AFTER_US
            try:
                if (await self._drills.run(_Broker("broker", "local")))["ok"]:
                    return
            except HaltlineError as error:
                log.warning("drill_not_run", why=str(error))
        if now_us >= due_us + LATE_US and self._told_us != due_us:
            try:
                await self._parts.writer.run(lambda tx: self._overdue(tx, held_us))
                self._told_us = due_us
            except HaltlineError as error:
                log.error("drill_overdue_not_told", error=str(error))

    async def _held_us(self) -> int | None:
        rows = await self._parts.reader.rows(
            f"SELECT at_us, body FROM events WHERE kind = ? AND {RARE} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - a constant
            (Kind.DRILL_ENDED, _LOOKED_AT),
        )
        return next((row["at_us"] for row in rows if orjson.loads(row["body"]).get("ok")), None)

    def _overdue(self, tx: Tx, held_us: int | None) -> None:
        days = self._every_us / 86_400_000_000
        text = (
            f"no drill has held for longer than the {days:g} days of the configuration; run one, and see why none does"
        )
        body = {"held_us": held_us, "every_us": self._every_us}
        seq = self._parts.audit.append(tx, Event(Kind.DRILL_OVERDUE, "broker", body=body))
        alert = replace(ABOUT, kind=Kind.DRILL_OVERDUE.value, code="drill.overdue", text=text, by="broker")
        self._parts.outbox.enqueue(tx, seq, alert)
