"""Every operator command against the fake endpoint: what it asks for, its human output and its `--json`."""

from __future__ import annotations

import json
import shlex

import pytest

from haltline.cli import COMMANDS, Branch
from support.fake_control import Failure

R = ' --reason "as said"'
# command line, the tool it calls, the arguments it sends, words that its human output must hold
CASES = [
    ("status", "status", {}, "Haltline 0.1.0|ready|Halted research-bot|[budget.day_exceeded]|118.40|2 calls, 1.30 USD|34.1 MB"),
    ("agents add bot --tier staging", "add_agent", {"handle": "bot", "tier": "staging"}, "Added agent research-bot"),
    (
        'agents add bot --tier t --owner anna --scope a --scope b --hours "mon-fri 8:00-18:00 UTC" --cap day=5 --cap calls=3 --credential',
        "add_agent",
        {
            "handle": "bot", "tier": "t", "owner": "anna", "scopes": ["a", "b"], "caps": {"day": "5", "calls": 3},
            "hours": {"days": "mon-fri", "from": "8:00", "to": "18:00", "time_zone": "UTC"}, "credential": True,
        },
        "\nhl_a_once\n|shown once|HALTLINE_TOKEN",
    ),
    ("agents list", "list_agents", {}, "research-bot|experimental|halted|4.98|5.00 USD|anna"),
    ("agents show bot", "show_agent", {"agent": "bot"}, "halted|mon-fri 08:00-18:00 Europe/Berlin|-0.02|call.succeeded|ses_7Kq2xYz|Unusual now\n  9 of 87 calls failed|Usual\n  weekdays 09-17"),
    ("agents reissue bot --credential" + R, "reissue_agent", {"agent": "bot", "reason": "as said", "credential": True}, "may work again|\nhl_a_again\n"),
    (
        "sessions open bot --task t --tool 'search__*' --cap per-call=0.10 --expires-in 1h",
        "open_session",
        {"agent": "bot", "task": "t", "tools": ["search__*"], "caps": {"per_call": "0.10"}, "expires_in": "1h"},
        "Opened session ses_new|\nhl_s_once\n|shown once|haltline revoke ses_new",
    ),
    ("sessions list bot --all", "list_sessions", {"agent": "bot", "all": True}, "ses_7Kq2xYz|halted|0.47|0.50 USD"),
    ("sessions show ses_1", "show_session", {"session": "ses_1"}, "ses_7Kq2xYz|(6 h|payments__*|agent.halted"),
    ("revoke bot" + R, "revoke", {"target": "bot", "reason": "as said"}, "Revoked research-bot in|ms.|2 ended: ses_7Kq2xYz, ses_8Lm3|3 cancelled|agents reissue bot"),
    ("halt bot" + R, "halt", {"target": "bot", "reason": "as said"}, "Halted research-bot in|1 cancelled|haltline resume bot"),
    ("resume research-bot --allow 0.50" + R, "resume", {"target": "research-bot", "reason": "as said", "allow": "0.50"}, "by cap day|[budget.day_exceeded]|Resumed research-bot|2 ended well, 1 in doubt, 0.10 USD charged; 41 refused|day spend 5.02 of 5.00 USD|0.50 USD added"),
    ("audit tail -n 1", "query_audit", {"limit": 1, "newest": True}, "agent.halted|budget.day_exceeded"),
    (
        "audit query --agent a --session s --kind k --call c --tool t --since 2h --until 1h --after-seq 5 --before-seq 9 --limit 7 --newest",
        "query_audit",
        {"agent": "a", "session": "s", "kind": "k", "call": "c", "tool": "t", "since": "2h", "until": "1h",
         "after_seq": 5, "before_seq": 9, "limit": 7, "newest": True},
        "811|call.succeeded|payments__charge|0.05 USD",
    ),
    ("calls in-doubt", "list_in_doubt", {}, "call_9fX|0.30 USD|14 min|the connection broke|haltline calls settle"),
    ("calls settle call_1 --amount 0.30" + R, "resolve_in_doubt", {"call": "call_1", "outcome": "settle", "amount": "0.30", "reason": "as said"}, "Settled call_1: 0.30 USD charged."),
    ("calls void call_1" + R, "resolve_in_doubt", {"call": "call_1", "outcome": "void", "reason": "as said"}, "Voided call_1: nothing is charged."),
    ("policy explain bot a__b --session ses_1 --arguments '{\"n\": 1}'", "explain_decision",
     {"agent": "bot", "tool": "a__b", "session": "ses_1", "arguments": {"n": 1}}, "DENY|[charge.too_large]|tiers.yaml:12|1.20 USD"),
    ("policy reload", "reload_policy", {}, "Policy 8 is in force now."),
    ("alerts list --limit 3", "list_alerts", {"limit": 3}, "epi_1|×3|day cap 5.00 USD|slack-ops delivered|retrying after 3 attempts: HTTP 503|haltline alerts ack epi_1"),
    ("alerts list --live --deliveries", "list_alerts", {"live": True}, "open|unless acknowledged"),
    ("alerts ack epi_1 --reason looking", "acknowledge_alert", {"episode": "epi_1", "reason": "looking"}, "epi_1 acknowledged|after 41 s"),
    ("alerts resolve epi_1 --reason over", "resolve_alert", {"episode": "epi_1", "reason": "over"}, "resolved|acted on after 90 s"),
    ("alerts retry epi_1", "retry_alert", {"id": "epi_1"}, "2 deliveries of epi_1 wait again"),
    ("alerts test pager", "test_alert_channel", {"channel": "pager"}, "pager took it in 0.12 s"),
    ("alerts stats --since 1d", "alert_stats", {"since": "1d"}, "3, 2 within 5 minutes|half within 30.0 s|nobody has"),
    ("tools list --upstream git", "list_tools", {"upstream": "git"}, "from amount|unpriced|One credential for all agents: payments|tools import"),
    ("tools import git", "import_tools", {"upstream": "git"}, "2 entries written to policies/tools.yaml|git__diff|set the prices now"),
    ("tools pin git --diff", "review_tools", {"target": "git"}, "QUARANTINED git__log|by operator:anna|- Show the log.|ZERO WIDTH SPACE"),
    ("operators add anna", "add_operator", {"name": "anna"}, "Added operator anna.|\nhl_o_once\n|shown once"),
    ("drill", "run_drill", {}, "0.936 s|loop stopped|none dispatched|The drill held: 1.3 s, 1 system touched to stop it."),
    ("drill --agent b --halt", "run_drill", {"agent": "b", "halt": True}, "The drill held"),
    ("operators list", "list_operators", {}, "anna|person|active"),
    ("operators rotate anna", "rotate_operator", {"name": "anna"}, "\nhl_o_again\n"),
    ("operators revoke anna" + R, "revoke_operator", {"name": "anna", "reason": "as said"}, "Revoked operator anna."),
]  # fmt: skip
NOT_ONE_RESULT = {"audit tail", "audit export", "top", "client-config", "completion", "stdio"}


