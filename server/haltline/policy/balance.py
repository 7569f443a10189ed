"""How full a cap is: its limit, what is settled, on hold and in doubt, what is left, and when it resets.

The one place where it is said what a cap counts. What a refusal, an alert, a list or a check says of a cap is a `Balance`;
the rules of `budget` ask with the same `usage` and `limit`, and make one only where they refuse. Integers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.policy.model import CapKind, Usage
from haltline.policy.rules import stamp

if TYPE_CHECKING:
    from haltline.policy.caps import CapLimit
    from haltline.policy.model import Facts

__all__ = ["MONEY", "OF_SESSION", "Balance", "balance", "limit", "usage"]

MONEY = frozenset({CapKind.PER_CALL, CapKind.TASK, CapKind.HOUR, CapKind.DAY})
"""In micro-units; the others count calls."""
OF_SESSION = frozenset({CapKind.TASK, CapKind.CALLS})
"""What each session has for itself. The others count all that its agent does, but for the one on a single call."""


@dataclass(frozen=True, slots=True)
class Balance:
    """One cap as it stands. Money in micro-units, or a number of calls; None: the cap counts nothing of that kind."""

    kind: CapKind
    limit: int
    """With what people added to it for a time."""
    settled: int | None
    held: int | None
    in_doubt: int | None
    resets_at_us: int | None
    """When some of it is free again by itself; None: never, or nothing counts."""
    added: int = 0
    """What people added, in the limit already."""
    where: str = ""
    """Which level or line of the policy sets it."""
    window_s: int | None = None
    """For a rate: the rolling window."""
    session: str | None = None
    """The session that has it for itself, or a session above that narrows it; None: the agent."""

    @property
    def spent(self) -> int:
        return self.settled or 0

    @property
    def left(self) -> int:
        """Below zero where more was billed than held, or the cap was lowered."""
        return self.limit - self.spent - (self.held or 0) - (self.in_doubt or 0)

    @property
    def counts(self) -> bool:
        """Whether it fills up at all: the cap on a single call does not."""
        return self.settled is not None

    @property
    def remaining(self) -> int | None:
        return self.left if self.counts else None

    def facts(self) -> dict[str, int | str | None]:
        """As the reason of a refusal carries it: `limit_micros` … for money, `limit` … for calls."""
        unit = "_micros" if self.kind in MONEY else ""
        numbers = {
            "limit": self.limit,
            "settled": self.settled,
            "held": self.held,
            "in_doubt": self.in_doubt,
            "remaining": self.remaining,
        }
        said: dict[str, int | str | None] = {"cap": self.kind.value}
        said |= {f"{name}{unit}": number for name, number in numbers.items() if number is not None}
        if self.window_s is not None:
            said["window_s"] = self.window_s
        if self.resets_at_us is not None:
            said["resets_at"] = stamp(self.resets_at_us)
        return said


def balance(cap: CapLimit, facts: Facts) -> Balance:
    added, of = facts.allowances.get(cap.kind, 0), usage(cap, facts)
    if of is None:
        return Balance(cap.kind, cap.limit + added, None, None, None, None, added, cap.where, cap.window_s)
    rolling = cap.kind is CapKind.RATE  # admissions, whatever became of them
    on_hold = None if rolling else of.running_micros
    in_doubt = None if rolling or cap.kind is CapKind.CONCURRENT else of.in_doubt_micros
    resets_us = _resets(cap, facts)
    return Balance(
        cap.kind, cap.limit + added, of.settled_micros, on_hold, in_doubt, resets_us, added, cap.where, cap.window_s
    )


def limit(cap: CapLimit, facts: Facts) -> int:
    """The cap with what people added to it for a time."""
    return cap.limit + facts.allowances.get(cap.kind, 0)


def usage(cap: CapLimit, facts: Facts) -> Usage | None:
    """What counts against a cap; of those that count calls, calls instead of micro-units. None: it does not fill up."""
    match cap.kind:
        case CapKind.TASK:
            return facts.task
        case CapKind.HOUR:
            return facts.hour
        case CapKind.DAY:
            return facts.day
        case CapKind.CALLS:
            return Usage(facts.calls_settled, facts.calls_open, facts.calls_in_doubt)
        case CapKind.RATE:
            return Usage(facts.rate_counts.get(cap.window_s or 0, 0))
        case CapKind.CONCURRENT:
            return Usage(0, facts.agent_open_calls)
    return None


def _resets(cap: CapLimit, facts: Facts) -> int | None:
    if cap.kind is CapKind.HOUR:
        return facts.hour_resets_at_us
    if cap.kind is CapKind.RATE:
        return facts.rate_resets_us.get(cap.window_s or 0)
    return facts.day_resets_at_us if cap.kind is CapKind.DAY else None
