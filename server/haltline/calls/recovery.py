"""What brings the books right when something broke: outcomes that could not be written, holds that a crash left open,
calls in doubt whose deadline has come (R10, R12).

Runs beside the calls, never in their path; while an outcome is unrecorded, nothing is dispatched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog

from haltline.audit import Kind
from haltline.calls import records
from haltline.errors import HaltlineError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline.parts import Parts
    from haltline.store.writer import Tx, Writer

__all__ = ["Unrecorded", "charge_due", "doubt_left_holds"]

RETRY_EVERY_S = 0.25
DUE_EVERY_S = 5.0
DUE_PER_UNIT = 500
DOUBT_S = 86_400.0
"""How long a call stays in doubt where no policy says it."""
log = structlog.get_logger(__name__)


class Unrecorded:
    """Units that must still be written, in their order. Not empty means: dispatch nothing, `/readyz` false (R12)."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._units: dict[str, Callable[[Tx], None]] = {}
        self._woken = anyio.Event()

    @property
    def waiting(self) -> int:
        return len(self._units)

    def add(self, call: str, unit: Callable[[Tx], None]) -> None:
        self._units[call] = unit
        self._woken.set()

    async def run(self) -> None:
        """Try until each is written, for ever."""
        while True:
            await self._woken.wait()
            while self._units:
                if not await self.write():
                    await anyio.sleep(RETRY_EVERY_S)
            self._woken = anyio.Event()

    async def write(self) -> bool:
        """One try at all that waits; whether it is all written."""
        for call, unit in list(self._units.items()):
            try:
                await self._writer.run(unit, urgent=True)
            except StoreUnavailable:
                return False
            except HaltlineError as error:  # it was written after all, or the hold is gone: never try for ever
                log.error("outcome_not_writable", call=call, error=str(error))
            self._units.pop(call, None)
        return not self._units


async def doubt_left_holds(parts: Parts, charges_after_s: float) -> int:
    """At start: every hold that is still open belongs to a call that nobody knows the end of. Returns how many."""

    def sweep(tx: Tx) -> int:
        waiting = parts.rounds.waiting(tx)  # for their clients, who may still come (R14)
        left = [hold for hold in parts.ledger.left_held(tx) if hold.id not in waiting]
        for hold in left:
            why = "the broker stopped while it ran, so it may have run"
            records.left_in_doubt(tx, parts, hold, why, tx.now_us + int(charges_after_s * 1_000_000))
        return len(left)

    return await parts.writer.run(sweep)


def _doubt_abandoned(tx: Tx, parts: Parts) -> None:
    """Calls whose clients never brought what was asked for (R14)."""
    policy = parts.policies.current
    after_s = policy.doubt_charges_after_s if policy is not None else DOUBT_S
    for call in parts.rounds.abandoned(tx, DUE_PER_UNIT):
        hold = parts.ledger.get(tx, call)
        why = "its client never brought the input that was asked for"
        records.left_in_doubt(tx, parts, hold, why, tx.now_us + int(after_s * 1_000_000))


async def charge_due(parts: Parts) -> None:
    """Charge what is in doubt when its own deadline comes; what the operator declared read-only is voided (R10).

    What else has had its time goes with it: rounds nobody went on with, answers kept for a retry.
    """

    def sweep(tx: Tx) -> int:
        due = parts.ledger.due(tx)[:DUE_PER_UNIT]
        for hold in due:
            why = "nobody said what became of it before its deadline"
            if hold.read_only:
                parts.ledger.void(tx, hold.id, why)
            else:
                parts.ledger.settle(tx, hold.id, hold.amount_micros, why)
            charged = 0 if hold.read_only else hold.amount_micros
            body = {"why": why, "charged_micros": charged, "outcome": "void" if hold.read_only else "settle"}
            records.resolved(tx, parts, hold, Kind.CALL_RESOLVED, body)
        return len(due)

    while True:
        try:
            await parts.writer.run(lambda tx: _doubt_abandoned(tx, parts))
            while await parts.writer.run(sweep) == DUE_PER_UNIT:
                pass
            while await parts.writer.run(lambda tx: parts.replays.purge(tx, DUE_PER_UNIT)) == DUE_PER_UNIT:
                pass
        except StoreUnavailable as error:
            log.error("due_not_charged", error=str(error))
        await anyio.sleep(DUE_EVERY_S)
