"""Interleaved rounds: in each, every target one after the other under the same load, so that ratios pair what was measured
within seconds. The order turns around every round, so that a drift of the machine favours nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import load
from processes import cpu_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from load import Era, Session

__all__ = ["HOST", "Cell", "Figure", "Figures", "Target", "measure"]

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Target:
    """What is called: one server's port and tool. `tokens`: one credential for each session, where it wants any."""

    name: str
    port: int
    pid: int
    tool: str = "echo"
    tokens: Sequence[str] | None = None
    bare: bool = False
    """No MCP server, so nothing to initialize."""
    eras: Sequence[Era] = load.ERAS
    counts: Sequence[int] | None = None
    """At how many sessions it is measured; at each that is asked for where None."""

    def takes(self, era: Era, count: int) -> bool:
        return era in self.eras and (self.counts is None or count in self.counts)

    def sessions(self, era: Era, count: int) -> list[Session]:
        return [
            load.Session(
                HOST,
                self.port,
                era=era,
                tool=self.tool,
                token=None if self.tokens is None else self.tokens[number],
                name=f"{self.name[:1]}{number}",
            )
            for number in range(count)
        ]


Cell = tuple["Era", int]
"""An era and how many sessions call at once."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One round of one target in one cell."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_us: float | None
    """CPU time of the target's process for each call."""


@dataclass
class Figures:
    """All rounds. `answered` counts every call of a target, those of the warm-ups too."""

    rounds: dict[tuple[Cell, str], list[Figure]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[str, int] = field(default_factory=lambda: defaultdict(int))


async def measure(
    targets: Sequence[Target],
    *,
    counts: Sequence[int],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> Figures:
    """Raises `load.Wrong` on the first wrong answer: then there is no figure."""
    figures = Figures()
    opened = {
        (target.name, era): target.sessions(era, max(target.counts or counts))
        for target in targets
        for era in target.eras
    }
    try:
        for target in targets:
            for era in target.eras:
                for session in opened[target.name, era]:
                    await session.open(bare=target.bare)
        for number in range(rounds):
            for era in load.ERAS:
                for count in counts:
                    turns = [target for target in targets if target.takes(era, count)]
                    for target in turns if number % 2 == 0 else turns[::-1]:
                        sessions = opened[target.name, era][:count]
                        figures.rounds[(era, count), target.name].append(await _one(target, sessions, seconds, figures))
            say(f"round {number + 1} of {rounds}")
    finally:
        for sessions in opened.values():
            for session in sessions:
                session.close()
    return figures


async def _one(target: Target, sessions: Sequence[Session], seconds: float, figures: Figures) -> Figure:
    before = cpu_s(target.pid)
    sample = await load.run(sessions, seconds)
    after = cpu_s(target.pid)
    figures.answered[target.name] += sample.answered
    return Figure(
        p50_ms=load.percentile(sample.latencies, 0.50) * 1000,
        p99_ms=load.percentile(sample.latencies, 0.99) * 1000,
        per_s=sample.per_s,
        cpu_us=None if before is None or after is None else (after - before) / sample.answered * 1e6,
    )
