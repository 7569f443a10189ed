"""The demonstration's upstreams as real processes, each reached by the SDK's own client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp.client.stdio import StdioServerParameters

__all__ = ["ERAS", "code_path", "payments_running", "tasks_command"]

ERAS = {"auto": "2026-07-28", "legacy": "2025-11-25"}
ROOT = Path(__file__).resolve().parents[2]


def code_path() -> dict[str, str]:
    """The environment in which a child finds the code under test, wherever it is started."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(ROOT / "clients")])}


@contextmanager
def payments_running(books: Path) -> Iterator[str]:
    """The payments service on a free port; yields its URL."""
    command = [sys.executable, "-m", "haltline.demo.payments", "--books", str(books)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **code_path()})
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def tasks_command(books: Path) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=["-m", "haltline.demo.tasks", "--books", str(books)], env=code_path()
    )
