"""The figures of a proof: printed as a table, with what each must be; a figure that is missed fails the proof."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bench.load import percentile
from support.broker_process import Ran

__all__ = ["Figures", "busy"]


class Figures:
    """Collect with `must` and `note`, then `show` once."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rows: list[tuple[str, str, str]] = []
        self._missed: list[str] = []

    def must(self, name: str, value: object, holds: bool, wanted: str) -> None:
        """A figure that decides."""
        self._rows.append((name, str(value), wanted if holds else f"{wanted}  MISSED"))
        if not holds:
            self._missed.append(f"{name}: {value}, wanted {wanted}")

    def zero(self, name: str, found: int | Sequence[object]) -> None:
        """None of it may be there; of what is, the first few are told."""
        count = found if isinstance(found, int) else len(found)
        self.must(name, count, count == 0, "0")
        if count and not isinstance(found, int):
            self._missed[-1] += f" {list(found[:3])}"

    def equal(self, name: str, value: object, wanted: object) -> None:
        self.must(name, value, value == wanted, str(wanted))

    def chain(self, verified: Ran) -> None:
        """What `haltline audit verify` said."""
        lines = [line for line in (verified.out + verified.err).splitlines() if line.startswith("✓")]
        told = lines[0].removeprefix("✓ ") if lines else (verified.out + verified.err).strip()[-400:]
        self.must("audit verify", told, verified.code == 0, "exit code 0")

    def note(self, name: str, value: object) -> None:
        """A figure that only tells."""
        self._rows.append((name, str(value), ""))

    def times(self, name: str, values_ms: Sequence[float], *, p99_below_ms: float | None = None) -> None:
        p50, p99 = percentile(values_ms, 0.5), percentile(values_ms, 0.99)
        told = f"p50 {p50:.1f} · p99 {p99:.1f} · max {max(values_ms, default=0):.1f} ms of {len(values_ms)}"
        if p99_below_ms is None:
            self.note(name, told)
        else:
            self.must(name, told, p99 < p99_below_ms, f"p99 < {p99_below_ms:g} ms")

    def show(self) -> None:
        """Print the table; raises AssertionError where a figure was missed."""
        __tracebackhide__ = True
        width = max(len(name) for name, _, _ in self._rows)
        load = " ".join(f"{one:.1f}" for one in os.getloadavg())
        print(f"\n{self._title}   ({os.cpu_count()} cores, load {load})")
        for name, value, wanted in self._rows:
            print(f"  {name:<{width}}  {value}" + (f"   (must be {wanted})" if wanted else ""))
        assert not self._missed, "; ".join(self._missed)


def busy() -> bool:
    """Whether others have wanted the cores too, so that a time on the wall says little about what is measured."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)
