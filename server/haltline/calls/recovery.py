"""What brings the books right when something broke: outcomes that could not be written, holds that a crash left open,
calls in doubt whose deadline has come, answers that came too late (R10, R12).

Runs beside the calls, never in their path; while an outcome is unrecorded, nothing is dispatched.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from haltline.audit import Kind
from haltline.calls import records
from haltline.calls.billing import billed
from haltline.calls.dispatch import Outcome
from haltline.errors import HaltlineError, NotFound, StoreUnavailable
from haltline.policy.money import format_amount

if TYPE_CHECKING:
    from collections.abc import Callable

    from haltline.calls.late import Late
    from haltline.parts import Parts
    from haltline.store.writer import Tx, Writer

__all__ = ["Unrecorded", "charge_due", "doubt_left_holds", "record_late"]

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


async def record_late(parts: Parts) -> None:
    """Write what came after its call was given up, once the call has ended; for ever.

    It changes no hold: what was cancelled, stopped or overdue is in doubt, and only its own deadline or a person ends that
    (R10). What the answer would have cost is noted beside it, so that the person decides knowing it.
    """
    late = parts.calls.late
    while True:
        await late.came.wait()
        late.came = anyio.Event()
        while late.waiting:
            one = late.waiting.popleft()
            try:
                written = await parts.writer.run(partial(_record_late, parts=parts, one=one))
            except StoreUnavailable as error:
                log.error("late_answer_not_recorded", call=one.call, error=str(error))
                written = False
            if not written:
                late.waiting.append(one)
                await anyio.sleep(RETRY_EVERY_S)  # its call is about to end


def _record_late(tx: Tx, parts: Parts, one: Late) -> bool:
    """False: not yet."""
    try:
        hold = parts.ledger.get(tx, one.call)
    except NotFound:
        return True
    if hold.state == "held":
        return False
    outcome = Outcome("answered", one.answer)
    charge = billed(one.admitted, outcome, tx.now_us - hold.admitted_us)
    body: dict[str, Any] = {
        "outcome": outcome.layers(),
        "hold": hold.state,
        "would_charge_micros": charge.micros,
        "after_us": tx.now_us - hold.admitted_us,
    }
    if hold.state == "in_doubt":
        said = "it succeeded" if outcome.succeeded else "it failed"
        cost = format_amount(charge.micros)
        parts.ledger.note(tx, hold.id, f"{hold.why or 'unknown'}; a late answer says that {said}, at {cost}")
    payloads = {"result": one.answer} if one.whole else None
    records.resolved(tx, parts, hold, Kind.CALL_LATE_ANSWER, body, payloads)
    return True
