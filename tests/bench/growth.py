"""What growth costs: calls of a broker with years of history and a large policy against those of an empty one, interleaved.

The grown one has so many events (10 million), 10,000 open sessions of 1,000 agents, 64 upstreams with 500 tools, and a policy
of 500 rules more: 480 that each name the tools or agents they are for, spread over all, and 20 for every call. The empty one
has one upstream, one tool and the shipped policy. Times of a call are CPU time of the broker's process.

`--less policy`, `upstreams` or `agents` leaves one of these as the empty broker has it, to find what it costs.

usage: python tests/bench/growth.py [--events N] [--less WHAT] [--rounds N] [--seconds S] [--scratch FOLDER] [--json] [--no-verify]
Prints first what disk and time it takes; the store is made anew each time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import brokered
import grown
import load
import machine
import uvloop
from processes import Failed, cpu_s, rss_mb, server

from haltline_client import ControlClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brokered import Broker

__all__ = ["main"]

EVENTS = 10_000_000
SESSIONS, AGENTS, UPSTREAMS, TOOLS_EACH = 10_000, 1_000, 64, 8
ARGUMENT_RULES, WATCHES = 440, 60
FOR_EVERYBODY = 10
COUNTS = (1, 64)
GOAL_RATIO, GOAL_START_S = 1.2, 5.0


@dataclass(frozen=True, slots=True)
class Round:
    """One span of calls: CPU µs of the broker for a call, calls/s, and the median time of a call in ms."""

    cpu_us: float
    per_s: float
    p50_ms: float


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-growth-", dir=asked.scratch) as folder:
            found = _measured(asked, Path(folder))
    except (Failed, load.Wrong, OSError) as failed:
        _say(f"No figures: {failed}")
        return 1
    print(json.dumps(found, indent=1) if asked.json else _told(found))
    return 0


def _measured(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    need = asked.events * grown.BYTES_AN_EVENT
    free = shutil.disk_usage(folder).free
    _say(
        f"{asked.events:,} events: about {need / 1e9:.1f} GB in {folder} ({free / 1e9:.0f} GB free), "
        f"{asked.events / grown.EVENTS_A_S / 60:.0f} minutes to write them, some for the rest"
    )
    if free < 1.2 * need:
        raise Failed("that is not enough; see --scratch and --events")
    _say(machine.described(folder))
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("upstream.py", "--tools", str(TOOLS_EACH), folder=folder))
        found, tokens = _made(asked, folder, f"http://127.0.0.1:{port}")
        large, small = folder / "grown", folder / "empty"
        with brokered.started(large) as first:  # pins what the upstreams list, and makes the operators
            first.await_tools([f"{_name(UPSTREAMS - 1)}__echo"])
            found["first_start_s"] = first.ready_s
        both = [stack.enter_context(brokered.started(one)) for one in (small, large)]
        both[1].await_tools([f"{_name(UPSTREAMS - 1)}__echo"])
        found["start_s"] = {"empty": both[0].ready_s, "grown": both[1].ready_s}
        found |= _compared(asked, both, tokens)
    if asked.verify:
        begun = time.monotonic()
        found["audit_verify"] = brokered.verified(large)
        found["audit_verify_s"] = time.monotonic() - begun
    return found


def _made(asked: argparse.Namespace, folder: Path, url: str) -> tuple[dict[str, Any], list[str]]:
    """Both folders: the empty one with a few calls in it, from which the history of the other is made."""
    small, large = folder / "empty", folder / "grown"
    brokered.prepare(small, {"http": {"url": f"{url}/mcp", "max_concurrent": 64}}, list(brokered.TOOLS.values()))
    with brokered.started(small) as broker:
        broker.await_tools([brokered.TOOLS["http"]])
        uvloop.run(_some_calls(broker))
    upstreams = {
        _name(number): {"url": f"{url}/{_name(number)}/mcp", "max_concurrent": 64} for number in range(UPSTREAMS)
    }
    brokered.prepare(large, upstreams, ["up*"])
    if "policy" not in asked.less:
        _add_rules(large / "policies")
    tools = [(tool, tool.partition("__")[0]) for tool in _tools()]
    begun = time.monotonic()
    tokens = grown.grow(
        large / "data",
        grown.sample_of(small / "data" / "haltline.db"),
        events=asked.events,
        sessions=min(SESSIONS, asked.events // 4),
        agents=min(AGENTS, asked.events // 40),
        tools=tools,
        tiers=brokered.TIERS,
        say=_say,
    )
    size = (large / "data" / "haltline.db").stat().st_size
    _say(f"made in {time.monotonic() - begun:.0f} s, {size / 1e9:.2f} GB")
    return {"events": asked.events, "bytes": size, "machine": machine.described(folder)}, tokens


async def _some_calls(broker: Broker) -> None:
    session = load.Session(
        "127.0.0.1", broker.agents_port, era="handshake", tool=brokered.TOOLS["http"], token=broker.open_sessions(1)[0]
    )
    await session.open()
    await load.run([session], 0.2)
    session.close()


def _name(upstream: int) -> str:
    return f"up{upstream:02}"


def _tools() -> list[str]:
    """As agents see them."""
    own = ["echo", *(f"echo_{number:03}" for number in range(1, TOOLS_EACH))]
    return [f"{_name(upstream)}__{tool}" for upstream in range(UPSTREAMS) for tool in own]


def _add_rules(policies: Path) -> None:
    """500 more: on arguments of single tools, and over the ways of single agents; some of either for everybody."""
    tools = _tools()
    arguments: list[dict[str, Any]] = [
        {"path": f"args.field_{number}", "op": "absent", "tools": [tools[number % len(tools)]]}
        for number in range(ARGUMENT_RULES - FOR_EVERYBODY)
    ]
    arguments += [{"path": f"args.nothing_{number}", "op": "absent"} for number in range(FOR_EVERYBODY)]
    watches: dict[str, dict[str, Any]] = {
        f"grown-{number}": {"kind": "velocity", "over": "900.00", "window": "15m", "agents": [f"other-{number}"]}
        for number in range(WATCHES - FOR_EVERYBODY)
    } | {
        f"all-{number}": {"kind": "velocity", "over": f"{900 + number}.00", "window": "15m"}
        for number in range(FOR_EVERYBODY)
    }
    content = {"version": "1", "scopes": {"grown": {"arguments": arguments}}, "rules": watches}
    (policies / "grown.yaml").write_text(json.dumps(content), encoding="utf-8")
    tiers = policies / "tiers.yaml"
    text = tiers.read_text(encoding="utf-8")
    if text.count('    tools: ["*"]') != len(brokered.TIERS):
        raise Failed("the shipped tiers grant other tools than *: say here how they get a scope")
    tiers.write_text(text.replace('    tools: ["*"]', '    scopes: [grown]\n    tools: ["*"]'), encoding="utf-8")


def _compared(asked: argparse.Namespace, both: Sequence[Broker], tokens: list[str]) -> dict[str, Any]:
    empty, large = both
    called = 1 if "upstreams" in asked.less else UPSTREAMS
    of = tokens[-max(COUNTS) :]
    if "agents" in asked.less:
        of = [token for number, token in enumerate(tokens) if number % AGENTS < brokered.AGENTS][-max(COUNTS) :]
    sessions = {
        "empty": _sessions(empty, empty.open_sessions(max(COUNTS)), [brokered.TOOLS["http"]]),
        "grown": _sessions(large, of, [f"{_name(number)}__echo" for number in range(called)]),
    }
    brokers = {"empty": empty, "grown": large}
    rounds = uvloop.run(_rounds(asked, brokers, sessions))
    found: dict[str, Any] = {"calls": {}}
    for count in COUNTS:
        pairs = list(zip(rounds["empty", count], rounds["grown", count], strict=True))
        found["calls"][str(count)] = {
            name: {
                "cpu_us": median(one.cpu_us for one in rounds[name, count]),
                "per_s": median(one.per_s for one in rounds[name, count]),
                "p50_ms": median(one.p50_ms for one in rounds[name, count]),
            }
            for name in brokers
        } | {
            "ratio_cpu": median(two.cpu_us / one.cpu_us for one, two in pairs),
            "ratio_p50": median(two.p50_ms / one.p50_ms for one, two in pairs),
        }
    found["memory_mb"] = {name: rss_mb(broker.pid) for name, broker in brokers.items()}
    found["reads_ms"] = {name: _reads(broker) for name, broker in brokers.items()}
    found["first_call_of_a_session_ms"] = uvloop.run(_first_calls(large, tokens[: 10 * AGENTS : 97]))
    return found


def _sessions(broker: Broker, tokens: Sequence[str], tools: Sequence[str]) -> list[load.Session]:
    return [
        load.Session(
            "127.0.0.1",
            broker.agents_port,
            era="handshake",
            tool=tools[number % len(tools)],
            token=token,
            name=f"g{number}",
        )
        for number, token in enumerate(tokens)
    ]


async def _rounds(
    asked: argparse.Namespace, brokers: dict[str, Broker], sessions: dict[str, list[load.Session]]
) -> dict[tuple[str, int], list[Round]]:
    rounds: dict[tuple[str, int], list[Round]] = {(name, count): [] for name in brokers for count in COUNTS}
    for several in sessions.values():
        for session in several:
            await session.open()
    for name in brokers:  # accounts and connections of all sessions
        await load.run(sessions[name], 1.0)
    for number in range(asked.rounds):
        for count in COUNTS:
            for name in list(brokers) if number % 2 == 0 else list(brokers)[::-1]:
                pid = brokers[name].pid
                before = cpu_s(pid) or 0.0
                sample = await load.run(sessions[name][:count], asked.seconds)
                spent = (cpu_s(pid) or 0.0) - before
                p50 = load.percentile(sample.latencies, 0.5) * 1000
                rounds[name, count].append(Round(spent / sample.answered * 1e6, sample.per_s, p50))
        _say(f"round {number + 1} of {asked.rounds}")
    for several in sessions.values():
        for session in several:
            session.close()
    return rounds


def _reads(broker: Broker) -> dict[str, float]:
    """What an operator asks, in ms: how growth shows outside the calls."""
    with ControlClient(broker.control_url, broker.person) as control:
        kinds: dict[str, Callable[[], Any]] = {
            "status": control.status,
            "list_agents": control.list_agents,
            "list_sessions": control.list_sessions,
            "list_tools": control.list_tools,
            "audit, newest 100": lambda: control.query_audit(newest=True),
            "audit, of a kind": lambda: control.query_audit(kind="call.denied"),
            "audit, of a tool": lambda: control.query_audit(tool="up05__echo", newest=True),
            "audit, of an hour": lambda: control.query_audit(since="1h", limit=10),
        }
        return {name: _ms(ask) for name, ask in kinds.items()}


def _ms(ask: Callable[[], Any]) -> float:
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        ask()
        took.append(time.perf_counter() - begun)
    return sorted(took)[1] * 1000


async def _first_calls(broker: Broker, tokens: Sequence[str]) -> dict[str, float]:
    """Calls of sessions that the running broker has not met: what is loaded of their past."""
    took = []
    for session in _sessions(broker, tokens, ["up07__echo"]):
        await session.open()
        took.append((await load.run([session], 0.0, warm_s=0.0)).latencies[0])
        session.close()
    return {"p50": load.percentile(took, 0.5) * 1000, "p99": load.percentile(took, 0.99) * 1000}


def _told(found: dict[str, Any]) -> str:
    lines = [
        f"{found['events']:,} events, {found['bytes'] / 1e9:.2f} GB; {found['machine']}",
    ]
    start = found["start_s"]
    lines.append(
        f"start: {start['grown']:.2f} s grown (goal {GOAL_START_S:g}), {start['empty']:.2f} s empty; "
        f"{found['first_start_s']:.2f} s the first time"
    )
    for count, row in found["calls"].items():
        empty, large = row["empty"], row["grown"]
        lines.append(
            f"{count} sessions: {large['cpu_us']:.0f} against {empty['cpu_us']:.0f} µs of CPU a call, "
            f"ratio {row['ratio_cpu']:.2f} (goal {GOAL_RATIO:g}); p50 {large['p50_ms']:.2f} against "
            f"{empty['p50_ms']:.2f} ms, ratio {row['ratio_p50']:.2f}; {large['per_s']:,.0f} against {empty['per_s']:,.0f} calls/s"
        )
    first = found["first_call_of_a_session_ms"]
    lines.append(f"first call of a session with a past: p50 {first['p50']:.2f} ms, p99 {first['p99']:.2f} ms")
    lines.append(f"memory: {found['memory_mb']['grown']:.0f} MB grown, {found['memory_mb']['empty']:.0f} MB empty")
    reads = found["reads_ms"]
    lines += [
        f"{name}: {took:.1f} ms grown, {reads['empty'][name]:.1f} ms empty" for name, took in reads["grown"].items()
    ]
    if "audit_verify" in found:
        lines.append(f"audit verify in {found['audit_verify_s']:.0f} s: {found['audit_verify']}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--less", choices=("policy", "upstreams", "agents"), action="append", default=[])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row in each round")
    parser.add_argument("--scratch", type=Path, help="where the stores lie meanwhile; a real disk")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="without `haltline audit verify`")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
