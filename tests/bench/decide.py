"""The decision alone, with its facts in memory: `Policy.decide` in microseconds of CPU time, no store and no wire.

usage: python tests/bench/decide.py
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import CHECKOUT, Failed

from haltline.policy.caps import parse_caps
from haltline.policy.model import Allow, Facts, Principal, ToolCall, Usage
from haltline.policy.policy import load_policy

if TYPE_CHECKING:
    from haltline.policy.policy import Policy

__all__ = ["main", "measured"]

RULES = 50
ALL_RULES = 500
NOW_US = 1_800_000_000_000_000
BATCH = 500
BATCHES = 200
SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "string"}, "payee": {"type": "string"}, "reference": {"type": "string"}},
    "required": ["amount", "payee"],
}
ARGUMENTS = {"amount": "10.00", "payee": "anna", "reference": "desk-123", "note": "for the broken lamp"}
FACTS = Facts(
    task=Usage(120_000, 50_000),
    hour=Usage(320_000, 50_000),
    day=Usage(1_320_000, 50_000),
    calls_settled=12,
    calls_open=1,
    rate_counts={60: 7},
    agent_open_calls=1,
)
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"path": "args.amount", "op": "le", "value": "25.00"},
    {"path": "args.reference", "op": "matches", "value": "desk-[0-9]{1,12}"},
    {"path": "args.payee", "op": "not_in", "value": ["cash", "unknown"]},
    {"path": "args.note", "op": "starts_with", "value": "for", "optional": True},
    {"path": "args.currency", "op": "absent"},
)


def main() -> None:
    for name, p50, p99 in _rows():
        print(f"{name}: p50 {p50:.1f} µs, p99 {p99:.1f} µs")


def measured() -> dict[str, float]:
    """The heavy one, in µs."""
    _, p50, p99 = _rows()[1]
    return {"heavy_us": p50, "heavy_p99_us": p99}


def _rows() -> list[tuple[str, float, float]]:
    """What was decided, p50 and p99 in µs."""
    shipped = load_policy(CHECKOUT / "policies")
    with tempfile.TemporaryDirectory() as folder:
        heavy = _heavy(Path(folder) / "heavy", RULES)
        wide = _heavy(Path(folder) / "wide", ALL_RULES)
        return [
            _row("the shipped policy, 2 caps, a schema", shipped, "production", "payments__charge"),
            _row(f"{RULES} argument rules, 8 caps, a schema", heavy, "heavy", "shop__pay"),
            _row(f"the same, with {ALL_RULES - RULES} rules for other tools beside them", wide, "heavy", "shop__pay"),
        ]


def _row(name: str, policy: Policy, tier: str, tool: str) -> tuple[str, float, float]:
    caps = parse_caps({"task": "100.00", "day": "500.00"}) if tier == "heavy" else parse_caps({})
    who = Principal("agt_1", "bench", tier, "ses_1", "benchmark", session_caps=caps)
    call = ToolCall(tool, tool.split("__", maxsplit=1)[0], ARGUMENTS, SCHEMA)
    decision = policy.decide(call, who, FACTS, NOW_US)
    if not isinstance(decision, Allow):
        raise Failed(f"{name}: {decision}")
    took = sorted(_batch(policy, call, who) for _ in range(BATCHES))
    return name, took[BATCHES // 2], took[int(BATCHES * 0.99)]


def _batch(policy: Policy, call: ToolCall, who: Principal) -> float:
    begun = time.thread_time()
    for number in range(BATCH):
        policy.decide(call, who, FACTS, NOW_US + number)
    return (time.thread_time() - begun) / BATCH * 1e6


def _heavy(folder: Path, count: int) -> Policy:
    """All caps, and so many rules on arguments; those after the first 50 are for other tools."""
    rules = [
        QUESTIONS[number % len(QUESTIONS)]
        | ({"tools": [f"shop__other_{number}", "mail__*"]} if number >= RULES else {})
        for number in range(count)
    ]
    folder.mkdir()
    caps = {"per_call": "1.00", "task": "50.00", "hour": "100.00", "day": "900.00", "calls": 1000}
    tier = {"tools": ["*"], "scopes": ["pay"], "caps": {**caps, "rate": "600/minute", "concurrent": 64}}
    content = {
        "version": "1",
        "tiers": {"heavy": tier},
        "scopes": {"pay": {"arguments": rules}},
        "tools": {"shop__pay": {"price": "0.05"}},
    }
    (folder / "policy.yaml").write_text(json.dumps(content), encoding="utf-8")
    return load_policy(folder)


if __name__ == "__main__":
    main()
