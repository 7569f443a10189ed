"""What will happen after a resume if nothing else changes: whether the next call would halt again, and at which cap.

The next call is taken to be like the one whose refusal set the halt. Judged as the caps judge it (R3): what is settled and
the amount halt, what is held or in doubt beside them only refuses for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.policy.model import CapKind
from haltline.policy.money import format_amount
from haltline.standings import balances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.control.aftermath import Refused
    from haltline.halts import HaltRow
    from haltline.parts import Parts
    from haltline.policy.balance import Balance
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["outlook"]

_HALTING = {CapKind.TASK, CapKind.CALLS, CapKind.HOUR, CapKind.DAY}


class _Cap:
    """One cap, as it will stand for a call of this amount; `amount` is 0 where nobody knows what the next one costs."""

    def __init__(self, one: Balance, added: int, amount: int, currency: str) -> None:
        self.kind, self.currency = one.kind, currency
        self.limit = one.limit + added
        self.settled = one.settled or 0
        self.waiting = (one.held or 0) + (one.in_doubt or 0)
        self.amount = 1 if one.kind is CapKind.CALLS else amount

    @property
    def halts(self) -> bool:
        return self.settled + max(self.amount, 1) > self.limit

    @property
    def waits(self) -> bool:
        return self.settled + self.waiting + max(self.amount, 1) > self.limit

    @property
    def left(self) -> str:
        return self.text(self.limit - self.settled - self.waiting - self.amount)

    def text(self, quantity: int) -> str:
        return str(quantity) if self.kind is CapKind.CALLS else format_amount(quantity, self.currency)

    def spend(self) -> str:
        """`day spend 5.02 of 5.00 USD`: what it would come to."""
        word = "calls" if self.kind is CapKind.CALLS else f"{self.kind.value} spend"
        spent = self.settled + self.amount
        return f"{word} {spent if self.kind is CapKind.CALLS else format_amount(spent)} of {self.text(self.limit)}"


def outlook(
    tx: Tx, parts: Parts, who: Principal | None, halt: HaltRow, refused: Refused | None, added: Mapping[CapKind, int]
) -> str:
    """One sentence. `added`: what is about to be added to caps, and is not in the books yet."""
    policy = parts.policies.current
    if policy is None:
        return "every call is refused until the policy can be read"
    if who is None:
        return "agents and sessions with a halt of their own stay halted; the others go on"
    amount = (refused.amount_micros or 0) if refused is not None else 0
    like = f"the next call like the refused one ({format_amount(amount, policy.currency)})"
    single = _single(policy, who, refused, amount)
    if single:
        return f"{like} would halt again: {single}"
    return _of_caps(_caps(tx, parts, who, amount, policy.currency, added), halt, like if amount else "")


def _of_caps(caps: list[_Cap], halt: HaltRow, like: str) -> str:
    for one in caps:
        if one.halts:
            what = "the next call" if one.kind is CapKind.CALLS else like or "the next paid call"
            return f"{what} would halt again: {one.spend()}"
    for one in caps:
        if one.waits:
            what = "the next call" if one.kind is CapKind.CALLS else like or "the next paid call"
            open_ = f"{one.text(one.waiting)} on hold or in doubt"
            return f"{what} would be refused, and not halt, until the {open_} are settled: {one.spend()}"
    own = next((one for one in caps if one.kind is halt.cap), None)
    if own is not None and own.kind is CapKind.CALLS:
        return f"{own.left} more calls fit after the next: {own.spend()}"
    if own is not None:
        return (
            f"{like} fits: {own.spend()}, {own.left} left then"
            if like
            else f"a call of up to {own.left} fits: {own.spend()}"
        )
    begins = f"{halt.by} begins anew, and " if halt.by.startswith("rule ") else ""
    return f"{begins}the next call is decided as usual"


def _single(policy: Policy, who: Principal, refused: Refused | None, amount: int) -> str:
    """Why a charge like the refused one stops its agent by itself (R4), whatever the caps say."""
    tier = policy.tier(who.tier)
    most = None if tier is None else tier.single_charge_micros
    if refused is None or most is None or amount <= most:
        return ""
    return f"a single charge above {format_amount(most, policy.currency)} halts"


def _caps(tx: Tx, parts: Parts, who: Principal, amount: int, currency: str, added: Mapping[CapKind, int]) -> list[_Cap]:
    """Those that halt, of the session and of each above it: what they ask is asked of each call below them (R20)."""
    halting = [one for one in balances(tx, parts, who) if one.kind in _HALTING]
    own = {None, who.session_id or None}
    return [_Cap(one, added.get(one.kind, 0) if one.session in own else 0, amount, currency) for one in halting]
