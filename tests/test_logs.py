"""The log of a process that serves: what is written where, and that it never gets in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.demo_upstreams import code_path

SAYS = """
import os, structlog
from haltline.logs import configure
configure("info")
log = structlog.get_logger("one")
log.error("commit_failed", error="the disk is full")
log.error("commit_failed", token="hl_s_0123456789abcdef_" + "A" * 43)
print("went on", flush=True)
os._exit(0)
"""


def _run(errors) -> str:
    return subprocess.run(
        [sys.executable, "-c", SAYS], env=code_path(), stdout=subprocess.PIPE, stderr=errors, text=True, check=True
    ).stdout


@pytest.mark.promise("P7")
def test_a_log_that_cannot_be_written_stops_nothing():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        assert _run(full) == "went on\n"


def test_away_from_a_terminal_each_event_is_a_line_of_json(tmp_path):
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        _run(file)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2
    assert '"event": "commit_failed"' in lines[0]
