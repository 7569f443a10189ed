"""How rules fold to one answer, and the arithmetic of caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.policy.decide import decide
from haltline.policy.grant import Grant
from haltline.policy.model import Allow, CapKind, Caps, Deny, Facts, Halt, HaltFact, Hours, Rate, Usage
from haltline.policy.prices import Fixed, Price
from haltline.policy.rules import Asked
from haltline.policy.terms import Terms
from support.policy_texts import AGENT, NOON_US, call, policy_from, who

CAPPED = """
currency: USD
tiers:
  t:
    tools: ["*"]
    caps: {task: "0.50", hour: "1.00", day: "2.00", calls: 10}
    on_deny: Ask Anna.
tools:
  pay__charge: {price: "0.05"}
  pay__free: {price: "0"}
  pay__dear: {price: "1000000000.00"}
"""


@pytest.fixture(scope="module")
def capped(tmp_path_factory):
    return policy_from(tmp_path_factory.mktemp("policies"), CAPPED)


def answer(policy, facts=None, tool="pay__charge", **changes: Any):
    one = call(tool)
    decided = policy.decide(one, who(**changes), facts or Facts(), NOON_US)
    assert policy.explain(one, who(**changes), facts or Facts(), NOON_US).decision == decided
    return decided


@pytest.mark.promise("R3")
def test_a_cap_is_reached_exactly_and_never_passed(capped):
    assert isinstance(answer(capped, Facts(task=Usage(450_000, 0))), Allow)
    halted = answer(capped, Facts(task=Usage(450_001, 0)))
    assert isinstance(halted, Halt)
    assert halted.scope == "session"
    assert halted.reasons[0].code == "budget.task_exceeded"
    assert halted.reasons[0].facts == {
        "cap": "task",
        "limit_micros": 500_000,
        "settled_micros": 450_001,
        "held_micros": 0,
        "in_doubt_micros": 0,
        "remaining_micros": 49_999,
        "amount_micros": 50_000,
    }


@pytest.mark.promise("R3")
@pytest.mark.parametrize(
    ("usage", "code", "stops"),
    [
        ("task", "budget.task_exceeded", "session"),
        ("hour", "budget.hour_exceeded", "agent"),
        ("day", "budget.day_exceeded", "agent"),
    ],
)
def test_only_what_is_settled_halts_and_what_holds_cause_may_be_retried(capped, usage, code, stops):
    limit = {"task": 500_000, "hour": 1_000_000, "day": 2_000_000}[usage]
    spent = answer(capped, Facts(**{usage: Usage(limit, 0)}))
    assert isinstance(spent, Halt)
    assert (spent.reasons[0].code, spent.scope) == (code, stops)
    held = answer(capped, Facts(**{usage: Usage(limit - 50_000, 50_000)}))
    assert isinstance(held, Deny)
    assert held.reasons[0].code == "budget.cap_held"
    assert held.reasons[0].retryable
    assert held.reasons[0].facts["cap"] == usage


@pytest.mark.promise("R3")
def test_a_halt_comes_before_a_refusal_that_may_be_retried(capped):
    both = answer(capped, Facts(task=Usage(0, 500_000), day=Usage(2_000_000, 0)))
    assert isinstance(both, Halt)
    assert [reason.code for reason in both.reasons] == ["budget.day_exceeded", "budget.cap_held"]


def test_of_two_caps_that_halt_the_task_is_named_first(capped):
    both = answer(capped, Facts(task=Usage(500_000, 0), day=Usage(2_000_000, 0)))
    assert isinstance(both, Halt)
    assert both.scope == "session"
    assert [reason.code for reason in both.reasons] == ["budget.task_exceeded", "budget.day_exceeded"]


@pytest.mark.promise("R5")
def test_below_what_is_spent_a_lowered_cap_stops_admission_until_usage_fits(capped):
    lowered = {"session_caps": Caps(task_micros=100_000)}
    assert isinstance(answer(capped, Facts(task=Usage(300_000, 0)), **lowered), Halt)
    assert isinstance(answer(capped, Facts(task=Usage(300_000, 0)), tool="pay__free", **lowered), Halt)
    assert isinstance(answer(capped, Facts(task=Usage(100_000, 0)), tool="pay__free", **lowered), Allow)


@pytest.mark.promise("P2")
@given(
    limits=st.lists(st.none() | st.integers(0, 2_000_000), min_size=2, max_size=2),
    settled=st.integers(0, 2_000_000),
    held=st.integers(0, 2_000_000),
    added=st.integers(0, 1_000_000),
)
def test_an_allowed_call_stays_within_the_strictest_cap_and_what_a_person_added(capped, limits, settled, held, added):
    agent, session = (Caps(task_micros=limit) for limit in limits)
    facts = Facts(task=Usage(settled, held), allowances={CapKind.TASK: added})
    strictest = min([500_000, *(limit for limit in limits if limit is not None)])
    fits = settled + held + 50_000 <= strictest + added
    decided = answer(capped, facts, agent_caps=agent, session_caps=session)
    assert isinstance(decided, Allow) is fits
    if not fits:
        assert isinstance(decided, Halt) is (settled + 50_000 > strictest + added)


def test_an_allowance_adds_to_its_cap_alone(capped):
    spent = Facts(task=Usage(500_000, 0), allowances={CapKind.TASK: 50_000})
    assert isinstance(answer(capped, spent), Allow)
    over = answer(capped, spent._replace(task=Usage(500_001, 0)))
    assert isinstance(over, Halt)
    assert over.reasons[0].text == "task cap 0.50 USD and 0.05 allowed on top, spent 0.500001, this call 0.05"
    assert over.reasons[0].facts["limit_micros"] == 550_000
    assert isinstance(answer(capped, spent._replace(task=Usage(), day=Usage(2_000_000, 0))), Halt)
    assert isinstance(answer(capped, Facts(calls_settled=10, allowances={CapKind.CALLS: 1})), Allow)


def test_amounts_beyond_sixty_four_bits_are_still_compared_exactly(capped):
    huge = answer(capped, Facts(task=Usage(2**80, 2**80)), tool="pay__dear")
    assert isinstance(huge, Halt)
    assert huge.reasons[0].facts["settled_micros"] == 2**80
    lifted = Facts(allowances=dict.fromkeys(CapKind, 2**70), task=Usage(2**69, 2**69))
    assert isinstance(answer(capped, lifted), Allow)


@pytest.mark.promise("R3")
@pytest.mark.parametrize(
    ("facts", "caps", "code"),
    [
        (Facts(calls_settled=9, calls_open=1), Caps(), "calls.cap_held"),
        (Facts(rate_counts={60: 5}), Caps(rate=Rate(5, 60)), "rate.exceeded"),
        (Facts(agent_open_calls=2), Caps(concurrent=2), "rate.concurrent"),
    ],
)
def test_running_calls_rate_and_concurrency_refuse_and_may_be_retried(capped, facts, caps, code):
    refused = answer(capped, facts, agent_caps=caps)
    assert isinstance(refused, Deny)
    assert refused.reasons[0].code == code
    assert refused.reasons[0].retryable
    assert "Ask Anna" not in refused.reasons[0].text


@pytest.mark.promise("R3")
def test_the_number_of_calls_halts_the_session(capped):
    spent = answer(capped, Facts(calls_settled=10, calls_open=3))
    assert isinstance(spent, Halt)
    assert (spent.scope, spent.reasons[0].code) == ("session", "calls.exceeded")


@pytest.mark.promise("R3")
def test_the_cap_on_one_call_denies_and_never_halts(capped):
    refused = answer(capped, agent_caps=Caps(per_call_micros=10_000))
    assert isinstance(refused, Deny)
    assert refused.reasons[0].code == "charge.too_large"
    assert refused.reasons[0].text == "per-call cap 0.01 USD, this call 0.05. Ask Anna."


@pytest.mark.promise("R4")
def test_a_single_charge_fires_on_what_was_attempted_although_a_smaller_cap_refuses_it(tmp_path):
    policy = policy_from(
        tmp_path,
        """
        tiers: {t: {tools: ["*"], caps: {per_call: "0.10", task: "0.50"}, halts_on: {single_charge: "1.00"}}}
        tools: {pay__at: {price: "1.00"}, pay__over: {price: "1.000001"}}
        """,
    )
    at, over = answer(policy, tool="pay__at"), answer(policy, tool="pay__over")
    assert isinstance(at, Deny)
    assert at.reasons[0].code == "charge.too_large"
    assert isinstance(over, Halt)
    assert (over.scope, over.reasons[0].code) == ("agent", "charge.single_exceeded")


def test_hours_and_days_say_when_they_begin_anew(capped):
    facts = Facts(hour=Usage(10**7, 0), hour_resets_at_us=NOON_US, day_resets_at_us=NOON_US + 1)
    spent = answer(capped, facts)
    assert spent.reasons[0].facts["resets_at"] == "2025-11-25T12:00:00Z"


def test_a_halt_is_told_with_its_cause(capped):
    fact = HaltFact("agent", "budget.day_exceeded", "day cap 2.00 USD, spent 2.00", "haltline", NOON_US)
    refused = answer(capped, Facts(halts=(fact,)))
    assert isinstance(refused, Deny)
    assert refused.reasons[0].code == "agent.halted"
    assert refused.reasons[0].facts == {
        "cause": "budget.day_exceeded",
        "by": "haltline",
        "since": "2025-11-25T12:00:00Z",
    }
    assert refused.reasons[0].text.startswith("agent bot was halted by haltline [budget.day_exceeded]: day cap")


@pytest.mark.promise("P6")
def test_a_policy_that_says_nothing_allows_nothing(tmp_path):
    policy = policy_from(tmp_path, "tiers: {t: {}}\ntools: {pay__charge: {price: '0'}}")
    refused = answer(policy)
    assert isinstance(refused, Deny)
    assert refused.reasons[0].code == "scope.tool"
    assert isinstance(answer(policy, tier="none"), Deny)


@pytest.mark.promise("P6", "R6")
def test_a_tool_without_a_price_is_refused(tmp_path):
    refused = answer(policy_from(tmp_path, 'tiers: {t: {tools: ["*"]}}'))
    assert isinstance(refused, Deny)
    assert refused.reasons[0].code == "charge.unpriced"


def test_an_agents_scopes_hours_and_a_sessions_tools_only_narrow(tmp_path):
    policy = policy_from(
        tmp_path,
        """
        tiers: {t: {tools: [pay__charge, pay__look], scopes: [a]}}
        scopes: {a: {tools: ["pay__*"]}, b: {tools: [pay__look, files__read]}}
        tools: {"*": {price: "0"}}
        """,
    )
    assert isinstance(answer(policy), Allow)
    assert isinstance(answer(policy, scopes=("b",)), Deny)
    assert isinstance(answer(policy, tool="pay__look", scopes=("b",)), Allow)
    assert isinstance(answer(policy, tool="files__read", scopes=("b",), tools=("*",)), Deny)
    assert isinstance(answer(policy, tools=()), Deny)
    shut = answer(policy, hours=Hours(frozenset({0}), 0, 60, "UTC"))
    assert isinstance(shut, Deny)
    assert shut.reasons[0].code == "scope.hours"
    assert "outside the hours of agent bot" in shut.reasons[0].text


AUDITED = """
mode: {mode}
tiers:
  t:
    tools: [pay__charge]
    scopes: [s]
    hours: {{days: mon, from: "08:00", to: "09:00", time_zone: UTC}}
    caps: {{task: "0.50"}}
    halts_on: {{single_charge: "1.00"}}
