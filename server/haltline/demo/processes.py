"""Child processes of the demonstration: started in a session of their own, always ended, their words kept in a file.

A session of its own, so that Ctrl-C at the terminal reaches the demonstration alone, which then ends them in order.
Knows nothing of what they do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio.streams.text import TextReceiveStream

import haltline_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from anyio.abc import Process

__all__ = ["Failed", "Ran", "child_environment", "code_path", "first_line", "python", "ran", "running"]

END_S = 15.0
LINES_TOLD = 12


class Failed(Exception):
    """A process did not do what the demonstration needs; says which and what it said last."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended: its exit code, what it said and how long it took from start to end."""

    code: int
    out: str
    err: str
    took_ms: int


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def code_path() -> str:
    """PYTHONPATH for a child in another folder that must run the same code as this process."""
    ours = [Path(__file__).parents[2], Path(haltline_client.__file__).parents[1]]
    return os.pathsep.join(dict.fromkeys(map(str, ours)))


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child: without the settings of some other broker that this user runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    return {**kept, "PYTHONPATH": code_path(), **(extra or {})}


@asynccontextmanager
async def running(command: Sequence[str], *, folder: Path, log: Path) -> AsyncIterator[Process]:
    """A process while the block runs. Its standard error goes to `log`; its standard output is for the caller."""
    with log.open("ab") as errors:
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=child_environment(),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def first_line(process: Process, within_s: float, log: Path) -> str:
    """The first line that a process says."""
    assert process.stdout is not None
    said = ""
    with anyio.move_on_after(within_s):
        async for chunk in TextReceiveStream(process.stdout):
            said += chunk
            if "\n" in said:
                return said.partition("\n")[0]
    raise Failed(f"{log.stem} did not start: {last_words(log)}")


async def ran(command: Sequence[str], *, folder: Path, extra: Mapping[str, str]) -> Ran:
    """Run a command to its end, as a person at a terminal would."""
    begun = time.perf_counter()
    done = await anyio.run_process(
        command, cwd=folder, env=child_environment(extra), check=False, start_new_session=True
    )
    took_ms = round((time.perf_counter() - begun) * 1000)
    return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), took_ms)


def last_words(log: Path) -> str:
    """The end of a process's log, for a person who must find out why."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n  ".join(["", *lines[-LINES_TOLD:]]) if lines else "it said nothing"


async def _end(process: Process) -> None:
    """SIGTERM and a fair time to put things in order, then SIGKILL to whatever is left of its process group."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(END_S):
            await process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.aclose()
