"""Child processes: they are always ended, and what they said is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from haltline.demo.processes import Failed, child_environment, first_line, ran, running


def says(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_is_ended_with_the_block_even_when_it_raises(tmp_path: Path) -> None:
    command = says("import time; print('up', flush=True); time.sleep(600)")
    with anyio.fail_after(20):
        with pytest.raises(ZeroDivisionError):
            async with running(command, folder=tmp_path, log=tmp_path / "child.log") as process:
                assert await first_line(process, 10, tmp_path / "child.log") == "up"
                raise ZeroDivisionError
    assert process.returncode is not None
    assert not alive(process.pid)


async def test_its_children_are_ended_too(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    command = says(
        f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    with anyio.fail_after(20):
        async with running(command, folder=tmp_path, log=tmp_path / "child.log") as process:
            grandchild = int(await first_line(process, 10, tmp_path / "child.log"))
        while alive(grandchild) and "Z" not in Path(f"/proc/{grandchild}/stat").read_text().split()[2]:
            await anyio.lowlevel.checkpoint()


async def test_a_process_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with pytest.raises(Failed, match="(?s)child did not start.*no such thing"):
        async with running(says("raise SystemExit('no such thing')"), folder=tmp_path, log=log) as process:
            await first_line(process, 10, log)


async def test_a_command_gives_its_code_its_words_and_its_time(tmp_path: Path) -> None:
    done = await ran(says("import sys; print('out'); sys.exit('err')"), folder=tmp_path, extra={})
    assert (done.code, done.out, done.err) == (1, "out\n", "err\n")
    assert done.took_ms > 0


def test_a_child_does_not_see_the_settings_of_another_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALTLINE_DATA", "/somewhere/else")
    kept = child_environment({"HALTLINE_TOKEN": "mine"})
    assert "HALTLINE_DATA" not in kept
    assert kept["HALTLINE_TOKEN"] == "mine"
