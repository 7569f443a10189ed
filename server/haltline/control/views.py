"""How agents, sessions, caps and money read in an answer: pure shapes, the same wherever they appear.

Takes rows and facts, returns the client's `Money`, `Balance`, `HaltCause` …. Touches no store and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.clock import iso
from haltline.policy.model import CapKind, Rate
from haltline.policy.money import format_amount
from haltline.standings import used

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haltline.parts import Parts
    from haltline.policy.caps import CapLimit
    from haltline.policy.model import Facts, HaltFact
    from haltline.policy.policy import Policy
    from haltline.upstreams.catalog import UpstreamState
    from haltline_client import cap_results as c
    from haltline_client import results as r
    from haltline_client import status_results as s

__all__ = ["Shown", "shown_upstream"]

_MONEY = frozenset({CapKind.PER_CALL, CapKind.TASK, CapKind.HOUR, CapKind.DAY})
_OF_SESSION = frozenset({CapKind.TASK, CapKind.CALLS})
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
        return self.money(amount) if kind in _MONEY else amount

    def limit(self, cap: CapLimit, extra: int = 0) -> r.Quantity:
        """A cap's limit with what a person added to it."""
        if cap.kind in _MONEY:
            return self.money(cap.limit + extra)
        if cap.kind is CapKind.RATE and cap.window_s is not None:
            return str(Rate(cap.limit, cap.window_s))
        return cap.limit + extra

    def caps(self, limits: Iterable[CapLimit]) -> dict[str, r.Quantity]:
        """The caps in force, without what was added to them for a time."""
        shown: dict[str, r.Quantity] = {}
        for cap in limits:
            name = cap.kind.value if cap.kind.value not in shown else f"{cap.kind.value}_{cap.window_s}s"
            shown[name] = self.limit(cap)
        return shown

    def balances(self, limits: Iterable[CapLimit], facts: Facts, *, of_session: bool) -> list[c.Balance]:
        """Every cap with what counts against it. An agent's list leaves out what each session has for itself."""
        return [self._balance(cap, facts) for cap in limits if of_session or cap.kind not in _OF_SESSION]

    def _balance(self, cap: CapLimit, facts: Facts) -> c.Balance:
        extra = facts.allowances.get(cap.kind, 0)
        settled, held, in_doubt, resets_us = used(cap, facts)
        counts = settled is not None
        remaining = cap.limit + extra - (settled or 0) - (held or 0) - (in_doubt or 0)
        shape = self.money if cap.kind in _MONEY else int

        def shown(value: int | None) -> Any:
            return None if value is None else shape(value)

        balance: dict[str, Any] = {
            "cap": cap.kind.value,
            "limit": self.limit(cap, extra),
            "settled": shown(settled),
            "held": shown(held),
            "in_doubt": shown(in_doubt),
            "remaining": shown(remaining) if counts else None,
            "resets_at": None if resets_us is None else iso(resets_us),
            "where": cap.where,
        }
        if extra:
            balance["allowance"] = shown(extra)
        return balance  # type: ignore[return-value]  # the client's keys, and two more

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
