"""How each cap stands for one principal: its limit, what is settled, on hold and in doubt. Shared by alerts and the desk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.policy.model import CapKind, Usage

if TYPE_CHECKING:
    from haltline.policy.caps import CapLimit
    from haltline.policy.model import Facts, Principal
    from haltline.policy.policy import Policy

__all__ = ["MONEY", "Standing", "standings", "used"]

MONEY = frozenset({CapKind.TASK, CapKind.HOUR, CapKind.DAY})
_FILL_UP = MONEY | {CapKind.CALLS}


@dataclass(frozen=True, slots=True)
class Standing:
    """Money in micro-units, `calls` as a count. `limit` includes allowances."""

    kind: CapKind
    limit: int
    settled: int
    held: int
    in_doubt: int
    resets_at_us: int | None

    @property
    def remaining(self) -> int:
        return self.limit - self.settled - self.held - self.in_doubt


def standings(who: Principal, policy: Policy, facts: Facts) -> tuple[Standing, ...]:
    """The caps that fill up, in the order of the policy: task, hour, day, calls."""
    found = []
    for cap in policy.limits(who):
        if cap.kind in _FILL_UP:
            settled, held, in_doubt, resets = used(cap, facts)
            limit = cap.limit + facts.allowances.get(cap.kind, 0)
            found.append(Standing(cap.kind, limit, settled or 0, held or 0, in_doubt or 0, resets))
    return tuple(found)


def used(cap: CapLimit, facts: Facts) -> tuple[int | None, int | None, int | None, int | None]:
    """Settled, held, in doubt (each None where the cap does not count it) and when it resets."""
    calls = Usage(facts.calls_settled, facts.calls_open, facts.calls_in_doubt)
    counted: dict[CapKind, tuple[int | None, int | None, int | None, int | None]] = {
        CapKind.TASK: (*_parted(facts.task), None),
        CapKind.HOUR: (*_parted(facts.hour), facts.hour_resets_at_us),
        CapKind.DAY: (*_parted(facts.day), facts.day_resets_at_us),
        CapKind.CALLS: (*_parted(calls), None),
        CapKind.RATE: (facts.rate_counts.get(cap.window_s or 0, 0), None, None, None),
        CapKind.CONCURRENT: (0, facts.agent_open_calls, None, None),
    }
    return counted.get(cap.kind, (None, None, None, None))


def _parted(usage: Usage) -> tuple[int, int, int]:
    return usage.settled_micros, usage.held_micros - usage.in_doubt_micros, usage.in_doubt_micros
