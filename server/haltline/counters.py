"""What is counted and timed for `/metrics` at every call: a dictionary's addition, brought into Prometheus' form when it asks.

The library's own counters lock for each addition, for programs of many threads. These live on the event loop alone.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry

__all__ = ["Count", "Times"]


class Count(Collector):
    """A counter; its values by those of its labels. One without labels says 0 from the start."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        self._said = name, text, labels
        self._counted: dict[tuple[str, ...], int] = {} if labels else {(): 0}
        registry.register(self)

    def add(self, count: int, *labels: str) -> None:
        self._counted[labels] = self._counted.get(labels, 0) + count

    def collect(self) -> Iterator[CounterMetricFamily]:
        name, text, labels = self._said
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in self._counted.items():
            family.add_metric(values, count)
        yield family


class Times(Collector):
    """A histogram of seconds, by the values of its labels; `bounds` are the upper ends of its buckets, those included."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str] = (), *, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._said = name, text, labels
        self._bounds = bounds
        self._counted: dict[tuple[str, ...], list[int]] = {} if labels else {(): [0] * (len(bounds) + 1)}
        self._sums: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def took(self, seconds: float, *labels: str) -> None:
        counted = self._counted.get(labels)
        if counted is None:
            counted = self._counted[labels] = [0] * (len(self._bounds) + 1)
        counted[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        name, text, labels = self._said
        family = HistogramMetricFamily(name, text, labels=labels)
        ends = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, counted in self._counted.items():
            so_far = list(zip(ends, accumulate(counted), strict=True))
            family.add_metric(values, so_far, self._sums.get(values, 0.0))
        yield family
