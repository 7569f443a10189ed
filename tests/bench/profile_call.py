"""Where the time of a brokered call goes: a broker under load, sampled from outside with py-spy, told in µs a call.

Without py-spy (pip install py-spy) the broker runs under cProfile instead: slower, and without the writer's thread.
usage: python tests/bench/profile_call.py [--sessions N] [--seconds S] [--era handshake|2026-07-28] [--stdio] [--flame SVG] [--raw FILE]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import brokered
import load
import uvloop
from processes import BENCH, Failed, cpu_s, server, voluntary_switches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from load import Sample

__all__ = ["main"]

SAMPLES_PER_S = 250
LEAVES_TOLD = 30
STEPS: tuple[tuple[str, str], ...] = (
    ("writer: COMMIT and fdatasync, and what surrounds rows", "_work (haltline/store/writer.py"),
    ("writer: rows written", "_write (haltline/store/unit.py"),
    ("identify", "principal (haltline/calls/admission.py"),
    ("gather facts", "gather (haltline/facts.py"),
    ("decide", "decide (haltline/policy/policy.py"),
    ("hold", "hold (haltline/ledger.py"),
    ("end the hold", "_end (haltline/ledger.py"),
    ("audit event", "append (haltline/audit.py"),
    ("rules over the agent's ways", "watched (haltline/calls/watching.py"),
    ("upstream", "send (haltline/calls/dispatch.py"),
    ("asking the writer and waiting", "run (haltline/store/writer.py"),
    ("answer written", "answer (haltline/wire/reply.py"),
    ("body read and parsed", "read_body (haltline/wire/http.py"),
    ("JSON, strictly", "parse (haltline/wire/strict_json.py"),
    ("rules of 2026-07-28 headers", "_modern_rejection (haltline/wire/endpoint.py"),
    ("broker, the rest", "call (haltline/broker.py"),
    ("endpoint, the rest", "__call__ (haltline/wire/endpoint.py"),
    ("HTTP server: reading requests", "data_received (uvicorn/"),
    ("HTTP server: the rest", "run_asgi (uvicorn/"),
    ("upstream's connection: reading answers", "data_received (haltline/"),
    ("delivering commits", "_over (haltline/store/writer.py"),
    ("transaction 1, the rest", "_decide (haltline/broker.py"),
    ("transaction 2, the rest", "record (haltline/broker.py"),
    ("taking turns", "_take_turn (haltline/store/writer.py"),
)
"""Steps of a call by a function on the stack. A sample belongs to the innermost step on it."""
IDLE = (
    "wait (threading.py",
    "_connection_worker_thread (aiosqlite",
    "get (queue.py",
    "_next (haltline/store/writer.py",
    "_worker (concurrent/",
)
"""Innermost frames of a thread that waits, which py-spy does not tell from one that works everywhere."""


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        return _inside(sys.argv[2], sys.argv[3:])
    asked = _arguments()
    spy = shutil.which("py-spy") or shutil.which(str(Path(sys.executable).with_name("py-spy")))
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-") as name:
            _profile(asked, Path(name), spy)
    except (Failed, load.Wrong, OSError) as failed:
        print(f"No profile: {failed}", file=sys.stderr)
        return 1
    return 0


def _profile(asked: argparse.Namespace, folder: Path, spy: str | None) -> None:
    stats = folder / "stats"
    launcher = ("-m", "haltline") if spy else (str(BENCH / "profile_call.py"), "--inside", str(stats))
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("upstream.py", folder=folder))
        url = f"http://127.0.0.1:{port}/mcp"
        serving = brokered.serving(folder / "broker", url, stdio=asked.stdio, launcher=launcher)
        broker = stack.enter_context(serving)
        tool = brokered.TOOLS["stdio" if asked.stdio else "http"]
        broker.await_tools([tool])
        tokens = broker.open_sessions(asked.sessions)
        before, switches = cpu_s(broker.pid), voluntary_switches(broker.pid)
        raw = asked.raw or folder / "stacks"
        spying = _spy(spy, broker.pid, asked.seconds, raw, "raw") if spy else None
        drawing = _spy(spy, broker.pid, asked.seconds, asked.flame, "flamegraph") if spy and asked.flame else None
        sample = uvloop.run(_loaded(broker.agents_port, tool, tokens, asked))
        after, switches = cpu_s(broker.pid), voluntary_switches(broker.pid) - switches
        for one in (spying, drawing):
            if one is not None and one.wait(60) != 0:
                raise Failed("py-spy could not read the broker: it needs the right to trace processes")
    cpu_us = 0.0 if before is None or after is None else (after - before) / sample.answered * 1e6
    print(
        f"{asked.sessions} sessions, {asked.era}: {sample.per_s:,.0f} calls/s while watched, CPU {cpu_us:.0f} µs a call, "
        f"{switches / sample.answered:.1f} times a call some thread waited for another or for the kernel"
    )
    if spying is not None:
        _tell_stacks(raw, cpu_us)
        if asked.flame:
            print(f"\nflame graph: {asked.flame}")
    else:
        pstats.Stats(str(stats)).sort_stats("tottime").print_stats(LEAVES_TOLD)


def _spy(spy: str, pid: int, seconds: float, out: Path, form: str) -> subprocess.Popen[bytes]:
    """Watches for so long, from now on."""
    command = [spy, "record", "--pid", str(pid), "--duration", str(int(seconds)), "--rate", str(SAMPLES_PER_S)]
    # Without --nonblocking the broker stands still for each sample, and what is measured is the profiler.
    return subprocess.Popen(
        [*command, "--nonblocking", "--format", form, "--output", str(out)], stdout=subprocess.DEVNULL
    )


async def _loaded(port: int, tool: str, tokens: list[str], asked: argparse.Namespace) -> Sample:
    sessions = [
        load.Session("127.0.0.1", port, era=asked.era, tool=tool, token=token, name=f"p{number}")
        for number, token in enumerate(tokens)
    ]
    for session in sessions:
        await session.open()
    try:
        return await load.run(sessions, asked.seconds + 1)
    finally:
        for session in sessions:
            session.close()


def _tell_stacks(raw: Path, cpu_us: float) -> None:
    """`frame;frame;leaf count` a line, outermost first."""
    stacks = [line.rpartition(" ") for line in raw.read_text(encoding="utf-8").splitlines()]
    counted = [
        (frames.split(";"), int(count)) for frames, _, count in stacks if count.isdigit()
    ]  # else a name was misread
    counted = [(frames, count) for frames, count in counted if not _idle(frames[-1])]
    total = sum(count for _, count in counted)
    _tell("by step", _sums(counted, _step), total, cpu_us)
    _tell("by function, itself", _sums(counted, lambda frames: _function(frames[-1])), total, cpu_us)


def _idle(leaf: str) -> bool:
    return any(mark in leaf for mark in IDLE)


def _sums(counted: Iterable[tuple[list[str], int]], key: Callable[[list[str]], str]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for frames, count in counted:
        sums[key(frames)] += count
    return sums


def _step(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, mark in STEPS:
            function, _, file = mark.partition(" (")
            called, _, place = frame.partition(" (")
            if called.rpartition(".")[2] == function and file in place:
                return name
    return "event loop and the rest"


def _function(frame: str) -> str:
    """Without the line number."""
    head, _, line = frame.rpartition(":")
    return f"{head})" if line.rstrip(")").isdigit() else frame


def _tell(title: str, sums: Counter[str], total: int, cpu_us: float) -> None:
    print(f"\n{title}:")
    for name, count in sums.most_common(LEAVES_TOLD):
        share = count / total
        print(f"  {share:6.1%}  {share * cpu_us:6.1f} µs  {name}")


def _inside(out: str, arguments: list[str]) -> int:
    """Run `haltline` with these arguments in this process, under cProfile."""
    sys.argv = ["haltline", *arguments]
    profile = cProfile.Profile()
    profile.enable()
    try:
        runpy.run_module("haltline", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    finally:
        profile.disable()
        profile.dump_stats(out)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--era", choices=load.ERAS, default="handshake")
    parser.add_argument("--stdio", action="store_true", help="the upstream over stdio")
    parser.add_argument("--flame", type=Path, metavar="SVG", help="also draw a flame graph, for a browser")
    parser.add_argument("--raw", type=Path, help="keep py-spy's collapsed stacks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
