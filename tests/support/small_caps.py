"""A policy with small caps over the counting upstream's tools, as whole numbers of calls."""

from __future__ import annotations

__all__ = ["DAY_MICROS", "POLICY", "PRICE_MICROS", "TASK_MICROS", "upstream"]

PRICE_MICROS = 50_000
TASK_MICROS = 300_000
DAY_MICROS = 750_000
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  small: {tools: ["*"], caps: {task: "0.30", day: "0.75"}}
  wide: {tools: ["*"], caps: {task: "100000.00", day: "1000000.00"}}
  fifty_a_task: {tools: ["*"], caps: {task: "2.50", day: "1000000.00"}}
  fifty_a_day: {tools: ["*"], caps: {task: "1000.00", day: "2.50"}}
tools:
  "*__pay": {price: "0.05"}
  "*__look": {price: "0.00", read_only: true}
"""


def upstream(url: str, **more: object) -> dict[str, object]:
    """An entry of haltline.yaml that lets everything through at once."""
    return {"url": url, "max_concurrent": 1024, **more}
