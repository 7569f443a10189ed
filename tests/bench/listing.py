"""`tools/list` of 500 tools by sessions that are granted most of them: server time of a grant's first list, and of the next.

Server time is CPU time of the broker's process, and beside it the time until the whole answer is there; a first list is
that of a grant nobody had before. usage: python tests/bench/listing.py [--json]
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import brokered
import load
import uvloop
from processes import Failed, cpu_s, server

from haltline_client import ControlClient

if TYPE_CHECKING:
    from brokered import Broker

__all__ = ["main", "measured"]

TOOLS = 500
GRANTED = 490
GRANTS = 20
NEXT = 200
GOAL_MS = 2.0


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-") as folder:
            found = measured(Path(folder))
    except (Failed, load.Wrong, OSError) as failed:
        print(f"No figures: {failed}", file=sys.stderr)
        return 1
    print(json.dumps(found) if "--json" in sys.argv else _told(found))
    return 0


def measured(folder: Path) -> dict[str, float]:
    """Milliseconds of the broker for one list, and bytes of its answer."""
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("upstream.py", "--tools", str(TOOLS), folder=folder))
        url = f"http://127.0.0.1:{port}/mcp"
        broker = stack.enter_context(brokered.serving(folder / "broker", url, stdio=False))
        broker.await_tools([f"http__echo_{TOOLS - 1}"])
        return uvloop.run(_measure(broker, _scoped(broker)))


def _scoped(broker: Broker) -> list[str]:
    """A credential for each of many grants: all but a few tools, other ones each time."""
    with ControlClient(broker.control_url, broker.person) as control:
        control.add_agent("lists", "production")
        return [
            control.open_session(
                "lists",
                f"list {number}",
                tools=["http__echo_0*", "http__echo_1*", "http__echo_2*", "http__echo_3*",
                       *(f"http__echo_4{tens}*" for tens in range(10) if tens != number % 10), f"http__never_{number}"],
            )["token"]
            for number in range(GRANTS + 1)
        ]  # fmt: skip


async def _measure(broker: Broker, tokens: list[str]) -> dict[str, float]:
    sessions = [
        load.Session("127.0.0.1", broker.agents_port, era="handshake", tool="http__echo", token=token)
        for token in tokens
    ]
    for session in sessions:
        await session.open()
    await _lists(broker, sessions[:1], 3)  # connections and code are warm, these grants' lists are not
    first = [await _lists(broker, [session], 1) for session in sessions[1:]]
    later = [await _lists(broker, [session], NEXT // GRANTS) for session in sessions[1:]]
    size = len(await sessions[1].ask("tools/list"))
    for session in sessions:
        session.close()
    return {
        "first_cpu_ms": median(cpu for cpu, _ in first),
        "first_ms": median(took for _, took in first),
        "next_cpu_ms": median(cpu for cpu, _ in later),
        "next_ms": median(took for _, took in later),
        "bytes": size,
    }


async def _lists(broker: Broker, sessions: list[load.Session], times: int) -> tuple[float, float]:
    """(CPU, wall) milliseconds of a list. Each answer must hold what is granted, no more."""
    await asyncio.sleep(0.01)
    before, begun = cpu_s(broker.pid) or 0.0, time.perf_counter()
    answers = [await session.ask("tools/list") for session in sessions for _ in range(times)]
    took, after = time.perf_counter() - begun, cpu_s(broker.pid) or 0.0
    for answer in answers:
        listed = len(json.loads(answer)["result"]["tools"])
        if not GRANTED - 2 <= listed <= GRANTED:
            raise Failed(f"{listed} tools are listed, {GRANTED} are granted")
    return (after - before) / len(answers) * 1000, took / len(answers) * 1000


def _told(found: dict[str, float]) -> str:
    return "\n".join(
        f"{word} list of a grant: {found[f'{word}_cpu_ms']:.2f} ms of CPU in the broker, answered in "
        f"{found[f'{word}_ms']:.2f} ms (goal {GOAL_MS:g}; {TOOLS} tools, {found['bytes']:,} bytes)"
        for word in ("first", "next")
    )


if __name__ == "__main__":
    sys.exit(main())
