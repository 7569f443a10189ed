"""Calls in doubt: sent, with an outcome that nobody knows, and a person's word on each (R10).

What is settled or voided here ends its hold exactly once (P7). An amount over the hold is what the upstream billed above its
price: recorded as it is, shown as overage, and a halt as where the upstream says it itself (P2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from haltline.audit import Event, Kind
from haltline.clock import iso
from haltline.control.views import Shown
from haltline.errors import Conflict, RequestError
from haltline.overage import Overage
from haltline.policy.money import parse_amount
from haltline.rules.afterwards import Ended, ask_at_end

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.ledger import Hold
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["Money"]

IN_DOUBT_MAX = 1_000


class Money:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def list_in_doubt(self, request: Request) -> r.InDoubtList:
        """The calls in doubt, those that are charged first in front, at most `IN_DOUBT_MAX`."""

        def unit(tx: Tx, _: Operator) -> list[r.InDoubt]:
            return [self._shown(tx, hold) for hold in self._parts.ledger.in_doubt(tx, IN_DOUBT_MAX)]

        return {"calls": await self._desk.act(request, unit)}

    def _shown(self, tx: Tx, hold: Hold) -> r.InDoubt:
        since_us = hold.doubt_us if hold.doubt_us is not None else hold.admitted_us
        return {
            "call": hold.id,
            "agent": self._parts.identity.agent_by_id(tx, hold.agent_id).handle,
            "session": hold.session_id,
            "tool": hold.tool,
            "amount": Shown(self._parts.policies.current).money(hold.amount_micros),
            "since": iso(since_us),
            "age_s": (tx.now_us - since_us) / 1_000_000,
            "charges_at": None if hold.charges_at_us is None else iso(hold.charges_at_us),
            "then": "void" if hold.read_only else "settle",
            "why": hold.why or "",
        }

    async def resolve_in_doubt(
        self,
        request: Request,
        *,
        call: str,
        outcome: Literal["settle", "void"],
        reason: str,
        amount: str | None = None,
    ) -> r.Resolved:
        """It happened: charge it (`amount`, default its full hold). It did not: give its hold back."""
        why = self._desk.why(reason)
        asked = _amount(outcome, amount)

        def unit(tx: Tx, operator: Operator) -> tuple[int, int, tuple[str, ...]]:
            hold = self._parts.ledger.get(tx, call)
            if hold.state != "in_doubt":
                raise Conflict(f"call {call} is {_WORDS[hold.state]}, not in doubt, so there is nothing to decide")
            charged = 0 if outcome == "void" else hold.amount_micros if asked is None else asked
            said = f"{operator.actor}: {why}"
            if outcome == "void":
                self._parts.ledger.void(tx, call, said)
            else:
                self._parts.ledger.settle(tx, call, charged, said)
            self._record(tx, operator, request, hold, outcome, charged, why)
            return charged, charged - hold.amount_micros, self._halt(tx, hold, charged)

        charged, over, halted = await self._desk.act(request, unit)
        shown = Shown(self._parts.policies.current)
        resolved: r.Resolved = {"call": call, "outcome": outcome, "amount": shown.money(charged)}
        return resolved if over <= 0 else {**resolved, "overage": shown.money(over), "halted": list(halted)}

    def _halt(self, tx: Tx, hold: Hold, charged: int) -> tuple[str, ...]:
        if charged <= hold.amount_micros:
            return ()
        identity, policy = self._parts.identity, self._parts.policies.current
        agent = identity.agent_by_id(tx, hold.agent_id)
        who = identity.principal(tx, agent, identity.session(tx, hold.session_id))
        version = None if policy is None else policy.version
        over = Overage(who, hold.id, hold.tool, hold.upstream, hold.amount_micros, charged, version)
        end = Ended(hold.id, hold.tool, hold.upstream, hold.admitted_us, charged, grew=True, failed=False)
        return over.halt(tx, self._parts) + ask_at_end(tx, self._parts, who, end)

    def _record(
        self,
        tx: Tx,
        operator: Operator,
        request: Request,
        hold: Hold,
        outcome: Literal["settle", "void"],
        charged: int,
        why: str,
    ) -> None:
        policy = self._parts.policies.current
        body = {
            "act": request.act,
            "from": request.source,
            "outcome": outcome,
            "reason": why,
            "amount_micros": hold.amount_micros,
            "admitted_us": hold.admitted_us,
            "charged_micros": charged,
        }
        if charged > hold.amount_micros:
            body["overage_micros"] = charged - hold.amount_micros
        self._parts.audit.append(
            tx,
            Event(
                Kind.CALL_RESOLVED,
                operator.actor,
                agent=self._parts.identity.agent_by_id(tx, hold.agent_id).handle,
                agent_id=hold.agent_id,
                session=hold.session_id,
                call=hold.id,
                tool=hold.tool,
                upstream=hold.upstream,
                policy=None if policy is None else policy.version,
                body=body,
            ),
        )


_WORDS = {"held": "still running", "settled": "settled already", "voided": "voided already", "in_doubt": "in doubt"}


def _amount(outcome: str, amount: str | None) -> int | None:
    if amount is None:
        return None
    if outcome == "void":
        raise RequestError("amount: a voided call costs nothing; leave the amount out, or settle")
    try:
        return parse_amount(amount)
    except ValueError as error:
        raise RequestError(f"amount: {error}") from None
