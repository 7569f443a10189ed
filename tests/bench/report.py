"""The figures as Markdown tables: medians over rounds, ratios paired by round."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rounds import Cell, Figure, Figures

__all__ = ["DIRECT", "FLOOR", "PASSTHROUGH", "markdown", "tables"]

DIRECT = "direct"
FLOOR = "floor"
PASSTHROUGH = "pass-through"
HEAD = (
    "sessions",
    "target",
    "p50 ms",
    "p99 ms",
    "added p50",
    "added p99",
    "calls/s",
    "× floor",
    "× pass-through",
    "CPU µs/call",
)


def tables(figures: Figures, targets: Sequence[str], counts: Sequence[int]) -> str:
    """One table for each era."""
    parts = []
    for era in load.ERAS:
        cells: list[Cell] = [(era, count) for count in counts]
        rows = [_row(figures, cell, target) for cell in cells for target in targets if (cell, target) in figures.rounds]
        parts.append(f"### Era: {era}\n\n{markdown([HEAD, *rows])}")
    return "\n\n".join(parts)


def _row(figures: Figures, cell: Cell, target: str) -> tuple[str, ...]:
    own = figures.rounds[cell, target]

    def paired(other: str, value: Callable[[Figure, Figure], float]) -> float:
        return median(value(one, two) for one, two in zip(own, figures.rounds[cell, other], strict=True))

    cpu = [figure.cpu_us for figure in own if figure.cpu_us is not None]
    direct = target == DIRECT
    return (
        str(cell[1]),
        target,
        f"{median(figure.p50_ms for figure in own):.2f}",
        f"{median(figure.p99_ms for figure in own):.2f}",
        "–" if direct else f"{paired(DIRECT, lambda one, two: one.p50_ms - two.p50_ms):.2f}",
        "–" if direct else f"{paired(DIRECT, lambda one, two: one.p99_ms - two.p99_ms):.2f}",
        f"{median(figure.per_s for figure in own):,.0f}",
        f"{paired(FLOOR, lambda one, two: one.per_s / two.per_s):.3f}",
        f"{paired(PASSTHROUGH, lambda one, two: one.per_s / two.per_s):.1f}",
        f"{median(cpu):.0f}" if cpu else "–",
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
