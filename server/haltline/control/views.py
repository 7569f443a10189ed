"""How agents, sessions, caps and money read in an answer: pure shapes, the same wherever they appear.

Takes rows and facts, returns the client's `Money`, `Balance`, `HaltCause` …. Touches no store and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.clock import iso
from haltline.policy.balance import MONEY
from haltline.policy.model import CapKind, Rate
from haltline.policy.money import format_amount
from haltline.policy.rules import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haltline.parts import Parts
    from haltline.policy.balance import Balance
    from haltline.policy.caps import CapLimit
    from haltline.policy.model import HaltFact
    from haltline.policy.policy import Policy
    from haltline.upstreams.catalog import UpstreamState
    from haltline_client import cap_results as c
    from haltline_client import results as r
    from haltline_client import status_results as s

__all__ = ["Shown", "shown_upstream"]

_ORDER = ("session", "agent", "everything")


def shown_upstream(parts: Parts, state: UpstreamState) -> s.Upstream:
    """With what of its tools is not served, beside what the catalogue says of it."""
    quarantined = len(parts.pins.quarantined(state.name))
    shared_by = parts.catalog.upstream(state.name).spec.shared_by
    shared = None if shared_by is None else f"one credential is shared by {shared_by}"
    look = f"{quarantined} quarantined, not served: haltline tools pin {state.name} --diff" if quarantined else None
    return {
        "name": state.name,
        "kind": state.kind,
        "state": state.state,
        "tools": state.tools,
        "detail": "; ".join(said for said in (state.detail, look, shared) if said) or None,
    }


class Shown:
    """Shapes in the currency of the policy that is in force; without one, amounts have none."""

    def __init__(self, policy: Policy | None) -> None:
        self._currency = "" if policy is None else policy.currency

    def money(self, micros: int) -> r.Money:
        return {"micros": micros, "text": format_amount(micros, self._currency).strip()}

    def quantity(self, kind: CapKind, amount: int) -> r.Quantity:
        return self.money(amount) if kind in MONEY else amount

    def limit(self, kind: CapKind, limit: int, window_s: int | None) -> r.Quantity:
        return str(Rate(limit, window_s)) if window_s is not None else self.quantity(kind, limit)

    def caps(self, limits: Iterable[CapLimit]) -> dict[str, r.Quantity]:
        """The caps in force, without what was added to them for a time."""
        shown: dict[str, r.Quantity] = {}
        for cap in limits:
            name = cap.kind.value if cap.kind.value not in shown else f"{cap.kind.value}_{cap.window_s}s"
            shown[name] = self.limit(cap.kind, cap.limit, cap.window_s)
        return shown

    def balances(self, balances: Iterable[Balance]) -> list[c.Balance]:
        return [self._balance(one) for one in balances]

    def _balance(self, one: Balance) -> c.Balance:
        def shown(value: int | None) -> r.Quantity:
            return None if value is None else self.quantity(one.kind, value)

        balance: c.Balance = {
            "cap": one.kind.value,
            "limit": self.limit(one.kind, one.limit, one.window_s),
            "settled": shown(one.settled),
            "held": shown(one.held),
            "in_doubt": shown(one.in_doubt),
            "remaining": shown(one.remaining),
            "resets_at": None if one.resets_at_us is None else stamp(one.resets_at_us),
            "session": one.session,
            "where": one.where,
        }
        if one.added:
            balance["allowance"] = shown(one.added)
        return balance

    def cause(self, halts: Sequence[HaltFact]) -> r.HaltCause | None:
        """The nearest halt that stops it: its own, its agent's, or everything's."""
        if not halts:
            return None
        first = min(halts, key=lambda halt: _ORDER.index(halt.scope))
        cause: dict[str, Any] = {
            "code": first.code,
            "text": first.text,
            "by": first.by,
            "since": iso(first.since_us),
            "scope": first.scope,
        }
        return cause  # type: ignore[return-value]  # the client's keys, and whose halt it is
