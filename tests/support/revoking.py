"""Revokes sessions in a process of its own, so that what it measures is the broker and not the load beside it.

python -m support.revoking URL TOKEN_FILE      a session on each line of standard input; a JSON line for each when done
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from haltline_client import ControlClient
from support.broker_process import BrokerProcess
from support.counting_upstream import environment

__all__ = ["Revoked", "Revoking", "revoking"]


@dataclass(frozen=True, slots=True)
class Revoked:
    """One revoke. `returned_ns`: the wall clock when it had returned."""

    session: str
    returned_ns: int
    took_ms: float
    cancelled: int


class Revoking:
    """The running process as a test sees it. One revoke at a time; blocks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def revoke(self, session: str) -> Revoked:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(session, file=self._process.stdin, flush=True)
        return Revoked(session, **json.loads(self._process.stdout.readline()))


@contextmanager
def revoking(broker: BrokerProcess) -> Iterator[Revoking]:
    command = [sys.executable, "-m", "support.revoking", broker.control_url, str(broker.token_file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as process:
        yield Revoking(process)


def main() -> None:
    url, token_file = sys.argv[1:]
    with ControlClient(url, Path(token_file).read_text(encoding="ascii").strip()) as control:
        control.status()  # as a console has its connection open
        for line in sys.stdin:
            begun = time.perf_counter()
            done = control.revoke(line.strip(), reason="proved to be at once")
            told = {
                "returned_ns": time.time_ns(),
                "took_ms": (time.perf_counter() - begun) * 1000,
                "cancelled": done["calls_cancelled"],
            }
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
