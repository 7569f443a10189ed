"""One agent's facts told in order with a set clock, and single rules asked about them: no store, no policy file."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from haltline.policy.hours import day_bounds
from haltline.policy.watch import Moment, WatchRule
from haltline.policy.watch_entry import WatchEntry, compile_watch
from haltline.rules.asking import asked
from haltline.signals.facts import Fact
from haltline.signals.state import AgentSignals

__all__ = ["DAY_US", "HOUR_US", "MONDAY_US", "S", "Story", "busy_days", "rule"]

S, HOUR_US, DAY_US = 1_000_000, 3_600_000_000, 86_400_000_000
MONDAY_US = 20_003 * DAY_US
"""Monday 2024-10-07, 00:00 UTC."""
ENTRY: TypeAdapter[Any] = TypeAdapter(WatchEntry)


def rule(kind: str, **said: Any) -> WatchRule:
    return compile_watch(
        "r", "rules.yaml:1", ENTRY.validate_python({"kind": kind, **said}), audit=False, time_zone="UTC"
    )


class Story:
    """One agent's facts, told in order."""

    def __init__(self) -> None:
        self.state = AgentSignals()
        self.seq = 0

    def tell(self, at_us: int, kind: str, **body: Any) -> None:
        self.seq += 1
        named = {"session": body.pop("session", "ses_1"), "tool": body.pop("tool", "pay__charge"), "upstream": "pay"}
        self.state.fold(Fact.of(self.seq, at_us, kind, named, body), "UTC")

    def call(self, at_us: int, amount: int = 0, *, end: str = "call.succeeded", same: str = "x", **more: Any) -> None:
        self.tell(at_us, "call.allowed", amount_micros=amount, same=same, **more)
        self.tell(at_us, end, amount_micros=amount, charged_micros=amount, duration_us=0)

    def now(self, at_us: int, **call: Any) -> Moment:
        about = {"tool": "pay__charge", "upstream": "pay", "same": "y", **call}
        return Moment(self.state, at_us, "USD", "UTC", lambda now_us: day_bounds(now_us, "UTC"), **about)

    def fires(self, one: WatchRule, at_us: int, **call: Any) -> bool:
        return bool(asked(one, self.now(at_us, **call)))


def busy_days(story: Story, days: int, amount: int, *, hours: range = range(9, 17), start_us: int = MONDAY_US) -> int:
    for day in range(days):
        for hour in hours:
            story.call(start_us + day * DAY_US + hour * HOUR_US, amount, same=f"{day} {hour}")
    return start_us + days * DAY_US
