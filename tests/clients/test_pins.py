"""`haltline tools pin`: nothing is approved unseen, and what is approved is what was shown."""

from __future__ import annotations

import json

import pytest

DIGEST = "ab" * 32


def approvals(control):
    return [arguments for tool, arguments in control.calls if tool == "approve_tool"]


def test_it_shows_what_changed_and_approves_that_digest(haltline, control):
    ran = haltline("tools", "pin", "git", "--yes", "--reason", "read it")
    assert (ran.code, ran.err) == (0, "")
    assert approvals(control) == [{"tool": "git__log", "digest": DIGEST, "reason": "read it", "upstream": "git"}]
    assert ran.out.index("ZERO WIDTH SPACE") < ran.out.index("Approved git__log")
    assert "hidden characters in description" in ran.out


def test_a_digest_that_was_seen_stands_for_the_question(haltline, control):
    assert haltline("tools", "pin", "git__log", "--digest", DIGEST, "--reason", "read").code == 0
    assert len(approvals(control)) == 1
    ran = haltline("tools", "pin", "git__log", "--digest", "00" * 32, "--reason", "read")
    assert ran.code == 1
    assert "No definition with that digest waits" in ran.err
    assert len(approvals(control)) == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "Missing option '--reason'"),
        (("--reason", " "), "Missing option"),
        (("--reason", "r"), "--yes, or --digest"),
    ],
)
def test_without_a_reason_or_somebody_to_ask_nothing_is_approved(haltline, control, more, words):
    ran = haltline("tools", "pin", "git", *more)
    assert ran.code == 64
    assert words in ran.err
    assert approvals(control) == []


def test_looking_approves_nothing_and_json_is_what_was_done(haltline, control):
    looked = haltline("tools", "pin", "--diff", "--yes", "--reason", "r", "--json")
    assert json.loads(looked.out)["tools"][0]["digest"] == DIGEST
    assert approvals(control) == []
    done = haltline("tools", "pin", "--yes", "--reason", "r", "--json")
    assert json.loads(done.out) == {"approved": [control.answers["approve_tool"]]}
    control.answers["review_tools"] = {"tools": []}
    assert "every tool is defined as it was approved" in haltline("tools", "pin", "--reason", "r").out


def test_a_list_says_which_tools_are_quarantined(haltline, control):
    control.answers["list_tools"]["tools"][0]["state"] = "quarantined"
    ran = haltline("tools", "list")
    assert "QUARANTINED" in ran.out
    assert "haltline tools pin --diff" in ran.out
