"""What will happen after a resume if nothing else changes: whether the next call would halt again, and at which cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.facts import gather
from haltline.policy.balance import MONEY
from haltline.policy.model import CapKind
from haltline.policy.money import format_amount
from haltline.standings import standings

if TYPE_CHECKING:
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.store.writer import Tx

__all__ = ["outlook"]

_OF_A_SESSION = {CapKind.TASK, CapKind.CALLS}


def outlook(tx: Tx, parts: Parts, who: Principal | None, cap: CapKind | None, added: int) -> str:
    """One sentence. `added`: what is about to be added to `cap`, and is not in the books yet."""
    policy = parts.policies.current
    if policy is None:
        return "every call is refused until the policy can be read"
    if who is None:
        return "agents and sessions with a halt of their own stay halted; the others go on"
    said: list[str] = []
    for one in standings(who, policy, gather(tx, parts, who, policy)):
        if one.kind in _OF_A_SESSION and not who.session_id:
            continue
        limit = one.limit + (added if one.kind is cap else 0)
        money = one.kind in MONEY
        spent, whole = (format_amount(n, policy.currency) if money else str(n) for n in (one.spent, limit))
        if one.spent >= limit:
            return f"the next {'paid call' if money else 'call'} would halt again: {one.kind.value} {spent} of {whole}"
        if one.kind is cap:
            said.append(f"{one.kind.value} {spent} of {whole}, a call of more than the rest halts again")
    return "; ".join(said) or "the next call is decided as usual"