def _ids(case):
    return case[0].split(" --")[0]


@pytest.mark.parametrize(("line", "tool", "arguments", "words"), CASES, ids=map(_ids, CASES))
def test_a_command_asks_for_its_tool_and_prints_what_matters(haltline, control, line, tool, arguments, words):
    ran = haltline(*shlex.split(line))
    assert (ran.code, ran.err) == (0, "")
    assert control.calls[-1] == (tool, arguments)
    for word in words.split("|"):
        assert word in ran.out
    assert "\x1b" not in ran.out, "colour belongs on a terminal only"
    assert not any(row != row.rstrip() for row in ran.out.splitlines())


@pytest.mark.parametrize(("line", "tool"), [case[:2] for case in CASES if _ids(case)[:10] != "audit tail"])
def test_json_is_exactly_the_structured_result_on_one_line(haltline, control, line, tool):
    ran = haltline(*shlex.split(line), "--json")
    prepared = control.answers[tool]
    assert ran.code == 0
    assert ran.out.count("\n") == 1
    assert json.loads(ran.out) == (prepared(control.calls[-1][1]) if callable(prepared) else prepared)


def test_every_operator_command_of_the_command_line_is_tried_here():
    named = set()
    for section in COMMANDS.values():
        for name, entry in section.items():
            parts = entry.commands.items() if isinstance(entry, Branch) else [("", entry)]
            named |= {f"{name} {sub}".strip() for sub, lazy in parts if lazy.target.startswith("haltline_client")}
    tried = {name for name in named for case in CASES if case[0].startswith(name)}
    assert named - tried <= NOT_ONE_RESULT


