"""Memory under load that does not end: resident memory of a broker over half an hour of calls, and what it grew by.

The first sixth is its warming up: caches of bounded size fill. After it the line through the samples must be flat.
usage: python tests/bench/soak.py [--minutes N] [--sessions N] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import brokered
import load
import uvloop
from processes import Failed, rss_mb, server

__all__ = ["main"]

SAMPLES = 60
FLAT_MB_AN_HOUR = 2.0
"""Less than this is not told from noise: the allocator gives pages back when it likes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory after so many calls, at so many seconds."""

    at_s: float
    calls: int
    mb: float


def main() -> int:
    asked = _arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-") as folder:
            samples, idle = _measured(Path(folder), asked.minutes * 60, asked.sessions)
    except (Failed, load.Wrong, OSError) as failed:
        print(f"No figures: {failed}", file=sys.stderr)
        return 1
    warm = samples[len(samples) // 6 :]
    slope, _ = linear_regression([one.at_s / 3600 for one in warm], [one.mb for one in warm])
    found = {
        "idle_mb": idle,
        "warm_mb": warm[0].mb,
        "end_mb": samples[-1].mb,
        "most_mb": max(one.mb for one in samples),
        "calls": samples[-1].calls,
        "mb_an_hour": slope,
        "minutes": asked.minutes,
    }
    print(json.dumps(found) if asked.json else _told(found))
    return 0


def _measured(folder: Path, seconds: float, count: int) -> tuple[list[Sample], float]:
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("upstream.py", folder=folder))
        broker = stack.enter_context(brokered.serving(folder / "broker", f"http://127.0.0.1:{port}/mcp", stdio=False))
        broker.await_tools([brokered.TOOLS["http"]])
        tokens = broker.open_sessions(count)
        idle = rss_mb(broker.pid)
        if idle is None:
            raise Failed("memory is not known on this system")
        samples = uvloop.run(_calling(broker, tokens, seconds))
    brokered.verify(folder / "broker", samples[-1].calls)
    return samples, idle


async def _calling(broker: brokered.Broker, tokens: list[str], seconds: float) -> list[Sample]:
    eras = load.ERAS
    sessions = [
        load.Session(
            "127.0.0.1",
            broker.agents_port,
            era=eras[number % len(eras)],
            tool=brokered.TOOLS["http"],
            token=token,
            name=f"s{number}",
        )
        for number, token in enumerate(tokens)
    ]
    for session in sessions:
        await session.open()
    samples: list[Sample] = []
    begun, calls = time.monotonic(), 0
    for _ in range(SAMPLES):
        calls += (await load.run(sessions, seconds / SAMPLES, warm_s=0.0)).answered
        samples.append(Sample(time.monotonic() - begun, calls, rss_mb(broker.pid) or 0.0))
        print(f"{samples[-1].at_s:6.0f} s  {calls:9,} calls  {samples[-1].mb:6.1f} MB", file=sys.stderr, flush=True)
    for session in sessions:
        session.close()
    return samples


def _told(found: dict[str, float]) -> str:
    return (
        f"{found['calls']:,} calls in {found['minutes']:g} minutes: {found['idle_mb']:.0f} MB idle, "
        f"{found['warm_mb']:.0f} MB after a sixth of the time, {found['end_mb']:.0f} MB at the end, "
        f"{found['most_mb']:.0f} MB at most; {found['mb_an_hour']:+.1f} MB an hour (flat: below {FLAT_MB_AN_HOUR:g})"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
