"""What follows when an upstream billed more than was held: its session halts, and whoever has a cap that this broke (P2).

Runs inside the transaction that settles, whoever settles: the true amount, the halts and their alerts commit together, so
that the next call finds the halt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.alarm import alarm
from haltline.audit import Event, Kind
from haltline.facts import gather
from haltline.policy.model import CapKind, Reason
from haltline.policy.money import format_amount
from haltline.standings import standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haltline.halts import HaltScope
    from haltline.parts import Parts
    from haltline.policy.balance import Balance
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["OVERAGE", "Overage"]

OVERAGE = "charge.overage"
_PASSABLE = frozenset({CapKind.TASK, CapKind.HOUR, CapKind.DAY})


@dataclass(frozen=True, slots=True)
class Overage:
    """One call that cost more than its hold."""

    who: Principal
    call: str
    tool: str
    upstream: str
    held_micros: int
    charged_micros: int
    policy_version: str | None

    def halt(self, tx: Tx, parts: Parts) -> tuple[str, ...]:
        """Stop the session, and the owner of each cap that is passed now (R20). Returns whom this halted."""
        policy = parts.policies.current
        passed = [] if policy is None else list(self._passed(tx, parts, policy))
        currency = "" if policy is None else policy.currency
        halted = [self._halt(tx, parts, owner, one, self._reason(currency, one)) for owner, one in passed]
        if all(one.session != self.who.session_id for _, one in passed):
            halted.insert(0, self._halt(tx, parts, self.who, None, self._reason(currency, None)))
        return tuple(name for name in halted if name)

    def _passed(self, tx: Tx, parts: Parts, policy: Policy) -> Iterator[tuple[Principal, Balance]]:
        for owner in (self.who, *self.who.above):
            for one in standing(owner, policy, gather(tx, parts, owner, policy)):
                if one.kind in _PASSABLE and one.spent > one.limit:
                    yield owner, one

    def _reason(self, currency: str, passed: Balance | None) -> Reason:
        over = self.charged_micros - self.held_micros
        text = (
            f"{self.tool} billed {format_amount(self.charged_micros, currency)}, its price allows"
            f" {format_amount(self.held_micros)}: {format_amount(over)} over"
        )
        facts: dict[str, int | str | None] = {} if passed is None else passed.facts()
        if passed is not None:
            text += f"; {passed.kind} cap {format_amount(passed.limit)}, spent {format_amount(passed.spent)}"
        facts |= {
            "amount_micros": self.held_micros,
            "charged_micros": self.charged_micros,
            "overage_micros": over,
        }
        return Reason(OVERAGE, text, facts)

    def _halt(self, tx: Tx, parts: Parts, owner: Principal, passed: Balance | None, reason: Reason) -> str | None:
        """The session or the agent that this stopped; None where it was stopped already."""
        of_agent = passed is not None and passed.session is None
        scope: HaltScope = "agent" if of_agent else "session"
        subject = owner.agent_id if of_agent else owner.session_id
        cap = None if passed is None else passed.kind.value
        by = "price" if cap is None else f"cap {cap}"
        fresh = parts.halts.set(tx, scope, subject, code=reason.code, text=reason.text, by=by, cap=cap)
        if not fresh:
            return None
        event_kind = Kind.AGENT_HALTED if of_agent else Kind.SESSION_HALTED
        said: dict[str, Any] = {"code": reason.code, "text": reason.text, "facts": dict(reason.facts)}
        event = Event(
            event_kind,
            by,
            agent=owner.agent,
            agent_id=owner.agent_id,
            session=owner.session_id,
            call=self.call,
            tool=self.tool,
            upstream=self.upstream,
            policy=self.policy_version,
            body={"by": by, "reasons": [said], "call": self.call},
        )
        seq = parts.audit.append(tx, event)
        alarm(tx, parts, kind=event_kind.value, reason=reason, by=by, event_seq=seq, who=owner)
        return owner.agent if of_agent else owner.session_id
