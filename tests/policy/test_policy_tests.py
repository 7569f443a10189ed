"""`haltline policy test`: tests written beside a policy, the shipped ones among them."""

from __future__ import annotations

from pathlib import Path

from haltline.cli import main
from support.policy_texts import write_files

SHIPPED = Path(__file__).parents[2] / "policies"
TEST = "tests:\n  one:\n    tier: x\n    call: {{tool: a__b}}\n    expect: {}\n"


def run(capsys, *arguments: object) -> tuple[int, str]:
    code = main(["policy", "test", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_the_shipped_policy_passes_its_own_tests(capsys):
    code, said = run(capsys, "--policies", SHIPPED)
    assert (code, said) == (0, "14 passed, 0 failed\n")


def test_a_test_that_fails_says_where_and_what_came_instead(tmp_path, capsys):
    write_files(tmp_path, a='tiers: {x: {tools: ["*"]}}')
    tests = tmp_path / "tests"
    tests.mkdir()
    write_files(tests, t=TEST.format("allow"))
    code, said = run(capsys, "--policies", tmp_path)
    assert code == 1
    assert "t.yaml:2: one: expected allow, got deny charge.unpriced" in said
    write_files(tests, t=TEST.format("deny charge.unpriced"))
    assert run(capsys, "--policies", tmp_path)[0] == 0


def test_a_mistake_in_a_test_is_named_with_file_line_and_key(tmp_path, capsys):
    write_files(tmp_path, a='tiers: {x: {tools: ["*"]}}')
    tests = tmp_path / "tests"
    tests.mkdir()
    write_files(tests, t=TEST.format("allow") + "    fire: []\n")
    code, said = run(capsys, "--policies", tmp_path)
    assert code == 3
    assert "t.yaml:6: tests.one.fire: unknown key; did you mean 'fires'?" in said


def test_sessions_calls_at_once_and_what_a_call_bills_can_be_rehearsed(tmp_path, capsys):
    rules = (
        "  crowd: {kind: concurrent_calls, over: 1}\n  lost: {kind: silence, of: session, for: 10m}\n"
        "  long: {kind: calls_per_task, over: 2, do: halt}\n"
    )
    text = 'tiers: {x: {tools: ["*"], halts_on: {}}}\ntools: {a__b: {price: "0.10"}}\nrules:\n' + rules
    write_files(tmp_path, a=text)
    tests = tmp_path / "tests"
    tests.mkdir()
    write_files(
        tests,
        t="""
tests:
  two at once:
    tier: x
    history: [{tool: a__b, ago: 5s, ends: held}]
    call: {tool: a__b}
    expect: allow
    fires: [crowd]
  a lost one:
    tier: x
    sessions: {other: {silent: 10m}, near: {silent: 599s}}
    call: {tool: a__b}
    expect: allow
    fires: [lost]
  a child's calls are its parent's:
    tier: x
    sessions: {now: {parent: root}}
    history: [{tool: a__b, arguments: {n: 1}, ago: 50s, session: root}, {tool: a__b, ago: 20s}]
    call: {tool: a__b}
    expect: halt rule.long
    fires: [long]
  a cap of the session above:
    tier: x
    sessions: {now: {parent: root}, root: {caps: {task: "0.15"}}}
    history: [{tool: a__b, ago: 50s, session: root}]
    call: {tool: a__b}
    expect: halt budget.task_exceeded
""",
    )
    code, said = run(capsys, "--policies", tmp_path)
    assert (code, said) == (0, "4 passed, 0 failed\n")
