"""How an alert reads for a person: the block on a terminal, and the pieces that other channels put in their own form.

Every value is written so that it cannot forge a line. Knows no channel and sends nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.alerts.visible import visible
from haltline.clock import iso

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haltline.alerts.model import Alert, Balance, Delivery

__all__ = ["balance_line", "block", "cause"]

_LABEL_WIDTH = 10
_RULE_WIDTH = 100


def cause(alert: Alert) -> str:
    """`[budget.task_exceeded] task cap 0.50 USD, spent 0.47, this call 0.05`."""
    return f"[{alert.code}] {alert.text}"


def balance_line(balance: Balance) -> str:
    """`day: spent 0.47 USD, held 0.00 USD, in doubt 0.00 USD, remaining 4.53 USD of 5.00 USD, resets 2026-11-25T00:00:00Z`."""
    resets = f", resets {balance.resets_at}" if balance.resets_at else ""
    return f"{balance.name}: {balance.numbers}{resets}"


def block(delivery: Delivery) -> str:
    """A few labelled lines between two rules, ending in a line break; each line starts with two spaces and its label."""
    alert = delivery.alert
    if alert.act in {"acknowledge", "resolve"}:
        return visible(f"=== ALERT {alert.episode} {alert.headline}: {alert.summary}") + "\n"
    head = visible(f"=== ALERT {alert.severity} {alert.kind} since {iso(delivery.at_us)} ")
    lines = [f"  {label:<{_LABEL_WIDTH}} {visible(value)}" for label, value in _facts(delivery)]
    return "\n".join([head.ljust(_RULE_WIDTH, "="), *lines, "=" * _RULE_WIDTH]) + "\n"


def _facts(delivery: Delivery) -> Iterator[tuple[str, str]]:
    """Labels and values in the order in which a person needs them; a label stands once before its several lines."""
    alert = delivery.alert
    yield ("tool", alert.tool) if alert.tool and not alert.agent else ("agent", alert.agent or "everything")
    single = (
        ("note", alert.headline),
        ("session", alert.session),
        ("task", alert.task),
        ("cause", cause(alert)),
        ("by", alert.by),
        ("rule", alert.rule),
        ("threshold", alert.threshold),
        ("observed", alert.observed),
        ("times", f"{alert.count} since {iso(alert.opened_us)}" if alert.count > 1 and alert.opened_us else None),
    )
    for label, value in single:
        if value:
            yield label, value
    several = (
        ("balances", [balance_line(balance) for balance in alert.balances]),
        ("actions", list(alert.last_actions)),
        ("commands", list(alert.commands)),
        ("links", [f"{link.text}: {link.url}" for link in alert.links]),
    )
    for label, values in several:
        for index, value in enumerate(values):
            yield (label if index == 0 else ""), value
    yield "alert", delivery.alert_id if delivery.attempt == 1 else f"{delivery.alert_id} (attempt {delivery.attempt})"
