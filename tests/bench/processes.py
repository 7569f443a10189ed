"""The processes of a benchmark: started with this checkout's code, ended by their own id, and what each has used.

CPU time and memory are read from /proc; where there is none they are unknown, never guessed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BENCH",
    "CHECKOUT",
    "Failed",
    "cpu_s",
    "environment",
    "first_line",
    "rss_mb",
    "running",
    "server",
    "voluntary_switches",
]

BENCH = Path(__file__).parent
CHECKOUT = BENCH.parents[1]
END_S = 20.0


class Failed(Exception):  # noqa: N818 - named by what happened
    """A benchmark that cannot give a figure says why."""


def environment() -> dict[str, str]:
    """Without the settings of another broker of this user; `haltline` is this checkout's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    code = os.pathsep.join(str(CHECKOUT / folder) for folder in ("server", "clients"))
    return {**kept, "PYTHONPATH": code}


@contextmanager
def running(command: Sequence[str], *, folder: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process while the block runs. What it says on standard error goes to `log`."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> int:
    """SIGTERM and a fair time, then SIGKILL to its group. Returns its exit code."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


@contextmanager
def server(script: str, *arguments: str, folder: Path) -> Iterator[tuple[int, int]]:
    """One of the servers of this folder: (port, process id)."""
    log = folder / f"{Path(script).stem}.log"
    with running([sys.executable, str(BENCH / script), *arguments], folder=folder, log=log) as process:
        port, pid = first_line(process, log).split()
        yield int(port), int(pid)


def first_line(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise Failed(f"{log.stem} did not start:\n{last_words(log)}")
    return line


def last_words(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def cpu_s(pid: int) -> float | None:
    """CPU seconds of all threads so far."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def voluntary_switches(pid: int) -> int:
    """How often a thread has gone to sleep: for the kernel, or for a lock such as the interpreter's. 0 where unknown."""
    found = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = (task / "status").read_text(encoding="ascii")
            found += int(status.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 0
    return found


def rss_mb(pid: int) -> float | None:
    """Resident memory."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0].split()[1]) / 1024 if found else None
