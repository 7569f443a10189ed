"""A refusal reads as the design has it, and carries the same facts for programs (R22)."""

from __future__ import annotations

import pytest

from haltline.calls.refusals import META_KEY, refusal
from haltline.policy.model import Reason


def _text(answer):
    assert answer["result"]["isError"] is True
    assert "structuredContent" not in answer["result"]
    return answer["result"]["content"][0]["text"]


@pytest.mark.promise("R22")
def test_a_halt_says_code_numbers_and_what_to_do():
    answer = refusal(
        "halted",
        [Reason("budget.task_exceeded", "task cap 0.50 USD, spent 0.47, this call 0.05", {"limit_micros": 500_000})],
    )
    assert _text(answer) == (
        "Halted [budget.task_exceeded]: task cap 0.50 USD, spent 0.47, this call 0.05. "
        "This is stopped until an operator resumes it; do not retry."
    )
    assert answer["result"]["_meta"][META_KEY]["reasons"][0]["facts"] == {"limit_micros": 500_000}


@pytest.mark.promise("R22")
def test_a_denial_says_whether_to_retry():
    assert _text(refusal("denied", [Reason("scope.tool", "not yours")])).endswith("Do not retry; finish without it.")
    assert _text(refusal("denied", [Reason("budget.cap_held", "held", retryable=True)])).endswith(
        "You may retry shortly."
    )


def test_every_reason_is_told_and_the_first_leads():
    lines = _text(refusal("denied", [Reason("a.b", "one"), Reason("c.d", "two.")], call="call_1")).splitlines()
    assert lines[0].startswith("Denied [a.b]: one.")
    assert lines[1] == "Also [c.d]: two."


def test_an_unknown_outcome_forbids_the_retry():
    assert "it may have run" in _text(refusal("unknown", [Reason("upstream.timeout", "no answer in time")]))
