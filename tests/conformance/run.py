"""The official conformance suite against the SDK's everything-server, direct and behind `haltline serve`, as a table.

usage: PYTHONPATH=tests python -m conformance.run TOOLS [--over http|stdio] [--write] [--details FILE]
`--over stdio`: behind the broker the same server is a program, with a process for each protocol era.
Fails when fewer required scenarios pass through the broker than `EXPECTED` records, or when one passes directly and not
through the broker without being named in tests/README.md. `--write` records what passes now.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import processes
from conformance.proxy import adding
from conformance.suite import REVISIONS, Scenario, missing, run_suite, server_folder
from support.broker_process import broker_process

EXPECTED = Path(__file__).with_name("EXPECTED")
README = Path(__file__).parents[1] / "README.md"
START_S = 30.0
POLICY = """
version: "1"
currency: USD
time_zone: UTC
tiers:
  conformance: {tools: ["*"]}
tools:
  "*": {price: "0.00"}
"""
Table = dict[str, tuple[list[Scenario], list[Scenario]]]
"""By revision: what is said of the server itself, and of it behind the broker."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance")
    parser.add_argument("tools", type=Path)
    parser.add_argument("--over", choices=["http", "stdio"], default="http", help="how the broker reaches the server")
    parser.add_argument("--write", action="store_true", help="record what passes now")
    parser.add_argument("--details", type=Path, help="write why each scenario fails to this file")
    asked = parser.parse_args()
    tools = asked.tools.resolve()
    why = missing(tools)
    if why is not None:
        print(f"Not run: the official conformance suite: {why}")
        return 0
    table = _measure(tools, asked.over)
    counts = {revision: _show(revision, asked.over, *both) for revision, both in table.items()}
    if asked.details is not None:
        asked.details.write_text("\n".join(_details(table)), encoding="utf-8")
    if asked.write:
        EXPECTED.write_text("".join(f"{revision} {count}\n" for revision, count in counts.items()), encoding="utf-8")
    return _judge(counts, table)


def _measure(tools: Path, over: str) -> Table:
    fronts = {revision: socket.create_server(("127.0.0.1", 0)) for revision in REVISIONS}
    names = [f"{name}:{front.getsockname()[1]}" for front in fronts.values() for name in ("127.0.0.1", "localhost")]
    listener = {"allowed_hosts": names, "allowed_origins": [f"http://{name}" for name in names]}
    with tempfile.TemporaryDirectory() as scratch, _everything_server(tools, Path(scratch)) as port:
        direct = {revision: run_suite(tools, port, revision) for revision in REVISIONS}
        found = {"url": f"http://127.0.0.1:{port}/mcp"} if over == "http" else _program(tools)
        upstreams = {"every": {**found, "prefix": ""}}
        with broker_process(Path(scratch) / "broker", upstreams=upstreams, policy=POLICY, agents=listener) as broker:
            broker.await_tools("test_simple_text")
            table: Table = {}
            for revision, front in fronts.items():
                (opened,) = broker.open([f"suite-{revision}"], "conformance")
                brokered = asyncio.run(_behind(tools, front, broker.agents_port, opened.token, revision))
                table[revision] = (direct[revision], brokered)
            return table


def _program(tools: Path) -> dict[str, Any]:
    code = "from mcp_everything_server.server import mcp; mcp.run('stdio')"
    return {"command": sys.executable, "args": ["-c", code], "cwd": str(server_folder(tools))}


async def _behind(tools: Path, front: socket.socket, port: int, token: str, revision: str) -> list[Scenario]:
    async with adding(f"Authorization: Bearer {token}", front, port):
        return await asyncio.to_thread(run_suite, tools, front.getsockname()[1], revision)


@contextmanager
def _everything_server(tools: Path, scratch: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    command = [sys.executable, "-m", "mcp_everything_server", "--port", str(port)]
    with processes.running(command, folder=server_folder(tools), log=scratch / "everything.log") as process:
        by = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > by:
                raise processes.Failed(f"it did not start:\n{processes.last_words(scratch / 'everything.log')}")
            time.sleep(0.05)
        yield port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# what it comes to


def _show(revision: str, over: str, direct: list[Scenario], brokered: list[Scenario]) -> int:
    """Print one revision; returns how many required scenarios pass through the broker."""
    through = {one.name: one for one in brokered}
    width = max(len(one.name) for one in direct)
    print(f"\nConformance with {revision}, the SDK's everything-server, brokered over {over}\n")
    print(f"{'scenario':<{width}}  direct   brokered")
    for one in direct:
        behind = through.get(one.name)
        differs = "" if behind is not None and _same(one, behind) else "  differs"
        note = f"  ({one.unscored}, not required)" if one.unscored else ""
        print(f"{one.name:<{width}}  {_told(one):<7}  {_told(behind):<7}{differs}{note}".rstrip())
    required = [one for one in direct if not one.unscored]
    passed = sum(one.name in through and through[one.name].passed for one in required)
    print(f"\n{revision}: passed {passed} of {len(required)} required", end="")
    print(f" (direct {sum(one.passed for one in required)} of {len(required)})")
    return passed


def _told(one: Scenario | None) -> str:
    """As `passed checks/checks`."""
    return "not run" if one is None else f"{'✓' if one.passed else '✗'} {one.checks - one.failed}/{one.checks}"


def _same(one: Scenario, other: Scenario) -> bool:
    return (one.passed, one.checks, one.failed) == (other.passed, other.checks, other.failed)


def _differing(table: Table) -> Iterator[tuple[str, Scenario, Scenario | None]]:
    for revision, (direct, brokered) in table.items():
        through = {one.name: one for one in brokered}
        for one in direct:
            behind = through.get(one.name)
            if behind is None or not _same(one, behind):
                yield revision, one, behind


def _details(table: Table) -> Iterator[str]:
    for revision, one, behind in _differing(table):
        yield f"{revision} {one.name}{' (not required)' if one.unscored else ''}: {_told(one)} / {_told(behind)}"
        yield from (f"    {complaint}" for complaint in (behind.complaints if behind else ()))
        yield from (f"    not passed: {name}" for name in one.asked if behind is None or name not in behind.asked)
    yield ""


def _judge(counts: dict[str, int], table: Table) -> int:
    recorded = dict(line.split() for line in EXPECTED.read_text(encoding="utf-8").splitlines())
    wrong = [
        f"{revision}: {count} pass, {recorded.get(revision, 0)} did before"
        for revision, count in counts.items()
        if count < int(recorded.get(revision, 0))
    ]
    named = README.read_text(encoding="utf-8") if README.exists() else ""
    wrong += [
        f"{revision}: {one.name} differs and is not named in tests/README.md"
        for revision, one, _ in _differing(table)
        if f"`{one.name}`" not in named
    ]
    print("".join(f"\n✗ {line}" for line in wrong) or "\n✓ nothing that passed is lost, and what differs is named")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
