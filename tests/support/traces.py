"""Seeded traces of calls: several kinds of normal agents, and the failures that rules are to notice. No clock, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = [
    "DAY_US",
    "FAILURES",
    "FAILURE_DAY",
    "HOUR_US",
    "KINDS",
    "START_US",
    "WEEKS",
    "Call",
    "normal",
    "with_failure",
]

S_US, HOUR_US, DAY_US = 1_000_000, 3_600_000_000, 86_400_000_000
START_US = 20_003 * DAY_US
"""Monday 2024-10-07, 00:00 UTC."""
WEEKS = 8
FAILURE_DAY = 43
"""A Tuesday of the seventh week."""
TOOLS = ("crm__search", "crm__read", "mail__send", "pay__charge", "docs__read", "docs__write")


@dataclass(frozen=True, slots=True)
class Call:
    at_us: int
    tool: str
    destination: str
    amount: int
    same: str
    session: str
    failed: bool = False
    silent_us: int = 0
    """A running call that has said nothing for so long."""
    bad: bool = False


Plan = Callable[[random.Random, int], list[tuple[float, int]]]
"""For a day: (hour of its middle, calls around it)."""


def _office(rng: random.Random, day: int) -> list[tuple[float, int]]:
    return [(hour + 0.5, rng.randint(3, 9)) for hour in range(9, 17)] if day % 7 < 5 else []


def _nightly(rng: random.Random, day: int) -> list[tuple[float, int]]:
    return [(2.5, rng.randint(40, 56))]


def _bursty(rng: random.Random, day: int) -> list[tuple[float, int]]:
    return [(rng.uniform(8, 20), rng.randint(15, 40)) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]


def _weekend(rng: random.Random, day: int) -> list[tuple[float, int]]:
    return [(hour + 0.5, rng.randint(3, 9)) for hour in range(10, 18)] if day % 7 >= 5 else []


def _growth(rng: random.Random, day: int) -> list[tuple[float, int]]:
    return [(hour, round(calls * (0.5 + day / 56))) for hour, calls in _office(rng, day)]


KINDS: dict[str, Plan] = {
    "office": _office,
    "nightly": _nightly,
    "bursty": _bursty,
    "weekend": _weekend,
    "growth": _growth,
}


def normal(kind: str, seed: int, day_cap: int) -> list[Call]:
    """Eight weeks; a usual day costs some fifteen per cent of the cap; two of a hundred calls fail; new payees are rare."""
    rng = random.Random(f"{kind} {seed}")
    mean = day_cap * 15 // 100 // 48
    payees = [f"payee-{number}" for number in range(12)]
    found: list[Call] = []
    for day in range(WEEKS * 7):
        if rng.random() < 0.04:
            payees.append(f"payee-{len(payees)}")
        for middle, calls in KINDS[kind](rng, day):
            for number in range(calls):
                at_us = START_US + day * DAY_US + int((middle + rng.uniform(-0.4, 0.4)) * HOUR_US)
                payee = payees[min(int(rng.expovariate(0.3)), len(payees) - 1)] if number else payees[-1]
                tool = TOOLS[min(int(rng.expovariate(0.6)), len(TOOLS) - 1)]
                same = f"{day} {middle} {rng.randint(0, 200)}"
                found.append(
                    Call(at_us, tool, payee, int(mean * rng.uniform(0.5, 1.5)), same, f"s{day}", rng.random() < 0.02)
                )
    return sorted(found, key=lambda call: call.at_us)


def _many(every_s: float, count: int, *, hour: float, share: float, cap: int, **said: object) -> Iterator[Call]:
    for number in range(count):
        at_us = START_US + FAILURE_DAY * DAY_US + int(hour * HOUR_US) + int(number * every_s * S_US)
        one = {"tool": "pay__charge", "destination": "payee-0", "same": f"bad {number}", "session": "s-bad", **said}
        yield Call(at_us, amount=int(cap * share), bad=True, **one)  # type: ignore[arg-type]


FAILURES: dict[str, Callable[[int], Iterator[Call]]] = {
    "runaway loop": lambda cap: _many(0.5, 5000, hour=11, share=0.0005, cap=cap, same="loop"),
    "loop that varies": lambda cap: _many(1, 5000, hour=11, share=0.002, cap=cap),
    "injected, new tool": lambda cap: _many(30, 40, hour=11, share=0.01, cap=cap, tool="admin__export"),
    "injected, new payee": lambda cap: _many(30, 40, hour=11, share=0.01, cap=cap, destination="mallory"),
    "slow leak": lambda cap: _many(400, 1500, hour=10, share=0.002, cap=cap),
    "hang that costs": lambda cap: (
        Call(
            one.at_us,
            one.tool,
            one.destination,
            one.amount,
            one.same,
            one.session,
            silent_us=number * 60 * S_US,
            bad=True,
        )
        for number, one in enumerate(_many(60, 120, hour=11, share=0.005, cap=cap))
    ),
    "off-hours use": lambda cap: _many(60, 60, hour=23, share=0.005, cap=cap),
    "retry storm": lambda cap: _many(0.2, 5000, hour=11, share=0.0005, cap=cap, failed=True),
}


def with_failure(kind: str, seed: int, day_cap: int, failure: str) -> list[Call]:
    """The normal agent up to the day of the failure, and the failure within it."""
    end_us = START_US + (FAILURE_DAY + 7) * DAY_US
    calls = [call for call in normal(kind, seed, day_cap) if call.at_us < end_us]
    return sorted([*calls, *FAILURES[failure](day_cap)], key=lambda call: call.at_us)
