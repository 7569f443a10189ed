"""The whole policy matrix, principal × tool × state → answer and reason, as a table that is reviewed as a diff.

A state that changes nothing for a tool leaves its row out: then the row of `fresh` holds. HALTLINE_SNAPSHOTS=1 writes the
table anew.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from haltline.policy.model import Allow, CapKind, Deny, Facts, Halt, HaltFact, Principal, Reason, Usage
from haltline.policy.money import format_amount, parse_amount
from haltline.policy.policy import Policy, RuleSaid, load_policy
from support.policy_texts import AGENT, NOON_US, call, write_files

if TYPE_CHECKING:
    from haltline.policy.model import Decision

HERE = Path(__file__).parent
SNAPSHOT = HERE / "matrix.snapshot"
HOUR_US = 3_600_000_000
TIERS = ("small", "office", "open", "gone")
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
CALLS = {
    "pay__charge": call("pay__charge", {"note": "n"}),
    "pay__charge, no note": call("pay__charge", {}),
    "pay__large": call("pay__large", {"note": "n"}),
    "pay__look": call("pay__look"),
    "pay__unpriced": call("pay__unpriced"),
    "files__read": call("files__read", {"path": "/srv/data/a"}, SCHEMA),
    "files__read, no path": call("files__read", {}, SCHEMA),
    "files__read, outside": call("files__read", {"path": "/etc/passwd"}, SCHEMA),
    "files__read, broken schema": call("files__read", {"path": "/srv/data/a"}, {"type": "nonsense"}),
    "admin__wipe": call("admin__wipe"),
    "pay__transfer": call("pay__transfer", {"amount": "0.07", "currency": "USD"}),
    "pay__transfer, large": call("pay__transfer", {"amount": 1.2, "currency": "USD"}),
    "pay__transfer, too large": call("pay__transfer", {"amount": 1.6, "currency": "USD"}),
    "pay__transfer, negative": call("pay__transfer", {"amount": -1, "currency": "USD"}),
    "pay__transfer, euros": call("pay__transfer", {"amount": 1, "currency": "EUR"}),
    "pay__transfer, no amount": call("pay__transfer", {"currency": "USD"}),
    "pay__ask": call("pay__ask"),
    "pay__run": call("pay__run"),
}
CENT = 10_000
FRESH = Facts(rate_counts={60: 0}, hour_resets_at_us=NOON_US + HOUR_US, day_resets_at_us=NOON_US + 12 * HOUR_US)


def halted(scope: Any) -> HaltFact:
    return HaltFact(scope, "operator.halt", "looks odd", "anna", NOON_US)


STATES: dict[str, tuple[Facts, dict[str, Any], int]] = {
    "fresh": (FRESH, {}, NOON_US),
    "task nearly spent": (FRESH._replace(task=Usage(47 * CENT, 0)), {}, NOON_US),
    "task spent": (FRESH._replace(task=Usage(500 * CENT, 0)), {}, NOON_US),
    "task on hold": (FRESH._replace(task=Usage(10 * CENT, 490 * CENT)), {}, NOON_US),
    "task spent, with an allowance": (
        FRESH._replace(task=Usage(50 * CENT, 0), allowances={CapKind.TASK: 50 * CENT}),
        {},
        NOON_US,
    ),
    "task on hold and in doubt": (FRESH._replace(task=Usage(10 * CENT, 490 * CENT, 190 * CENT)), {}, NOON_US),
    "hour spent": (FRESH._replace(hour=Usage(200 * CENT, 0)), {}, NOON_US),
    "day spent": (FRESH._replace(day=Usage(25_000 * CENT, 0)), {}, NOON_US),
    "day on hold": (FRESH._replace(day=Usage(100 * CENT, 24_900 * CENT)), {}, NOON_US),
    "calls spent": (FRESH._replace(calls_settled=20), {}, NOON_US),
    "calls running": (FRESH._replace(calls_settled=15, calls_open=5), {}, NOON_US),
    "rate reached": (FRESH._replace(rate_counts={60: 5}), {}, NOON_US),
    "rate unknown": (FRESH._replace(rate_counts={}), {}, NOON_US),
    "two running": (FRESH._replace(agent_open_calls=2), {}, NOON_US),
    "session halted": (FRESH._replace(halts=(halted("session"),)), {}, NOON_US),
    "agent halted": (FRESH._replace(halts=(halted("agent"),)), {}, NOON_US),
    "everything halted": (FRESH._replace(halts=(halted("session"), halted("everything"))), {}, NOON_US),
    "at night": (FRESH, {}, NOON_US + 9 * HOUR_US),
    "session narrowed": (FRESH, {"tools": ("pay__look",)}, NOON_US),
    "scope unknown": (FRESH, {"scopes": ("vanished",)}, NOON_US),
}
AUDIT_STATES = ("fresh", "task spent", "at night", "session narrowed", "session halted")


def rows(policy: Policy, states: dict[str, tuple[Facts, dict[str, Any], int]]) -> list[str]:
    table = []
    for tier in TIERS:
        fresh: dict[str, list[str]] = {}
        for state, (facts, narrowed, now_us) in states.items():
            for name, one in CALLS.items():
                who: Principal = replace(AGENT, tier=tier, **narrowed)
                answer = policy.decide(one, who, facts, now_us)
                assert answer == policy.explain(one, who, facts, now_us).decision
                lines = said(answer)
                if lines != fresh.setdefault(name, [] if state == "fresh" else lines):
                    table += [f"{tier:<6} | {state:<29} | {name:<26} | {line}" for line in lines]
                if state == "fresh":
                    fresh[name] = lines
    return table


def said(answer: Decision) -> list[str]:
    if isinstance(answer, Allow):
        reads = " reads" if answer.read_only else ""
        would = [f"would deny [{reason.code}] {reason.text}" for reason in answer.would_deny]
        return [f"allow {format_amount(answer.amount_micros)}{reads}", *would]
    verdict = f"halt {answer.scope}" if isinstance(answer, Halt) else "deny"
    return [f"{verdict} [{one.code}]{' retryable' if one.retryable else ''} {one.text}" for one in answer.reasons]


def audited(tmp_path: Path) -> Policy:
    text = (HERE / "matrix.yaml").read_text(encoding="utf-8")
    return load_policy(write_files(tmp_path, matrix=text.replace("time_zone:", "mode: audit\ntime_zone:", 1)))


@pytest.mark.promise("P6", "R3", "R4", "R16", "R29")
def test_every_answer_is_the_reviewed_one(tmp_path):
    enforced = load_policy(write_files(tmp_path / "e", matrix=(HERE / "matrix.yaml").read_text(encoding="utf-8")))
    table = [
        "mode: enforce",
        *rows(enforced, STATES),
        "",
        "mode: audit",
        *rows(audited(tmp_path / "a"), {state: STATES[state] for state in AUDIT_STATES}),
    ]
    text = "\n".join(table) + "\n"
    if os.environ.get("HALTLINE_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


@pytest.mark.promise("P6", "R3")
def test_what_is_explained_gives_the_numbers_of_every_refusal(tmp_path):
    refused = 0
    text = (HERE / "matrix.yaml").read_text(encoding="utf-8")
    for policy in (load_policy(write_files(tmp_path / "e", matrix=text)), audited(tmp_path / "a")):
        for tier in TIERS:
            for facts, narrowed, now_us in STATES.values():
                for one in CALLS.values():
                    who = replace(AGENT, tier=tier, **narrowed)
                    answer = policy.decide(one, who, facts, now_us)
                    if isinstance(answer, Allow):
                        continue
                    refused += 1
                    said = policy.explain(one, who, facts, now_us)
                    assert said.decision == answer
                    spoken = [rule.text for rule in said.rules if rule.spoke in {"deny", "halt"}]
                    for reason in answer.reasons:
                        assert any(reason.text.startswith(text.rstrip(".")) for text in spoken)
                        assert missing_numbers(reason, said.rules) == []
    assert refused > 1_000


def missing_numbers(reason: Reason, rules: tuple[RuleSaid, ...]) -> list[str]:
    """The amounts in a refusal's facts that no rule's explanation shows."""
    shown = " ".join(rule.text for rule in rules)
    wanted = {key: value for key, value in reason.facts.items() if key.endswith("_micros") and isinstance(value, int)}
    remaining = wanted.pop("remaining_micros", None)  # what the others leave
    if remaining is not None:
        parts = ("settled_micros", "held_micros", "in_doubt_micros")
        assert remaining == wanted["limit_micros"] - sum(wanted[part] for part in parts)
    for unsaid in ("held_micros", "in_doubt_micros"):
        if unsaid in wanted and not wanted[unsaid]:
            del wanted[unsaid]
    return [
        f"{key} {value}"
        for key, value in wanted.items()
        if format_amount(value) not in shown and not allowed_on_top(value, shown)
    ]


def allowed_on_top(limit: int, shown: str) -> bool:
    """A limit that an allowance raised is said as the cap and what was allowed."""
    sums = re.findall(r"cap ([0-9.]+) USD and ([0-9.]+) allowed on top", shown)
    return any(parse_amount(cap) + parse_amount(added) == limit for cap, added in sums)


@pytest.mark.promise("R22")
def test_a_listing_shows_exactly_what_a_call_would_not_be_refused_as_out_of_scope(tmp_path):
    for policy in (
        load_policy(write_files(tmp_path / "e", matrix=(HERE / "matrix.yaml").read_text())),
        audited(tmp_path / "a"),
    ):
        for tier in TIERS:
            for facts, narrowed, now_us in STATES.values():
                for one in CALLS.values():
                    who = replace(AGENT, tier=tier, **narrowed)
                    answer = policy.decide(one, who, facts._replace(halts=()), now_us)
                    out = isinstance(answer, Deny) and (
                        any(reason.code == "scope.tool" for reason in answer.reasons)
                        or any("the policy has no" in reason.text for reason in answer.reasons)
                    )
                    assert policy.grants(who, one.tool, one.upstream) is not out
