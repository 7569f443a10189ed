"""What was measured beside what it has to be: one row for each goal, printed and written with every run.

A goal whose other side is missing (a peer that cannot be had) is told as not measured, never as met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import load
import official
import peering
import report
import stopping

if TYPE_CHECKING:
    from rounds import Cell, Figure, Figures

__all__ = ["HALTLINE", "HALTLINE_STDIO", "Goal", "as_json", "of_commands", "of_rounds", "table"]

HALTLINE = "haltline"
HALTLINE_STDIO = "haltline, stdio"
HANDSHAKE_64: Cell = ("handshake", 64)
HANDSHAKE_16: Cell = ("handshake", 16)


@dataclass(frozen=True, slots=True)
class Goal:
    """`most` or `least` is the goal; `found` is None where it was not measured, `note` says more."""

    what: str
    unit: str
    found: float | None
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.found is None:
            return None
        return self.found <= self.most if self.most is not None else self.found >= (self.least or 0.0)

    def row(self) -> tuple[str, ...]:
        bound = f"≤ {self.most:g}" if self.most is not None else f"≥ {self.least:g}"
        said = {True: "yes", False: "no", None: "not measured"}[self.met]
        found = "–" if self.found is None else f"{self.found:.3g}" if self.found < 100 else f"{self.found:,.0f}"
        return self.what, f"{bound} {self.unit}".strip(), found, said, self.note


def table(goals: list[Goal]) -> str:
    head = ("what", "goal", "found", "met", "")
    return f"### Goals\n\n{report.markdown([head, *(goal.row() for goal in goals)])}"


def as_json(goals: list[Goal]) -> list[dict[str, Any]]:
    return [{**asdict(goal), "met": goal.met} for goal in goals]


def of_rounds(figures: Figures, sync_ms: float, missing: Mapping[str, str]) -> list[Goal]:
    """From interleaved rounds, ratios paired by round."""

    def per_s(cell: Cell, one: str, other: str) -> float | None:
        return _paired(figures, cell, one, other, lambda mine, its: mine.per_s / its.per_s)

    found = []
    for era in load.ERAS:
        cell: Cell = (era, 64)
        found.append(Goal(f"calls/s at 64 sessions, {era}", "× floor", per_s(cell, HALTLINE, report.FLOOR), least=0.25))
        found.append(
            Goal(f"calls/s at 64 sessions, {era}", "× pass-through", per_s(cell, HALTLINE, report.PASSTHROUGH), least=5)
        )
    for peer, own, cell, least in (
        (peering.FASTMCP, HALTLINE, HANDSHAKE_64, 12.0),
        (peering.AUTHMCP, HALTLINE, HANDSHAKE_64, 20.0),
        (peering.PY_PROXY, HALTLINE_STDIO, HANDSHAKE_16, 4.0),
        (peering.TS_PROXY, HALTLINE_STDIO, HANDSHAKE_16, 1.0),
    ):
        what = f"calls/s at {cell[1]} sessions, {cell[0]}"
        found.append(Goal(what, f"× {peer}", per_s(cell, own, peer), least=least, note=missing.get(peer, "")))
    for era in load.ERAS:
        for share, most in (("p50", 1.5), ("p99", 4.0)):
            name = f"{share}_ms"
            added = _paired(
                figures,
                (era, 1),
                HALTLINE,
                report.DIRECT,
                lambda mine, its, name=name: getattr(mine, name) - getattr(its, name),  # type: ignore[misc]
            )
            note = "" if added is None else f"{added / sync_ms:.1f} × fdatasync of {sync_ms:.2f} ms"
            found.append(Goal(f"one session, added {share}, {era}", "ms", added, most=most, note=note))
    return found


def of_commands(
    official_client: Mapping[str, float],
    revokes: Mapping[str, float],
    lists: Mapping[str, float],
    decisions: Mapping[str, float],
    commands: Mapping[str, float],
    memory: tuple[float | None, float | None],
) -> list[Goal]:
    """What is measured by itself."""
    idle, after = memory
    both = f"{official_client['brokered_p50_ms']:.2f} against {official_client['direct_p50_ms']:.2f} ms"
    return [
        Goal("official client, default mode, p50", "× direct", official_client["ratio"], official.GOAL, note=both),
        Goal("the same, to an upstream that costs nothing", "× direct", official_client["ratio_raw"], official.GOAL),
        Goal("decision alone, 50 rules, 8 caps, p50", "µs", decisions["heavy_us"], 50.0),
        Goal("tools/list of 500 tools, scoped, again", "ms", lists["next_cpu_ms"], 2.0, note="CPU of the broker"),
        Goal(
            "tools/list of 500 tools, scoped, a grant's first",
            "ms",
            lists["first_cpu_ms"],
            2.0,
            note="CPU of the broker",
        ),
        Goal("memory, idle", "MB", idle, 90.0),
        Goal("memory, more after 100,000 calls", "MB", None if idle is None or after is None else after - idle, 30.0),
        Goal("revoke under load, at the broker, p99", "ms", revokes["p99_ms"], stopping.GOAL_MS),
        Goal("revoke under load, typed, p99", "ms", revokes["typed_p99_ms"], stopping.GOAL_TYPED_MS),
        Goal("haltline --help", "ms", commands["help_ms"], 150.0),
        Goal("haltline serve ready", "s", commands["ready_s"], 2.0),
    ]


def _paired(
    figures: Figures, cell: Cell, one: str, other: str, value: Callable[[Figure, Figure], float]
) -> float | None:
    mine, its = figures.rounds.get((cell, one)), figures.rounds.get((cell, other))
    return None if not mine or not its else median(map(value, mine, its))
