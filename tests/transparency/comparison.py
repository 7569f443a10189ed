"""What a comparison of direct and brokered needs: a policy that is in nobody's way, and differences told by their reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from support.field_diff import Difference

__all__ = ["POLICY", "PRICED", "unexplained", "unprefixed"]

POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  all: {tools: ["*"]}
tools:
  "*": {price: "0.00"}
"""
PRICED = (
    r"tools/list\[0\]\.result\.tools\[[0-9]+\]\._meta(\.io\.haltline/price.*)?",
    "the price of a call, which is the operator's to say, stands under the broker's own key",
)


def unexplained(title: str, differing: Iterable[Difference], allowed: Sequence[tuple[str, str]]) -> list[str]:
    """Print the differences by their reasons; returns those that have none."""
    by_reason: dict[str, list[str]] = {}
    for one in differing:
        reasons = [reason for pattern, reason in allowed if re.fullmatch(pattern, one.path)]
        by_reason.setdefault(reasons[0] if reasons else "", []).append(one.path if reasons else str(one))
    others = by_reason.pop("", [])
    print(f"\n{title}: {sum(map(len, by_reason.values()))} differences with a reason, {len(others)} without")
    for reason, paths in by_reason.items():
        print(f"  {reason}:\n      {', '.join(paths)}")
    return others


def unprefixed(value: Any, prefix: str) -> Any:
    """Names as the upstream has them."""
    if isinstance(value, dict):
        return {key: unprefixed(item, prefix) for key, item in value.items()}
    if isinstance(value, list):
        return [unprefixed(item, prefix) for item in value]
    return value.removeprefix(prefix) if isinstance(value, str) else value
