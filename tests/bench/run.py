"""What brokering costs: direct, a bare floor, an SDK pass-through, peers and Haltline, in interleaved rounds of real processes.

usage: python tests/bench/run.py [--rounds N] [--seconds S] [--quick] [--peers] [--only-rounds] [--json FILE] [--write]
                                 [--no-stdio] [--scratch FOLDER] [--cache FOLDER]
Needs haltline importable (an editable install, or PYTHONPATH=server:clients). Afterwards the books of the load client, the
upstream and the broker must agree, or there is no figure. `--peers` fetches the peers from their registries, once.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import signal
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import brokered
import commandline
import decide
import goals
import listing
import load
import machine
import official
import peering
import report
import stopping
import uvloop
from goals import HALTLINE, HALTLINE_STDIO, Goal
from processes import BENCH, CHECKOUT, Failed, rss_mb, server
from rounds import Figures, Target, measure

if TYPE_CHECKING:
    from peering import Peers

COUNTS = (1, 16, 64)
BUSY = 0.25
"""Load average a core, above which somebody else's work is in the figures."""
NO_DISK = {"tmpfs", "ramfs", "overlay"}
RESULTS = BENCH / "RESULTS.md"
KEPT = "<!-- What follows is written by hand: a run keeps it. -->"
CALLS_FOR_MEMORY = 100_000


@dataclass(frozen=True, slots=True)
class Ran:
    """One whole run that holds."""

    figures: Figures
    targets: list[Target]
    facts: list[str]
    goals: list[Goal]


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-", dir=asked.scratch) as folder:
            if machine.file_system(Path(folder)) in NO_DISK:
                _say(
                    f"{folder} is on {machine.file_system(Path(folder))}: writes may cost nothing there; see --scratch"
                )
            ran = _run(asked, Path(folder))
            told = _told(asked, Path(folder), ran)
    except (Failed, load.Wrong, OSError) as failed:
        _say(f"No figures: {failed}")
        return 1
    print(told)
    if asked.json:
        asked.json.write_text(_json(ran), encoding="utf-8")
    if asked.write:
        kept = RESULTS.read_text(encoding="utf-8").partition(KEPT)
        RESULTS.write_text(f"{told}\n{kept[1]}{kept[2]}" if kept[1] else told, encoding="utf-8")
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
        idle = rss_mb(broker.pid)
        peers = _peers(asked, folder, url, stack)
        targets = [
            Target(report.DIRECT, upstream, upstream_pid),
            Target(report.FLOOR, floor, floor_pid, bare=True),
            Target(report.PASSTHROUGH, passthrough, passthrough_pid),
            *peers.targets,
            Target(HALTLINE, broker.agents_port, broker.pid, tools["http"], tokens),
        ]
        if asked.stdio:
            targets.append(Target(HALTLINE_STDIO, broker.agents_port, broker.pid, tools["stdio"], tokens))
        figures = uvloop.run(measure(targets, counts=COUNTS, rounds=asked.rounds, seconds=asked.seconds, say=_say))
        for name, answered in peers.answered.items():
            figures.answered[name] += answered
        calls = figures.answered[HALTLINE] + figures.answered[HALTLINE_STDIO]
        if not asked.only_rounds:
            more = uvloop.run(_until(targets, CALLS_FOR_MEMORY - calls))
            calls, figures.answered[HALTLINE] = calls + more, figures.answered[HALTLINE] + more
        after = rss_mb(broker.pid)
        facts = [f"broker ready {broker.ready_s:.2f} s after it was started", _memory(idle, after, calls)]
        facts += [f"not measured: {name}: {why}" for name, why in peers.missing.items()]
        _upstream_agrees(url, figures)
    head = brokered.verify(folder / "broker", calls)
    books = f"books agree: {calls:,} calls, {2 * calls:,} events, {calls * brokered.PRICE_MICROS:,} micro-units charged"
    quiet = f"before the run: fdatasync p50 {before[0]:.2f} ms, load {before[1]:.2f} a core"
    found = goals.of_rounds(figures, before[0], peers.missing)
    if not asked.only_rounds:
        found += _singly(folder, (idle, after if calls >= CALLS_FOR_MEMORY else None))
    return Ran(figures, targets, [quiet, *facts, books, f"audit verify: {head}"], found)


def _peers(asked: argparse.Namespace, folder: Path, url: str, stack: ExitStack) -> Peers:
    if asked.peers:
        return stack.enter_context(peering.started(asked.cache, folder, url, _say))
    return peering.none("they were not asked for, see --peers")


async def _until(targets: list[Target], calls: int) -> int:
    """So many more calls of the broker, at 64 sessions; how many it were."""
    [target] = [target for target in targets if target.name == HALTLINE]
    sessions, done = target.sessions("handshake", max(COUNTS)), 0
    for session in sessions:
        await session.open()
    while done < calls:
        done += (await load.run(sessions, 1.0)).answered
    for session in sessions:
        session.close()
    return done


def _singly(folder: Path, memory: tuple[float | None, float | None]) -> list[Goal]:
    """What is not measured in rounds, each with a broker of its own."""
    for name in ("official", "revokes", "lists", "commands"):
        (folder / name).mkdir()
    _say("the official client, revokes, lists, decisions, commands")
    return goals.of_commands(
        official.measured(folder / "official"),
        stopping.measured(folder / "revokes"),
        listing.measured(folder / "lists"),
        decide.measured(),
        commandline.measured(folder / "commands"),
        memory,
    )


_OF_THE_UPSTREAM = (report.DIRECT, report.PASSTHROUGH, peering.FASTMCP, peering.AUTHMCP, HALTLINE)


def _upstream_agrees(url: str, figures: Figures) -> None:
    """The upstream's own count against what the clients of it got."""
    with urllib.request.urlopen(url.replace("/mcp", "/calls"), timeout=5) as reply:
        counted = int(reply.read())
    ours = sum(figures.answered[name] for name in _OF_THE_UPSTREAM)
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
    return f"# What brokering a call costs\n\n{when}. {how}\n\n{facts}\n\n{goals.table(ran.goals)}\n\n{table}\n"


def _json(ran: Ran) -> str:
    rounds = [
        {"era": era, "sessions": count, "target": target, "rounds": [dataclasses.asdict(one) for one in figures]}
        for ((era, count), target), figures in ran.figures.rounds.items()
    ]
    return json.dumps({"goals": goals.as_json(ran.goals), "facts": ran.facts, "rounds": rounds}, indent=1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each row in each round")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything work?")
    parser.add_argument("--peers", action="store_true", help="also others' proxies and gateways")
    parser.add_argument("--only-rounds", action="store_true", help="without what is measured by itself")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / ".tools" / "peers", help="where the peers are kept")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
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