@pytest.mark.parametrize(
    "line",
    ["revoke b", "halt b", "resume b", "agents reissue b", "calls settle c", "calls void c", "operators revoke o"],
)
def test_an_act_without_a_reason_is_a_usage_error_that_says_so_and_is_not_sent(haltline, control, line):
    for reason in ([], ["--reason", "  "]):
        ran = haltline(*line.split(), *reason)
        assert ran.code == 64
        assert "Missing option '--reason': say why" in ran.err
    assert control.calls == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("agents add b --tier t --cap money=5", "NAME=VALUE"),
        ("agents add b --tier t --cap calls=few", "whole number"),
        ("agents add b --tier t --cap day=1 --cap day=2", "given twice"),
        ("agents add b --tier t --hours always", "mon-fri 08:00-18:00"),
        ("agents add b", "--tier"),
        ("sessions open b", "--task"),
        ("policy explain b t --arguments [1]", "JSON object"),
        ("policy explain b t --arguments {", "not JSON"),
        ("policy explain b t --arguments @/does/not/exist", "cannot read"),
        ("audit query --limit 1001", "1001"),
        ("revoke", "Missing argument"),
        ("halt a b --reason r", "unexpected extra argument"),
        ("status --nope", "--nope"),
    ],
)
def test_wrong_usage_exits_64_and_says_what_is_wanted(haltline, control, line, says):
    ran = haltline(*line.split())
    assert ran.code == 64
    assert says in ran.err
    assert control.calls == []


def test_a_drill_that_failed_names_the_step_and_exits_4(haltline, control):
    control.answers["run_drill"] |= {"ok": False, "failed": "long call cancelled"}
    ran = haltline("drill")
    assert ran.code == 4
    assert "THE DRILL FAILED at: long call cancelled (1.3 s)." in ran.out
    assert haltline("drill", "--json").code == 4


def test_stopping_something_that_was_stopped_before_says_so(haltline, control):
    control.answers["revoke"] |= {"already": True, "sessions": [], "calls_cancelled": 0}
    assert "research-bot was revoked before; nothing of it runs." in haltline("revoke", "b", "--reason", "r").out


def test_a_stop_that_succeeded_never_looks_failed_for_want_of_a_detail(haltline, control):
    control.answers["revoke"] = control.answers["halt"] = {}
    assert haltline("revoke", "bot", "--reason", "r").out.startswith("Revoked bot in ")
    assert haltline("halt", "bot", "--reason", "r").out.startswith("Halted bot in ")


def test_resume_names_the_other_halts_that_stay(haltline, control):
    halts = control.answers["status"]["halts"]
    halts.append({**halts[0], "target": "everything", "scope": "everything", "by": "anna"})
    assert "everything" in haltline("resume", "research-bot", "--reason", "r").out.split("stays")[1]


def test_resuming_what_is_not_halted_leaves_the_answer_to_the_broker(haltline, control):
    control.answers["resume"] = Failure("request.conflict", "billing is not halted")
    ran = haltline("resume", "billing", "--reason", "r")
    assert ran.code == 1
    assert "No halt of billing stands." in ran.err
    assert "Error [request.conflict]: billing is not halted" in ran.err


def test_a_broker_that_is_not_ready_says_so_first_and_why(haltline, control):
    control.answers["status"] |= {
        "ready": False,
        "not_ready_because": "tiers.yaml cannot be used",
        "policy": {"version": 7, "mode": "enforce", "problems": [{"file": "tiers.yaml", "line": 3, "key": "day", "message": "not money"}]},
    }  # fmt: skip
    first, second, third = haltline("status").out.splitlines()[:3]
    assert "NOT READY" in first
    assert second == "  because: tiers.yaml cannot be used"
    assert "tiers.yaml:3: day: not money" in third


@pytest.mark.parametrize(
    ("tool", "key", "line"),
    [("list_agents", "agents", "agents list"), ("list_sessions", "sessions", "sessions list"), ("list_alerts", "episodes", "alerts list"),
     ("list_in_doubt", "calls", "calls in-doubt"), ("list_operators", "operators", "operators list"), ("query_audit", "events", "audit query")],
)  # fmt: skip
def test_nothing_to_list_is_a_sentence_not_an_empty_table(haltline, control, tool, key, line):
    control.answers[tool] = {**dict.fromkeys(control.answers[tool], []), key: []}
    ran = haltline(*line.split())
    assert ran.out.startswith("No ")
    assert ran.out.count("\n") == 1


def test_text_from_agents_cannot_steer_the_terminal(haltline, control):
    session = control.answers["list_sessions"]["sessions"][0]
    session["task"] = "x\x1b[2J\x1b]0;owned\x07\u202egnp\n\r\x9b31m"
    control.answers["revoke"] = Failure("request.not_found", "no \x1b[31mthing")
    assert not set("\x1b\x07\u202e\r\x9b") & set(haltline("sessions", "list").out)
    assert "\x1b" not in haltline("revoke", "x", "--reason", "r").err
    assert "\x1b" not in haltline("sessions", "list", "--json").out
