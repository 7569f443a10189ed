"""What brokering costs: direct, a bare floor, an SDK pass-through and Haltline, in interleaved rounds of real processes.

usage: python tests/bench/run.py [--rounds N] [--seconds S] [--quick] [--write] [--no-stdio] [--scratch FOLDER]
Needs haltline importable (an editable install, or PYTHONPATH=server:clients). Afterwards the books of the load client, the upstream and the broker must agree, or there is no figure.
"""

from __future__ import annotations

import argparse
import datetime as dt
import signal
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import brokered
import load
import machine
import report
import uvloop
from processes import BENCH, Failed, rss_mb, server
from rounds import Figures, Target, measure

COUNTS = (1, 16, 64)
HALTLINE = "haltline"
HALTLINE_STDIO = "haltline, stdio"
BUSY = 0.25
"""Load average a core, above which somebody else's work is in the figures."""
NO_DISK = {"tmpfs", "ramfs", "overlay"}
RESULTS = BENCH / "RESULTS.md"


@dataclass(frozen=True, slots=True)
class Ran:
    """One whole run that holds."""

    figures: Figures
    targets: list[Target]
    facts: list[str]


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-", dir=asked.scratch) as folder:
            if machine.file_system(Path(folder)) in NO_DISK:
                _say(
                    f"{folder} is on {machine.file_system(Path(folder))}: writes may cost nothing there; see --scratch"
                )
            told = _told(asked, Path(folder), _run(asked, Path(folder)))
    except (Failed, load.Wrong, OSError) as failed:
        _say(f"No figures: {failed}")
        return 1
    print(told)
    if asked.write:
        RESULTS.write_text(told, encoding="utf-8")
        _say(f"wrote {RESULTS}")
    return 0


def _run(asked: argparse.Namespace, folder: Path) -> Ran:
    before = machine.fdatasync_ms(folder), machine.load_a_core()
    if before[1] > BUSY:
        _say(
            f"This machine is busy (load {before[1]:.1f} a core): the figures hold for it as it is, not for a quiet one."
        )
    with ExitStack() as stack:
        upstream, upstream_pid = stack.enter_context(server("upstream.py", folder=folder))
        url = f"http://127.0.0.1:{upstream}/mcp"
        floor, floor_pid = stack.enter_context(server("floor.py", folder=folder))
        passthrough, passthrough_pid = stack.enter_context(server("passthrough.py", url, folder=folder))
        broker = stack.enter_context(brokered.serving(folder / "broker", url, stdio=asked.stdio))
        tools = brokered.TOOLS if asked.stdio else {"http": brokered.TOOLS["http"]}
        broker.await_tools(list(tools.values()))
        tokens = broker.open_sessions(max(COUNTS))
        targets = [
            Target(report.DIRECT, upstream, upstream_pid),
            Target(report.FLOOR, floor, floor_pid, bare=True),
            Target(report.PASSTHROUGH, passthrough, passthrough_pid),
            Target(HALTLINE, broker.agents_port, broker.pid, tools["http"], tokens),
        ]
        if asked.stdio:
            targets.append(Target(HALTLINE_STDIO, broker.agents_port, broker.pid, tools["stdio"], tokens))
        idle = rss_mb(broker.pid)
        figures = uvloop.run(measure(targets, counts=COUNTS, rounds=asked.rounds, seconds=asked.seconds, say=_say))
        calls = figures.answered[HALTLINE] + figures.answered[HALTLINE_STDIO]
        facts = [f"broker ready {broker.ready_s:.2f} s after it was started", _memory(idle, rss_mb(broker.pid), calls)]
        _upstream_agrees(url, figures)
    head = brokered.verify(folder / "broker", calls)
    books = f"books agree: {calls:,} calls, {2 * calls:,} events, {calls * brokered.PRICE_MICROS:,} micro-units charged"
    quiet = f"before the run: fdatasync p50 {before[0]:.2f} ms, load {before[1]:.2f} a core"
    return Ran(figures, targets, [quiet, *facts, books, f"audit verify: {head}"])


def _upstream_agrees(url: str, figures: Figures) -> None:
    """The upstream's own count against what the clients of it got."""
    with urllib.request.urlopen(url.replace("/mcp", "/calls"), timeout=5) as reply:
        counted = int(reply.read())
    ours = sum(figures.answered[name] for name in (report.DIRECT, report.PASSTHROUGH, HALTLINE))
    if counted != ours:
        raise Failed(f"the upstream answered {counted} calls, the load client got {ours} answers")


def _memory(idle: float | None, after: float | None, calls: int) -> str:
    if idle is None or after is None:
        return "memory of the broker: not known on this system"
    return f"memory of the broker: {idle:.0f} MB idle, {after:.0f} MB after {calls:,} calls"


def _told(asked: argparse.Namespace, folder: Path, ran: Ran) -> str:
    when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    how = (
        f"{asked.rounds} interleaved rounds of {asked.seconds:g} s for each row; medians over rounds, ratios and added "
        "times paired by round. Load client, servers and upstream share the machine."
    )
    facts = "\n".join(f"- {fact}" for fact in [machine.described(folder), *ran.facts])
    table = report.tables(ran.figures, [target.name for target in ran.targets], COUNTS)
    return f"# What brokering a call costs\n\n{when}. {how}\n\n{facts}\n\n{table}\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row in each round")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything work?")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--no-stdio", dest="stdio", action="store_false", help="without the upstream over stdio")
    parser.add_argument("--scratch", type=Path, help="where the broker's data lies meanwhile; a real disk")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.seconds = 1, 0.5
    return asked


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
