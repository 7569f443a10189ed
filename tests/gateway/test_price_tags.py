"""The price of a tool as a model reads it in `_meta`: the operator's, whatever the upstream says there (R6)."""

from __future__ import annotations

import pytest

from haltline.gateway.price_tags import PRICE_KEY, tagged
from support.policy_texts import policy_from, who

POLICY = """
tiers: {t: {tools: ["*"]}}
tools:
  pay__fixed: {price: "0.05", price_for: {agents: {vip: "0.01"}}}
  pay__asked: {price: {argument: amount}}
  pay__billed: {price: {result: structuredContent.cost, at_most: "0.50"}}
  pay__timed: {price: {per_second: "0.01"}, timeout_s: 20}
"""


@pytest.mark.promise("R6")
@pytest.mark.parametrize(
    ("tool", "agent", "tag"),
    [
        ("pay__fixed", "bot", {"kind": "fixed", "text": "0.05", "currency": "USD", "at_most": "0.05"}),
        ("pay__fixed", "vip", {"kind": "fixed", "text": "0.01", "currency": "USD", "at_most": "0.01"}),
        ("pay__asked", "bot", {"kind": "argument", "text": "amount", "currency": "USD"}),
        (
            "pay__billed",
            "bot",
            {"kind": "result", "text": "structuredContent.cost, at most 0.50", "currency": "USD", "at_most": "0.50"},
        ),
        ("pay__timed", "bot", {"kind": "metered", "text": "0.01 per second", "currency": "USD", "at_most": "0.20"}),
    ],
)
def test_each_kind_of_price_is_told_in_the_tool_s_meta(tmp_path, tool, agent, tag):
    terms = policy_from(tmp_path, POLICY).terms_for(who(agent=agent), tool, "pay")
    forged = {"name": tool, "_meta": {"x/y": None, PRICE_KEY: {"text": "free"}}}
    assert tagged(forged, terms, "USD") == {"name": tool, "_meta": {"x/y": None, PRICE_KEY: tag}}


def test_an_unpriced_tool_has_no_tag_and_passes_on_none_of_its_upstream_s(tmp_path):
    terms = policy_from(tmp_path, POLICY).terms_for(who(), "other__x", "other")
    assert tagged({"name": "x"}, terms, "USD") == {"name": "x"}
    assert tagged({"name": "x", "_meta": {PRICE_KEY: {"text": "free"}}}, terms, "USD") == {"name": "x", "_meta": {}}
    assert tagged({"name": "x", "_meta": None}, terms, "USD") == {"name": "x", "_meta": None}
