"""What a call writes: its hold, how the hold ends, its audit events and the halt it may cause, all inside one unit.

Called by `Broker` in its two transactions and by `recovery`. Decides nothing about the call itself.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from haltline.audit import Event, Kind
from haltline.calls.billing import billed
from haltline.errors import Conflict, NotFound
from haltline.facts import as_recorded
from haltline.overage import Overage
from haltline.policy.drill import DRILL, is_drill
from haltline.policy.model import Halt
from haltline.rules.afterwards import Ended
from haltline.rules.firing import halted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haltline.calls.admission import Dead
    from haltline.calls.call import Admitted, CallRequest
    from haltline.calls.dispatch import Outcome
    from haltline.calls.judging import Judged
    from haltline.calls.replays import Keyed
    from haltline.calls.running import Running
    from haltline.ledger import Hold
    from haltline.parts import Parts
    from haltline.policy.model import Allow, Deny, Principal, Reason
    from haltline.store.writer import Tx
    from haltline.upstreams.catalog import Tool

__all__ = [
    "Said",
    "allowed",
    "continued",
    "denied_dead",
    "ended",
    "left_in_doubt",
    "refused",
    "replayed",
    "resolved",
    "undo",
    "upstream_of",
    "waits_for_input",
]


DOUBT_US = 86_400_000_000
"""How long a call stays in doubt where no policy is at hand to say it."""


class Said(NamedTuple):
    """Everything that the decision was made from, for its event (R30)."""

    who: Principal
    request: CallRequest
    call: str
    tool: Tool | None
    policy: str | None
    judged: Judged
    keyed: Keyed | None = None
    marks: Mapping[str, str] = MappingProxyType({})
    """What signals read of an admitted call."""

    def event(self, kind: Kind, body: Mapping[str, Any]) -> Event:
        described = {**body, "from": self.request.source}
        if self.request.method != "tools/call":
            described["method"] = self.request.method
        if self.tool is not None:
            described["tool_digest"] = self.tool.digest
        if is_drill(self.who):
            described["drill"] = True
        if self.keyed is not None:
            described["idempotency"] = self.keyed.mark.hex()
        if self.judged.above:
            described["owner"] = None if self.judged.owner is None else self.judged.owner.session_id
            described["above"] = {session: as_recorded(facts) for session, facts in self.judged.above.items()}
        return Event(
            kind,
            f"agent:{self.who.agent}",
            agent=self.who.agent,
            agent_id=self.who.agent_id,
            session=self.who.session_id or None,
            call=self.call,
            tool=self.request.tool,
            upstream=None if self.tool is None else upstream_of(self.who, self.tool),
            policy=self.policy,
            body=described,
            facts=as_recorded(self.judged.facts),
            payloads={"arguments": self.request.arguments},
        )


def upstream_of(who: Principal, tool: Tool) -> str:
    """Under which name a call is kept: a drill's are all the drill's own, for no cap and no rule of its agent counts them."""
    return DRILL if is_drill(who) else tool.upstream


def allowed(tx: Tx, parts: Parts, said: Said, allow: Allow) -> None:
    body: dict[str, Any] = {"decision": "allow", "amount_micros": allow.amount_micros, "price": allow.price}
    body |= said.marks
    if allow.read_only:
        body["read_only"] = True
    if not allow.charge_on_error:
        body["charge_on_error"] = False
    if allow.would_deny:
        body["would_deny"] = _reasons(allow.would_deny)
    parts.audit.append(tx, said.event(Kind.CALL_ALLOWED, body))


def continued(tx: Tx, parts: Parts, said: Said) -> None:
    """A round of a call that was admitted before: no new hold, no new price (R14)."""
    parts.audit.append(tx, said.event(Kind.CALL_CONTINUED, {"decision": "allow"}))


def replayed(tx: Tx, parts: Parts, said: Said) -> None:
    """The first answer of a call is given again: nothing was sent and nothing is charged (R13)."""
    parts.audit.append(tx, said.event(Kind.CALL_REPLAYED, {"decision": "replay", "replay_of": said.call}))


def waits_for_input(
    tx: Tx, parts: Parts, call: str, nonce: str, admitted: Admitted, request: CallRequest, asked: Mapping[str, Any]
) -> None:
    """Its upstream asked for input: the hold stays until the client brings it, or its time is over."""
    deadline_us = parts.rounds.begin(
        tx, call, nonce, admitted.who, f"{request.method} {request.tool}", request.arguments
    )
    event = _of_call(Kind.CALL_INPUT_REQUIRED, call, admitted, {"waits_until_us": deadline_us}, {"result": asked})
    parts.audit.append(tx, event)


def refused(tx: Tx, parts: Parts, said: Said, decision: Deny | Halt) -> None:
    """The refused call, and where a cap was reached the halt with its alert, in the same transaction."""
    halts = isinstance(decision, Halt)
    if halts:
        tx.will_ask()
    body = {"decision": "halt" if halts else "deny", "reasons": _reasons(decision.reasons)}
    parts.audit.append(tx, said.event(Kind.CALL_DENIED, body))
    if isinstance(decision, Halt):
        owner = said.judged.owner or said.who  # a breached cap halts its owner (R20)
        halted(tx, parts, owner, decision, said.policy, call=said.call, tool=said.request.tool)


def denied_dead(tx: Tx, parts: Parts, call: str, dead: Dead, request: CallRequest) -> None:
    """A call with a credential that has ended."""
    drilled = {"drill": True} if dead.drilled else {}
    parts.audit.append(
        tx,
        Event(
            Kind.CALL_DENIED,
            f"agent:{dead.agent.handle}",
            agent=dead.agent.handle,
            agent_id=dead.agent.id,
            session=dead.session_id,
            call=call,
            tool=request.tool,
            body={"decision": "deny", "reasons": _reasons([dead.reason]), "from": request.source, **drilled},
            payloads={"arguments": request.arguments},
        ),
    )


def ended(tx: Tx, parts: Parts, running: Running, admitted: Admitted, outcome: Outcome) -> Ended:
    """End the hold of an admitted call, exactly once, and say how (P7)."""
    held, ran_us, tool = admitted.allow.amount_micros, tx.now_us - admitted.admitted_us, admitted.tool
    body: dict[str, Any] = {"outcome": outcome.layers(), "duration_us": ran_us}
    bill = billed(admitted, outcome, ran_us) if outcome.kind == "answered" else None
    over = 0 if bill is None else bill.micros - held
    if over > 0 or not outcome.succeeded:
        tx.will_ask()  # it may halt
    if running.stopped is not None:
        body["withheld"] = running.stopped.code
    if bill is not None:
        parts.ledger.settle(tx, running.id, bill.micros, bill.why or None)
        kind = Kind.CALL_SUCCEEDED if outcome.succeeded else Kind.CALL_FAILED
        body["charged_micros"] = bill.micros
        body |= {"charged_because": bill.why} if bill.why else {}
        body |= {"overage_micros": over} if over > 0 else {}
    elif outcome.kind == "unsent":
        parts.ledger.void(tx, running.id, outcome.text)
        kind = Kind.CALL_VOIDED
        body |= {"why": outcome.text, "charged_micros": 0}
    else:
        charges_at_us = tx.now_us + int(admitted.doubt_charges_after_s * 1_000_000)
        parts.ledger.doubt(tx, running.id, outcome.text, charges_at_us)
        kind = Kind.CALL_IN_DOUBT
        body |= {"why": outcome.text, "charges_at_us": charges_at_us}
    body["amount_micros"] = held
    payloads = None if outcome.answer is None else {"result": outcome.answer}
    parts.audit.append(tx, _of_call(kind, running.id, admitted, body, payloads))
    if over > 0:
        version = admitted.policy_version
        Overage(admitted.who, running.id, tool.name, tool.upstream, held, held + over, version).halt(tx, parts)
    failed = kind is not Kind.CALL_SUCCEEDED and running.stopped is None
    charged = 0 if bill is None else bill.micros
    return Ended(running.id, tool.name, tool.upstream, admitted.admitted_us, charged, over > 0, failed)


def _of_call(
    kind: Kind, call: str, admitted: Admitted, body: Mapping[str, Any], payloads: Mapping[str, Any] | None
) -> Event:
    who = admitted.who
    return Event(
        kind,
        f"agent:{who.agent}",
        agent=who.agent,
        agent_id=who.agent_id,
        session=who.session_id or None,
        call=call,
        tool=admitted.tool.name,
        upstream=upstream_of(who, admitted.tool),
        policy=admitted.policy_version,
        body={**body, "drill": True} if is_drill(who) else body,
        payloads=payloads,
    )


def undo(tx: Tx, parts: Parts, call: str, continued: str | None) -> None:
    """After a COMMIT that failed: if its hold is there after all, nothing was sent for it.

    A call that was to go on, and whose round is used up after all, did run in part: it is in doubt.
    """
    why = "its commit failed, so nothing was sent"
    try:
        hold = parts.ledger.void(tx, call, why)
    except (NotFound, Conflict):
        pass
    else:
        resolved(tx, parts, hold, Kind.CALL_VOIDED, {"why": why, "charged_micros": 0})
    if continued is not None and not parts.rounds.waits(tx, continued):
        try:
            hold = parts.ledger.get(tx, continued)
        except NotFound:
            return
        if hold.state == "held":
            left_in_doubt(tx, parts, hold, "a round of it could not be recorded", tx.now_us + DOUBT_US)


def left_in_doubt(tx: Tx, parts: Parts, hold: Hold, why: str, charges_at_us: int) -> None:
    """A hold that nobody works on any more: in doubt, never resent (R10)."""
    parts.ledger.doubt(tx, hold.id, why, charges_at_us)
    resolved(tx, parts, hold, Kind.CALL_IN_DOUBT, {"why": why, "charges_at_us": charges_at_us})


def resolved(
    tx: Tx,
    parts: Parts,
    hold: Hold,
    kind: Kind,
    body: Mapping[str, Any],
    payloads: Mapping[str, Any] | None = None,
) -> None:
    """The event of a hold whose call is over: it ended after a crash or at its deadline, or was answered late."""
    handle = parts.identity.agent_by_id(tx, hold.agent_id).handle
    drilled = {"drill": True} if hold.upstream == DRILL else {}
    parts.audit.append(
        tx,
        Event(
            kind,
            "broker",
            agent=handle,
            agent_id=hold.agent_id,
            session=hold.session_id,
            call=hold.id,
            tool=hold.tool,
            upstream=hold.upstream,
            body={**body, **drilled, "amount_micros": hold.amount_micros, "admitted_us": hold.admitted_us},
            payloads=payloads,
        ),
    )


def _reasons(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    return [reason.stored() for reason in reasons]
