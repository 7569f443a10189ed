"""What an answered call is charged, under the price that admitted it (R7, R26)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.policy.prices import Bill

if TYPE_CHECKING:
    from haltline.calls.call import Admitted
    from haltline.calls.dispatch import Outcome

__all__ = ["billed"]


def billed(admitted: Admitted, outcome: Outcome, ran_us: int) -> Bill:
    """Where more than was held, `overage` says what follows."""
    allow = admitted.allow
    if not outcome.succeeded and not allow.charge_on_error:
        return Bill(0)
    if allow.rate is None:
        return Bill(allow.amount_micros)
    result = (outcome.answer or {}).get("result")
    return allow.rate.bill(result if isinstance(result, dict) else {"isError": True}, allow.amount_micros, ran_us)
