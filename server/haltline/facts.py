"""What a decision reads about a principal, gathered inside the deciding transaction (P3, P12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.policy.model import Facts

if TYPE_CHECKING:
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["as_recorded", "gather"]


def gather(tx: Tx, parts: Parts, who: Principal, policy: Policy) -> Facts:
    spent = parts.ledger.spent(tx, who.agent_id, who.session_id, policy.rate_windows_s(who))
    return Facts(
        halts=parts.halts.on(tx, who.session_id, who.agent_id),
        task=spent.task,
        hour=spent.hour,
        day=spent.day,
        hour_resets_at_us=spent.hour_resets_at_us,
        day_resets_at_us=spent.day_resets_at_us,
        calls_settled=spent.calls_settled,
        calls_open=spent.calls_open,
        calls_in_doubt=spent.calls_in_doubt,
        rate_counts=spent.rate_counts,
        rate_resets_us=spent.rate_resets_us,
        agent_open_calls=spent.agent_running,
        allowances=parts.halts.allowances(tx, (who.session_id, who.agent_id)),
    )


def as_recorded(facts: Facts) -> dict[str, Any]:
    """The values as the audit event keeps them (R30): `[settled, held]` in micro-units, what is in doubt being held."""
    recorded: dict[str, Any] = {
        "task": [facts.task.settled_micros, facts.task.held_micros],
        "hour": [facts.hour.settled_micros, facts.hour.held_micros],
        "day": [facts.day.settled_micros, facts.day.held_micros],
        "calls": [facts.calls_settled, facts.calls_open],
        "running": facts.agent_open_calls,
    }
    in_doubt = [facts.task.in_doubt_micros, facts.day.in_doubt_micros, facts.calls_in_doubt]
    if any(in_doubt):
        recorded["in_doubt"] = dict(zip(("task", "agent", "calls"), in_doubt, strict=True))
    if facts.rate_counts:
        recorded["rate"] = {str(window): count for window, count in facts.rate_counts.items()}
    if facts.allowances:
        recorded["allowances"] = {kind.value: amount for kind, amount in facts.allowances.items()}
    return recorded
