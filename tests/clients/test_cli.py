"""The command line itself: exit codes, credentials, help, completion, speed, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from haltline.cli import COMMANDS, Branch, load
from haltline_client import __version__
from support.fake_control import LOCAL, PERSON, Failure

ROOT = Path(__file__).parents[2]
HEAVY = {
    "mcp",
    "pydantic",
    "httpx",
    "rich",
    "asyncio",
    "uvicorn",
    "anyio",
    "sqlite3",
    "ruamel",
    "orjson",
    "structlog",
    "cryptography",
}


def _environ(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HALTLINE_", "NO_COLOR", "_HALTLINE"))
    }
    path = os.pathsep.join([str(ROOT / "server"), str(ROOT / "clients")])
    return {**kept, "PYTHONPATH": path, "TERM": "xterm-256color", "TZ": "UTC", **more}


def _process(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "haltline", *arguments]
    return subprocess.run(command, env=_environ(**more), capture_output=True, text=True, timeout=20, check=False)


# A session of its own has no terminal until it takes one; only then does Ctrl-C reach it.
TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background may have it ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "haltline", *sys.argv[1:]])
"""
PATIENCE_S = 40


def _terminal(*arguments: str, typed: bytes = b"", **more: str) -> tuple[int, str]:
    """The command with a terminal of its own: its exit code and everything that appeared on it."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, *arguments]
    process = subprocess.Popen(
        command, env=_environ(**more), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown, until = b"", time.monotonic() + PATIENCE_S
    try:
        while piece := _read(ours):
            assert time.monotonic() < until, f"it does not end; it shows {shown[-500:]!r}"
            shown += piece
            if typed and re.search(rb"kept\)|\[y/N\]|q ends", shown):
                line, _, typed = typed.partition(b"|")
                shown = shown.replace(b"[y/N]", b"[y/N-]").replace(b"kept)", b"kept-)").replace(b"q ends", b"q-ends")
                os.write(ours, line)
        return process.wait(PATIENCE_S), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(terminal: int) -> bytes:
    """What appears next, empty once the other side is closed."""
    assert select.select([terminal], [], [], PATIENCE_S)[0], "nothing appeared"
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""


# Exit codes and error texts


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (Failure("request.not_found", "no agent x"), 1, "Error [request.not_found]: no agent x"),
        (Failure("operator.forbidden", "a person only"), 2, "Refused [operator.forbidden]: a person only"),
        (Failure("config.invalid", "tiers.yaml:3"), 3, "Error [config.invalid]: tiers.yaml:3"),
    ],
)
def test_a_failed_request_exits_with_its_code_and_prints_nothing_on_stdout(haltline, control, failure, code, says):
    control.answers["revoke"] = failure
    ran = haltline("revoke", "x", "--reason", "r")
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err


def test_a_program_that_asks_for_json_gets_the_error_as_json_with_the_same_exit_code(haltline, control, bare):
    control.answers["revoke"] = Failure("operator.forbidden", "a person only")
    ran = haltline("revoke", "x", "--reason", "r", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert json.loads(ran.err) == {"error": {"code": "operator.forbidden", "message": "a person only"}}
    ran = bare("revoke", "--json")
    assert ran.code == 64
    assert json.loads(ran.err)["error"]["code"] == "usage"


def test_a_dead_credential_exits_2(bare, control, tmp_path):
    dead = tmp_path / "dead"
    dead.write_text("hl_o_dead")
    dead.chmod(0o600)
    ran = bare("status", "--url", control.url, "--token-file", str(dead))
    assert ran.code == 2
    assert "revoked or rotated" in ran.err


def test_no_broker_exits_69_says_where_the_address_came_from_and_how_to_start_one(bare, person_file):
    ran = bare("status", "--url", "http://127.0.0.1:9", "--token-file", str(person_file))
    assert (ran.code, ran.out) == (69, "")
    assert "no broker answers at http://127.0.0.1:9" in ran.err
    assert "(address from --url)" in ran.err
    assert "haltline serve" in ran.err


def test_no_credential_exits_3(bare, tmp_path):
    ran = bare("status", "--data", str(tmp_path))
    assert ran.code == 3
    assert "HALTLINE_OPERATOR_TOKEN is not set" in ran.err


def test_a_look_ahead_at_a_resume_needs_no_reason_and_a_resume_does(haltline, control):
    assert haltline("resume", "research-bot", "--preview").code == 0
    name, arguments = control.calls[-1]
    assert (name, arguments["preview"]) == ("resume", True)
    refused = haltline("resume", "research-bot", "--yes")
    assert refused.code == 64
    assert "--reason" in refused.err


def test_how_long_an_allowance_holds_needs_an_allowance(haltline, control):
    refused = haltline("resume", "research-bot", "--for", "2h", "--reason", "r")
    assert refused.code == 64
    assert "--allow" in refused.err
    ran = haltline("resume", "research-bot", "--allow", "day=2.00", "--for", "2h", "--reason", "r")
    assert ran.code == 0
    _, arguments = control.calls[-1]
    assert (arguments["allow"], arguments["allow_for"]) == ("day=2.00", "2h")
    assert "0.50 USD added to the day cap until" in ran.out


def test_no_help_shows_its_own_marks(bare):
    for line in (["policy", "test"], ["ledger", "check"]):
        ran = bare(*line, "--help")
        assert "\\b" not in ran.out
        assert ran.out.splitlines()[2].strip(), "what it does comes before its options"
    assert "    tests:\n" in bare("policy", "test", "--help").out
    assert "Recompute every balance" in bare("ledger", "check", "--help").out


def test_unknown_commands_exit_64_with_a_guess(bare):
    ran = bare("revok", "x")
    assert ran.code == 64
    assert "Did you mean 'revoke'?" in ran.err
    assert bare("agents", "lst").code == 64
    assert bare().code == 64


# Credentials


@pytest.mark.promise("R21")
def test_the_local_credential_may_stop_but_what_loosens_is_refused(bare, control, local_data):
    reach = ("--url", control.url, "--data", str(local_data))
    assert bare("revoke", "b", "--reason", "r", *reach).code == 0
    assert bare("halt", "b", "--reason", "r", *reach).code == 0
    ran = bare("resume", "research-bot", "--reason", "r", *reach)
    assert ran.code == 2
    assert "operator.forbidden" in ran.err
    assert set(control.tokens) == {LOCAL}


@pytest.mark.promise("R21")
def test_a_person_at_a_terminal_is_asked_for_the_cause_s_confirmation_and_an_own_credential(control, local_data):
    arguments = ("resume", "research-bot", "--reason", "r", "--url", control.url, "--data", str(local_data))
    code, shown = _terminal(*arguments, typed=f"y\n|{PERSON}\n".encode())
    assert code == 0, shown
    shown = " ".join(shown.split())
    order = ["budget.day_exceeded", "2 ended well", "day spend 5.02 of 5.00", "Resume?", "Resumed research-bot"]
    assert [shown.index(one) for one in order] == sorted(shown.index(one) for one in order)
    assert shown.count("day spend 5.02") == 1, "said once"
    assert PERSON not in shown
    assert control.tokens == [LOCAL, LOCAL, LOCAL, PERSON]
    assert [arguments.get("preview") for tool, arguments in control.calls if tool == "resume"] == [True, None, None]


def test_a_no_at_the_question_resumes_nothing(control, local_data):
    arguments = ("resume", "research-bot", "--reason", "r", "--url", control.url, "--data", str(local_data))
    code, _ = _terminal(*arguments, typed=b"n\n")
    assert code == 130
    assert [arguments["preview"] for tool, arguments in control.calls if tool == "resume"] == [True]


def test_a_credential_can_come_from_standard_input(control):
    command = [sys.executable, "-m", "haltline", "agents", "list", "--token-file", "-", "--url", control.url]
    ran = subprocess.run(command, env=_environ(), input=PERSON + "\n", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert control.tokens == [PERSON]


def test_the_running_broker_is_found_through_its_data_folder(control, local_data):
    (local_data / "endpoints.json").write_text(f'{{"agents": "", "control": "{control.url}/mcp", "pid": 1}}')
    (local_data / "endpoints.json").chmod(0o600)
    ran = _process("agents", "list", HALTLINE_DATA=str(local_data))
    assert ran.returncode == 0, ran.stderr
    assert control.tokens == [LOCAL]


# Names and help


def _entries():
    for section in COMMANDS.values():
        for name, entry in section.items():
            parts = entry.commands.items() if isinstance(entry, Branch) else [("", entry)]
            yield from ((f"{name} {sub}".strip(), lazy) for sub, lazy in parts)


CLIENT_ENTRIES = [(name, lazy) for name, lazy in _entries() if lazy.target.startswith("haltline_client")]


@pytest.mark.parametrize(("name", "lazy"), CLIENT_ENTRIES, ids=[name for name, _ in CLIENT_ENTRIES])
def test_every_operator_command_loads_and_its_help_has_examples(bare, name, lazy):
    assert load(lazy).name == name.split()[-1]
    ran = bare(*name.split(), "--help")
    assert ran.code == 0
    assert f"  haltline {name}" in ran.out.split("Examples:")[1]


def test_the_commands_of_the_design_have_their_names():
    names = {name for name, _ in _entries()}
    assert {
        "serve",
        "demo",
        "init",
        "doctor",
        "policy check",
        "policy schema",
        "audit verify",
        "client-config",
    } <= names


def test_help_of_a_group_lists_its_commands(bare):
    ran = bare("audit", "--help")
    assert ran.code == 0
    assert re.findall(r"^  (\w+)  ", ran.out, re.MULTILINE)[-4:] == ["tail", "query", "export", "verify"]


def test_the_version_is_that_of_the_project(bare):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert __version__ == declared
    assert bare("--version").out == f"haltline {declared}\n"


# Speed


RUN_AND_LIST = """
import sys
from haltline.cli import main
code = main(sys.argv[1:])
print(*sys.modules, sep="\\n", file=sys.stderr)
sys.exit(code)
"""


def _imported(*arguments: str) -> set[str]:
    """Every module that is there once the command has run."""
    command = [sys.executable, "-c", RUN_AND_LIST, *arguments]
    ran = subprocess.run(command, env=_environ(), capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.split())


def test_the_kill_switch_imports_nothing_that_it_does_not_need(control, person_file):
    reach = ("--url", control.url, "--token-file", str(person_file))
    for arguments in (("revoke", "b", "--reason", "r"), ("halt", "b", "--reason", "r")):
        imported = _imported(*arguments, *reach)
        assert "haltline_client.commands.stops" in imported
        assert {name.split(".")[0] for name in imported} & HEAVY == set()
        ours = {name for name in imported if name.startswith("haltline.")}
        assert ours <= {"haltline.cli", "haltline.errors"}


def test_help_and_version_import_no_command_and_no_network():
    for arguments in (("--help",), ("--version",), ("audit", "--help")):
        imported = _imported(*arguments)
        assert {name.split(".")[0] for name in imported} & (HEAVY | {"ssl", "http"}) == set()
        assert not {name for name in imported if name.startswith("haltline.commands")}


# Shells, pipes and terminals


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(bare, shell):
    ran = bare("completion", shell)
    assert ran.code == 0
    assert f"_HALTLINE_COMPLETE={shell}_complete" in ran.out
    assert bare("completion", "tcsh").code == 64


def test_names_complete_without_importing_their_commands():
    ran = _process(_HALTLINE_COMPLETE="bash_complete", COMP_WORDS="haltline re", COMP_CWORD="1")
    assert ran.stdout.split() == ["plain,revoke", "plain,resume"]
    ran = _process(_HALTLINE_COMPLETE="bash_complete", COMP_WORDS="haltline policy ", COMP_CWORD="2")
    assert ran.stdout.split() == ["plain,check", "plain,explain", "plain,reload", "plain,test", "plain,schema"]
    ran = _process(_HALTLINE_COMPLETE="bash_complete", COMP_WORDS="haltline revoke --rea", COMP_CWORD="2")
    assert ran.stdout.split() == ["plain,--reason"]


def test_a_reader_that_goes_away_ends_the_command_without_a_word(control, person_file):
    control.answers["query_audit"]["events"] *= 5000
    arguments = ("audit", "export", "--url", control.url, "--token-file", str(person_file))
    process = subprocess.Popen(
        [sys.executable, "-m", "haltline", *arguments], env=_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_terminal_gets_colour_unless_no_color_is_set(control, person_file):
    arguments = ("agents", "list", "--url", control.url, "--token-file", str(person_file))
    code, shown = _terminal(*arguments)
    assert (code, "\x1b[31mhalted\x1b[0m" in shown) == (0, True)
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, shown = _terminal(*arguments, **quiet)
        assert (code, "\x1b" in shown) == (0, False)


@pytest.mark.parametrize("columns", ["80", "100", "120"])
def test_no_line_is_wider_than_the_terminal(control, person_file, columns):
    for line in (
        "status",
        "agents show b",
        "sessions list",
        "calls in-doubt",
        "tools list",
        "audit query",
        "resume research-bot --preview",
        "alerts list --live --deliveries",
        "alerts stats",
        "drill",
    ):
        arguments = (*line.split(), "--url", control.url, "--token-file", str(person_file))
        _, shown = _terminal(*arguments, COLUMNS=columns, NO_COLOR="1")
        assert max(map(len, shown.splitlines())) <= int(columns)


def test_top_fills_the_terminal_until_q(control, person_file):
    code, shown = _terminal("top", "--url", control.url, "--token-file", str(person_file), typed=b"q")
    assert code == 0
    assert "research-bot" in shown
    assert "\x1b[?1049l" in shown, "the screen from before is given back"


def test_ctrl_c_exits_130(control, person_file):
    code, _ = _terminal("top", "--url", control.url, "--token-file", str(person_file), typed=b"\x03")
    assert code == 130


def test_watching_a_broker_that_is_not_there_ends_at_once(person_file, bare):
    ran = bare("top", "--url", "http://127.0.0.1:1", "--token-file", str(person_file))
    assert ran.code == 69
    assert "no broker answers" in ran.err
