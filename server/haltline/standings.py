"""How each cap stands for one principal: its limit, what is settled and what is on hold. Shared by alerts and the desk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.policy.model import CapKind

if TYPE_CHECKING:
    from haltline.policy.model import Facts, Principal
    from haltline.policy.policy import Policy

__all__ = ["MONEY", "Standing", "standings"]

MONEY = frozenset({CapKind.TASK, CapKind.HOUR, CapKind.DAY})


@dataclass(frozen=True, slots=True)
class Standing:
    """Money in micro-units, `calls` as a count. `held` includes what is in doubt; `limit` includes allowances."""

    kind: CapKind
    limit: int
    settled: int
    held: int
    resets_at_us: int | None

    @property
    def remaining(self) -> int:
        return self.limit - self.settled - self.held


def standings(who: Principal, policy: Policy, facts: Facts) -> tuple[Standing, ...]:
    """The caps that fill up, in the order of the policy: task, hour, day, calls."""
    used = {
        CapKind.TASK: (facts.task.settled_micros, facts.task.held_micros, None),
        CapKind.HOUR: (facts.hour.settled_micros, facts.hour.held_micros, facts.hour_resets_at_us),
        CapKind.DAY: (facts.day.settled_micros, facts.day.held_micros, facts.day_resets_at_us),
        CapKind.CALLS: (facts.calls_settled, facts.calls_open, None),
    }
    found = []
    for cap in policy.limits(who):
        if cap.kind in used:
            settled, held, resets = used[cap.kind]
            limit = cap.limit + facts.allowances.get(cap.kind, 0)
            found.append(Standing(cap.kind, limit, settled, held, resets))
    return tuple(found)
