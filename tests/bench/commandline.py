"""The command line: how long `haltline --help` takes, and `haltline serve` until it is ready, in a folder that it made before.

usage: python tests/bench/commandline.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import brokered
import processes
from processes import Failed, server

__all__ = ["main", "measured"]

HELPS, STARTS = 15, 5


def measured(folder: Path) -> dict[str, float]:
    """Medians."""
    with server("upstream.py", folder=folder) as (port, _):
        brokered.prepare(folder / "starts", {"http": {"url": f"http://127.0.0.1:{port}/mcp"}}, ["http__echo"])
        starts = []
        for _ in range(STARTS):
            with brokered.started(folder / "starts") as broker:
                starts.append(broker.ready_s)
    return {"help_ms": median(_help_ms() for _ in range(HELPS)), "ready_s": median(starts[1:])}


def _help_ms() -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "haltline", "--help"], env=processes.environment(), capture_output=True, check=False
    )
    if done.returncode != 0 or b"revoke" not in done.stdout:
        raise Failed(f"haltline --help: {done.returncode} {done.stderr.decode()}")
    return (time.perf_counter() - begun) * 1000


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-") as folder:
            found = measured(Path(folder))
    except (Failed, OSError) as failed:
        print(f"No figures: {failed}", file=sys.stderr)
        return 1
    print(f"haltline --help: {found['help_ms']:.0f} ms (goal 150); serve ready: {found['ready_s']:.2f} s (goal 2)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
