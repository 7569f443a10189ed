"""Revokes while 64 sessions call without a pause: how long until one has returned, at its client and typed as a command.

Each session that is revoked has a call behind it. usage: python tests/bench/stopping.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import brokered
import load
import processes
import uvloop
from processes import Failed, server

from haltline_client import ControlClient

__all__ = ["GOAL_MS", "GOAL_TYPED_MS", "main", "measured"]

CALLING = 64
REVOKED, TYPED = 200, 30
GOAL_MS, GOAL_TYPED_MS = 50.0, 300.0
FOR_EVER_S = 3_600.0


def measured(folder: Path) -> dict[str, float]:
    """p50 and p99 in ms."""
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("upstream.py", folder=folder))
        url = f"http://127.0.0.1:{port}/mcp"
        broker = stack.enter_context(brokered.serving(folder / "stopping", url, stdio=False))
        broker.await_tools([brokered.TOOLS["http"]])
        tokens = broker.open_sessions(CALLING)
        with ControlClient(broker.control_url, broker.person) as control:
            control.add_agent("revoked", "production")
            victims = [control.open_session("revoked", f"task {number}") for number in range(REVOKED + TYPED)]
            calls = folder / "calls.json"
            calls.write_text(json.dumps({"port": broker.agents_port, "tokens": tokens}), encoding="utf-8")
            command = [sys.executable, __file__, "--load", str(calls)]
            caller = stack.enter_context(processes.running(command, folder=folder, log=folder / "load.log"))
            processes.first_line(caller, folder / "load.log")
            took = [_revoked(control, victim["session"]) for victim in victims[:REVOKED]]
            typed = [_typed(broker, victim["session"]) for victim in victims[REVOKED:]]
            if caller.poll() is not None:
                raise Failed(f"the load ended: {processes.last_words(folder / 'load.log')}")
    return {
        "p50_ms": load.percentile(took, 0.5) * 1000,
        "p99_ms": load.percentile(took, 0.99) * 1000,
        "typed_p50_ms": load.percentile(typed, 0.5) * 1000,
        "typed_p99_ms": load.percentile(typed, 0.99) * 1000,
    }


def _revoked(control: ControlClient, session: str) -> float:
    begun = time.perf_counter()
    control.revoke(session, reason="measured")
    return time.perf_counter() - begun


def _typed(broker: brokered.Broker, session: str) -> float:
    environment = processes.environment() | {
        "HALTLINE_URL": broker.control_url,
        "HALTLINE_OPERATOR_TOKEN": broker.person,
    }
    command = [sys.executable, "-m", "haltline", "revoke", session, "--reason", "measured"]
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=broker.folder, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begun
    if done.returncode != 0:
        raise Failed(f"haltline revoke: {done.returncode}\n{done.stdout}{done.stderr}")
    return took


async def _calling(port: int, tokens: list[str]) -> None:
    sessions = [
        load.Session("127.0.0.1", port, era="handshake", tool=brokered.TOOLS["http"], token=token, name=f"l{number}")
        for number, token in enumerate(tokens)
    ]
    for session in sessions:
        await session.open()
    await load.run(sessions, 0.5)
    print("calling", flush=True)
    await load.run(sessions, FOR_EVER_S)


def main() -> int:
    if sys.argv[1:2] == ["--load"]:
        uvloop.run(_calling(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))))
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-") as folder:
            found = measured(Path(folder))
    except (Failed, load.Wrong, OSError) as failed:
        print(f"No figures: {failed}", file=sys.stderr)
        return 1
    print(
        f"revoke under {CALLING} calling sessions: p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms "
        f"(goal {GOAL_MS:g}); typed p50 {found['typed_p50_ms']:.0f} ms, p99 {found['typed_p99_ms']:.0f} ms "
        f"(goal {GOAL_TYPED_MS:g})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
