"""The price of each listed tool, under Haltline's own key in its `_meta`, so that a model can weigh a call before it makes it.

What an upstream writes under that key is never passed on: the price is the operator's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.policy.money import format_amount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.policy.terms import Terms

__all__ = ["PRICE_KEY", "tagged"]

PRICE_KEY = "io.haltline/price"


def tagged(definition: Mapping[str, Any], terms: Terms, currency: str) -> dict[str, Any]:
    """The definition with its price: `{"kind": "result", "text": "…", "currency": "USD", "at_most": "0.50"}`."""
    meta = definition.get("_meta", {})
    if not isinstance(meta, dict):
        return dict(definition)  # no place for it, and nothing of ours in it
    kept = {key: value for key, value in meta.items() if key != PRICE_KEY}
    if terms.price is not None:
        tag = {"kind": terms.price.rate.kind, "text": terms.price.text, "currency": currency}
        most = terms.most_micros
        kept[PRICE_KEY] = tag if most is None else {**tag, "at_most": format_amount(most)}
    return {**definition, "_meta": kept} if kept or "_meta" in definition else dict(definition)
