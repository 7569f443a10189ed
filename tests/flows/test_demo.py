"""`haltline demo` as a person runs it: the whole of it in one command, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.demo_upstreams import code_path

WITHIN_S = 120


def demo(*arguments: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "haltline", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **code_path(), "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that name a folder: those that something in it started."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where the demonstration makes its folder: empty again afterwards, with nobody at work in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []
    assert left_running(folder) == []


@pytest.mark.promise(
    "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P10", "P11", "R3", "R16", "R18", "R19", "R21", "R22", "R23"
)
def test_everything_that_the_demo_promises_holds(temporary: Path) -> None:
    process = demo("--json", temporary=temporary)
    out, err = process.communicate(timeout=WITHIN_S)
    told: dict[str, Any] = json.loads(out)
    assert [check for check in told["checks"] if not check["held"]] == []
    assert told["held"] is True
    assert process.returncode == 0
    assert err == ""
    assert len(told["checks"]) >= 20
    money = told["facts"]["money"]
    assert money["ledger_micros"] == money["log_micros"] == money["books_micros"] > 0
    assert told["facts"]["runaway"]["paid"] == 9


def test_kept_it_tells_how_to_connect_and_ends_cleanly_on_ctrl_c(temporary: Path) -> None:
    process = demo("--keep", temporary=temporary)
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if "broker's log" in line:
            break
    text = "".join(told)
    url = re.search(r"agents connect to +(http://\S+/mcp)", text)
    assert url is not None, text
    assert "HALTLINE_TOKEN=hl_s_" in text
    assert left_running(temporary) != []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0


def test_ctrl_c_in_the_middle_ends_everything_that_was_started(temporary: Path) -> None:
    process = demo(temporary=temporary)
    assert process.stdout is not None
    for line in process.stdout:
        if "Three agents of three tiers" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130


def test_a_chosen_folder_must_be_empty(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "mine.txt").write_text("mine")
    process = demo("--data", str(tmp_path / "chosen"), temporary=temporary)
    out, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode != 0
    assert "is not empty" in out
