"""Prices that are no fixed amount: what a call holds, what it is refused for, and what its answer is charged (R6, R7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haltline.policy.model import Allow, Deny, Facts, Halt, Reason
from haltline.policy.money import BEYOND_MICROS, Written, read_amount
from haltline.policy.policy import ToolDefaults
from haltline.policy.price_entry import parse_price
from haltline.policy.prices import Bill
from haltline.upstreams.messages import read
from support.policy_texts import AGENT, NOON_US, call, policy_from, who

POLICY = """
currency: EUR
tiers:
  t: {tools: ["*"], caps: {per_call: "900.00"}}
  gold: {tools: ["*"]}
  strict: {tools: ["*"], halts_on: {single_charge: "600.00"}}
tools:
  pay__transfer: {price: {argument: args.amount, currency: args.currency, at_most: "500.00"}}
  pay__cents: {price: {argument: "items[*].cents", each: "0.01"}}
  pay__free: {price: {argument: amount}}
  ai__ask: {price: {result: structuredContent.usage.cost, at_most: "0.50"}}
  ai__meta: {price: {result: '_meta["com.example/cost"]', currency: '_meta["com.example/currency"]', at_most: "0.50"}}
  ai__tokens: {price: {result: structuredContent.tokens, each: "0.000003", at_most: "1.00"}}
  run__job: {price: {per_second: "0.002"}, timeout_s: 30}
  shop__buy:
    price: "0.05"
    price_for: {agents: {vip-1: "0.01"}, tiers: {gold: "0.02"}}
  "shop__*": {price: "1.00", price_for: {agents: {vip-1: "0.90"}}}