scopes:
  s:
    tools: [pay__charge]
    arguments:
      - {{path: args.amount, op: le, value: "5", mode: {rule}}}
tools: {{pay__charge: {{price: "0.05"}}, pay__large: {{price: "2.00"}}}}
"""


@pytest.mark.promise("R29")
def test_in_audit_mode_rules_only_say_what_they_would_refuse(tmp_path):
    policy = policy_from(tmp_path, AUDITED.format(mode="audit", rule="audit"))
    allowed = policy.decide(call("pay__charge", {}, {"type": "nonsense"}), who(), Facts(), NOON_US)
    assert isinstance(allowed, Allow)
    assert [reason.code for reason in allowed.would_deny] == ["scope.hours", "args.schema", "args.rule"]


@pytest.mark.promise("R29")
def test_halts_caps_charges_unpriced_tools_and_identity_refuse_in_audit_mode_too(tmp_path):
    policy = policy_from(tmp_path, AUDITED.format(mode="audit", rule="audit"))
    halt = HaltFact("session", "operator.halt", "", "anna", 0)
    assert isinstance(answer(policy, Facts(halts=(halt,))), Deny)
    assert isinstance(answer(policy, Facts(task=Usage(500_000, 0))), Halt)
    assert isinstance(answer(policy, tool="pay__large"), Halt)
    assert answer(policy, tool="pay__unknown").reasons[0].code == "charge.unpriced"
    assert answer(policy, tier="none").reasons[0].code == "policy.error"
    assert answer(policy, scopes=("none",)).reasons[0].code == "policy.error"
    assert answer(policy, tools=()).reasons[0].code == "scope.tool"
    assert answer(policy, hours=Hours(frozenset({0}), 0, 60, "UTC")).reasons[0].code == "scope.hours"


@pytest.mark.promise("R29")
def test_a_rule_of_its_own_mode_keeps_it_whatever_the_policy_says(tmp_path):
    strict = policy_from(tmp_path / "a", AUDITED.format(mode="audit", rule="enforce"))
    assert answer(strict).reasons[0].code == "args.rule"
    loose = policy_from(tmp_path / "b", AUDITED.format(mode="enforce", rule="audit"))
    monday = NOON_US - 86_400_000_000 - 3 * 3_600_000_000 - 1
    allowed = loose.decide(call("pay__charge"), who(), Facts(), monday)
    assert isinstance(allowed, Allow)
    assert [reason.code for reason in allowed.would_deny] == ["args.rule"]


@dataclass(frozen=True)
class Broken:
    audit: bool
    name: str = "broken"
    where: str = "here:1"

    def ask(self, asked):
        raise ZeroDivisionError(asked.call.tool)

    def fine(self, asked):
        return asked.call.tool


def broken(*, audit: bool):
    grant = Grant(((Broken(audit),),), (), known=True, limits=(), rate_windows_s=(), on_deny="")
    terms = Terms(Price(Fixed(1), "x.yaml:1", "*"), read_only=False, charge_on_error=True, deadline_s=1)
    return decide(grant, Asked(call(), AGENT, Facts(), NOON_US, terms))


@pytest.mark.promise("R29")
def test_a_rule_in_audit_mode_that_fails_refuses_nothing_and_says_so():
    allowed = broken(audit=True)
    assert isinstance(allowed, Allow)
    assert allowed.would_deny[0].text == "rule broken at here:1 failed: ZeroDivisionError"


@pytest.mark.promise("P6")
def test_a_rule_in_force_that_fails_is_never_an_allow():
    with pytest.raises(ZeroDivisionError):
        broken(audit=False)