"""


@pytest.fixture
def policy(tmp_path):
    return policy_from(tmp_path, POLICY)


def ask(policy, tool, arguments=None, *, tier="t", agent="bot"):
    return policy.decide(call(tool, arguments or {}), who(agent=agent, tier=tier), Facts(), NOON_US)


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0.1", 100_000),
        ("0.30000000000000004", 300_001),
        ("0.1000000000000000000000001", 100_001),
        ("1e-7", 1),
        ("1E+2", 100_000_000),
        ("12", 12_000_000),
        ("0", 0),
        ("0.0000001", 1),
        ('"12.50"', 12_500_000),
        ('"0.00000000000000000000000000001"', 1),
        ("1e300", BEYOND_MICROS),
        ("9" * 500, BEYOND_MICROS),
    ],
)
def test_an_amount_counts_as_it_is_written_and_is_rounded_up(text, micros):
    value = read(f'{{"a": {text}}}'.encode())["a"]
    assert read_amount(value) == micros


def test_a_number_that_a_double_cannot_hold_travels_on_as_before():
    value = read(b"[0.1000000000000000000000001, 0.5, 0.30000000000000004]")
    assert [type(one) for one in value] == [Written, float, float]
    assert json.dumps(value) == "[0.1, 0.5, 0.30000000000000004]"


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (-1, "is negative"),
        (-0.01, "is negative"),
        ("-3.00", "is negative"),
        (float("nan"), "is not a decimal number"),
        (float("inf"), "is not a decimal number"),
        ("NaN", "is not a decimal number"),
        ("1e3", "is not a decimal number"),
        ("1,50", "is not a decimal number"),
        ("", "is not a decimal number"),
        (True, "is not a number"),
        ([1], "is not a number"),
        ({}, "is not a number"),
    ],
)
def test_what_is_no_amount_is_said_to_be_none(value, why):
    with pytest.raises(ValueError, match=why):
        read_amount(value)


@pytest.mark.promise("R6")
def test_a_call_holds_what_its_argument_states(policy):
    transfer = ask(policy, "pay__transfer", {"amount": "12.50", "currency": "eur"})
    assert isinstance(transfer, Allow)
    assert (transfer.amount_micros, transfer.price) == (
        12_500_000,
        "policy.yaml: pay__transfer argument args.amount, at most 500.00",
    )
    cents = ask(policy, "pay__cents", {"items": [{"cents": 150}, {"cents": 1}]})
    assert isinstance(cents, Allow)
    assert cents.amount_micros == 1_510_000


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    ("tool", "arguments", "code", "text"),
    [
        ("pay__transfer", {"currency": "EUR"}, "charge.amount_missing", "args.amount must state the amount, and is missing"),
        ("pay__transfer", {"amount": None, "currency": "EUR"}, "charge.amount_missing", "args.amount must state"),
        ("pay__transfer", {"amount": -5, "currency": "EUR"}, "charge.amount_invalid", "args.amount must state the amount, and is negative"),
        ("pay__transfer", {"amount": "all", "currency": "EUR"}, "charge.amount_invalid", "and is not a decimal number"),
        ("pay__transfer", {"amount": 5}, "charge.currency", "args.currency must be EUR, and is missing"),
        ("pay__transfer", {"amount": 5, "currency": "USD"}, "charge.currency", "args.currency must be EUR, and names another"),
        ("pay__transfer", {"amount": 501, "currency": "EUR"}, "charge.too_large", "goes up to 500.00 EUR, this call 501.00"),
        ("pay__cents", {"items": []}, "charge.amount_missing", "items[*].cents must state"),
        ("pay__cents", {"items": [{"cents": 1}, {}]}, "charge.amount_missing", "items[*].cents must state"),
        ("pay__free", {"amount": 10**30}, "charge.too_large", "per-call cap 900.00 EUR"),
    ],
)  # fmt: skip
def test_a_call_that_does_not_state_its_amount_is_refused_before_it_goes_out(policy, tool, arguments, code, text):
    answer = ask(policy, tool, arguments)
    assert isinstance(answer, Deny)
    assert answer.reasons[0].code == code
    assert text in answer.reasons[0].text


def test_no_amount_is_larger_than_a_ledger_can_hold(policy):
    answer = ask(policy, "pay__free", {"amount": 10**30}, tier="gold")
    assert isinstance(answer, Deny)
    assert answer.reasons[0].code == "charge.too_large"


@pytest.mark.promise("R4")
def test_the_amount_attempted_halts_also_where_the_price_s_own_maximum_would_have_refused(policy):
    answer = ask(policy, "pay__transfer", {"amount": 700, "currency": "EUR"}, tier="strict")
    assert isinstance(answer, Halt)
    assert answer.reasons[0].facts["amount_micros"] == 700_000_000


def test_a_price_of_an_agent_goes_before_its_tier_s_and_a_name_before_a_pattern(policy):
    amounts = {
        (agent, tier, tool): ask(policy, tool, agent=agent, tier=tier).amount_micros
        for agent in ("vip-1", "bot")
        for tier in ("t", "gold")
        for tool in ("shop__buy", "shop__sell")
    }
    assert amounts == {
        ("vip-1", "t", "shop__buy"): 10_000,
        ("vip-1", "t", "shop__sell"): 900_000,
        ("vip-1", "gold", "shop__buy"): 10_000,
        ("vip-1", "gold", "shop__sell"): 900_000,
        ("bot", "t", "shop__buy"): 50_000,
        ("bot", "t", "shop__sell"): 1_000_000,
        ("bot", "gold", "shop__buy"): 20_000,
        ("bot", "gold", "shop__sell"): 1_000_000,
    }
    assert (policy.priced_alone("vip-1"), policy.priced_alone("bot")) == (True, False)


@pytest.mark.promise("R6", "R7")
@pytest.mark.parametrize(
    ("tool", "result", "bill"),
    [
        ("ai__ask", {"structuredContent": {"usage": {"cost": 0.1}}}, Bill(100_000)),
        ("ai__ask", {"structuredContent": {"usage": {"cost": "0.75"}}}, Bill(750_000)),
        ("ai__ask", {"structuredContent": {"usage": {}}}, 500_000),
        ("ai__ask", {"structuredContent": {"usage": {"cost": -0.1}}}, 500_000),
        ("ai__ask", {"structuredContent": {"usage": {"cost": "free"}}}, 500_000),
        ("ai__ask", {}, 500_000),
        ("ai__ask", {"isError": True, "structuredContent": {"usage": {"cost": 0.1}}}, Bill(500_000)),
        ("ai__ask", {"isError": True, "structuredContent": {"usage": {"cost": 0.6}}}, Bill(600_000)),
        ("ai__meta", {"_meta": {"com.example/cost": 0.2, "com.example/currency": "EUR"}}, Bill(200_000)),
        ("ai__meta", {"_meta": {"com.example/cost": 0.2, "com.example/currency": "USD"}}, 500_000),
        ("ai__meta", {"_meta": {"com.example/cost": 0.2}}, 500_000),
        ("ai__tokens", {"structuredContent": {"tokens": 1234}}, Bill(3_702)),
    ],
)
def test_an_answer_is_charged_what_it_says_and_the_full_hold_where_it_does_not(policy, tool, result: Any, bill):
    allow = ask(policy, tool)
    assert isinstance(allow, Allow)
    assert allow.rate is not None
    said = allow.rate.bill(result, allow.amount_micros, 1)
    if isinstance(bill, int):
        assert (said.micros, bool(said.why)) == (bill, True)
    else:
        assert said == bill


@pytest.mark.promise("R6")
def test_running_time_is_charged_by_the_second_up_to_the_deadline(policy):
    allow = ask(policy, "run__job")
    assert isinstance(allow, Allow)
    assert allow.amount_micros == 60_000
    assert allow.rate is not None
    billed = [allow.rate.bill({}, 60_000, ran_us).micros for ran_us in (0, 1, 1_500_000, 29_999_999, 31_000_000)]
    assert billed == [0, 1, 3_000, 60_000, 60_000]


def test_what_is_explained_says_where_the_amount_comes_from(policy):
    said = policy.explain(call("pay__transfer", {"amount": 5, "currency": "EUR"}), AGENT, Facts(), NOON_US)
    texts = {one.rule: one.text for one in said.rules}
    assert texts["price"] == "argument args.amount, at most 500.00, by pay__transfer in policy.yaml:8"
    assert texts["price maximum"] == "the price goes up to 500.00 EUR, this call 5.00"
    silent = policy.explain(call("pay__transfer", {"amount": 5}), AGENT, Facts(), NOON_US)
    assert isinstance(silent.decision, Deny)
    assert {one.text for one in silent.rules if one.spoke == "silent"} == {"there is no amount to measure"}


@pytest.mark.parametrize(
    ("price", "sentence"),
    [
        ({}, "a price is exactly one of fixed, argument, result, per_second"),
        ({"fixed": "1", "argument": "a"}, "a price is exactly one of fixed, argument, result, per_second"),
        ({"per_second": "1", "at_most": "2"}, "at_most says nothing beside per_second; leave it out"),
        ({"result": "structuredContent.cost"}, "a price read from the result needs at_most"),
        ({"result": "cost", "at_most": "1"}, "'cost' is no path into a result"),
        ({"argument": "a b"}, "'a b' is no path"),
        (0.05, "write the amount in quotes"),
        ({"fixed": "-1"}, "is negative"),
        ({"argument": "a", "each": 0.1}, "each: write the amount in quotes"),
    ],
)
def test_a_price_that_cannot_be_meant_is_refused_with_what_to_write(price, sentence):
    with pytest.raises(ValueError, match=r".") as refused:
        parse_price(price)
    assert sentence in str(refused.value)


def test_an_upstream_s_own_price_may_be_read_from_an_argument_too(tmp_path):
    policy = policy_from(tmp_path, 'tiers: {t: {tools: ["*"]}}', pay=ToolDefaults({"argument": "amount"}))
    allow = ask(policy, "pay__x", {"amount": 2})
    assert isinstance(allow, Allow)
    assert allow.amount_micros == 2_000_000
    assert not isinstance(policy.terms_for(AGENT, "pay__x", "pay").amount({"amount": 2}), Reason)
