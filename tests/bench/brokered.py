"""A broker to be measured: `haltline serve` as it ships, in a folder of its own, in front of the benchmark's upstream.

Its policies are the shipped ones with caps too high to be reached and a price for the benchmark's tool; each MCP session
gets its own credential over the control listener. Afterwards its books are laid beside the load client's.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import processes
from processes import BENCH, CHECKOUT, Failed
from ruamel.yaml import YAML

from haltline_client import ControlClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["AGENTS", "PRICE_MICROS", "TIERS", "TOOLS", "Broker", "prepare", "serving", "started", "verified", "verify"]

PRICE_MICROS = 1
PRICE = "0.000001"
"""So little that half an hour of calls, as fast as they go, crosses no line of the shipped rules."""
OUT_OF_REACH = "1000000.00"
AGENTS = 8
TIERS = ("experimental", "staging", "production")
TOOLS = {"http": "http__echo", "stdio": "stdio__echo"}
START_S = 120.0
LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker and how long it took from being started to being ready."""

    folder: Path
    agents_port: int
    control_url: str
    pid: int
    ready_s: float
    process: subprocess.Popen[str]

    @property
    def database(self) -> Path:
        return self.folder / "data" / "haltline.db"

    @property
    def person(self) -> str:
        """The credential of the person who set it up."""
        return (self.folder / "person.token").read_text(encoding="ascii").strip()

    def open_sessions(self, count: int) -> list[str]:
        """Credentials of so many sessions, spread over the agents of all tiers."""
        with ControlClient(self.control_url, self.person) as control:
            known = {agent["agent"] for agent in control.list_agents()["agents"]}
            for number in (number for number in range(AGENTS) if f"bench-{number}" not in known):
                control.add_agent(f"bench-{number}", TIERS[number % len(TIERS)])
            return [
                control.open_session(f"bench-{number % AGENTS}", f"benchmark {number}")["token"]
                for number in range(count)
            ]

    def await_tools(self, names: list[str]) -> None:
        """Until the upstreams' tools are on offer."""
        by = time.monotonic() + START_S
        with ControlClient(self.control_url, self.person) as control:
            while not set(names) <= {tool["tool"] for tool in control.list_tools()["tools"]}:
                if time.monotonic() > by:
                    raise Failed(f"the broker does not offer {', '.join(names)}: {control.list_tools()}")
                time.sleep(LOOK_EVERY_S)


@contextmanager
def serving(
    folder: Path, upstream_url: str, *, stdio: bool, launcher: Sequence[str] = ("-m", "haltline")
) -> Iterator[Broker]:
    """A broker in a folder of its own while the block runs; at the end it is told to stop and must have stopped in order."""
    upstreams: dict[str, Any] = {"http": {"url": upstream_url, "max_concurrent": 64}}
    if stdio:
        script = {"command": sys.executable, "args": [str(BENCH / "upstream.py"), "--stdio"]}
        upstreams["stdio"] = {**script, "isolation": "shared", "max_concurrent": 64}
    prepare(folder, upstreams, list(TOOLS.values()))
    with started(folder, launcher) as broker:
        yield broker


@contextmanager
def started(folder: Path, launcher: Sequence[str] = ("-m", "haltline")) -> Iterator[Broker]:
    """A broker of a prepared folder, for the first time or again. `launcher`: how Python is told to run `haltline`."""
    command = [sys.executable, *launcher, "serve", "--config", "haltline.yaml", "--operator-token-file"]
    begun = time.perf_counter()
    with processes.running([*command, "person.token"], folder=folder, log=folder / "broker.log") as process:
        where = _ready(folder, process)
        ready_s = time.perf_counter() - begun
        port = int(where["agents"].rsplit(":", 1)[1].split("/")[0])
        yield Broker(folder, port, where["control"], process.pid, ready_s, process)
        code = processes.end(process)
    if code != 0:
        raise Failed(f"the broker ended with {code}:\n{processes.last_words(folder / 'broker.log')}")


def prepare(folder: Path, upstreams: Mapping[str, Any], priced: Sequence[str]) -> None:
    """Its configuration and policies. `priced`: names of tools, or patterns."""
    folder.mkdir()
    lines = [
        'version: "1"',
        "data: data",
        "policies: policies",
        'agents: {listen: "127.0.0.1:0"}',
        'control: {listen: "127.0.0.1:0"}',
        f"upstreams: {json.dumps(upstreams)}",
    ]
    (folder / "haltline.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")
    shutil.copytree(CHECKOUT / "policies", folder / "policies")
    _raise_caps(folder / "policies")
    tools = {name: {"price": PRICE} for name in priced}
    with (folder / "policies" / "bench.yaml").open("w", encoding="utf-8") as file:
        file.write(f'version: "1"\ntools: {json.dumps(tools)}\n')


def _raise_caps(policies: Path) -> None:
    """Every cap stays, so that a decision does the same work, but none is reached."""
    yaml = YAML()
    yaml.preserve_quotes = True
    path = policies / "tiers.yaml"
    content = yaml.load(path)
    for tier in content["tiers"].values():
        for kind in tier.get("caps", {}):
            if kind in {"per_call", "task", "hour", "day"}:
                tier["caps"][kind] = OUT_OF_REACH
            elif kind != "rate":
                tier["caps"][kind] = 1_000_000_000
            else:
                raise Failed("the shipped tiers cap the rate: say here how that is raised")
    yaml.dump(content, path)


def _ready(folder: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    endpoints = folder / "data" / "endpoints.json"
    by = time.monotonic() + START_S
    while time.monotonic() < by and process.poll() is None:
        if endpoints.exists():
            where: dict[str, str] = json.loads(endpoints.read_text(encoding="utf-8"))
            if _answers(where["control"] + "/readyz"):
                return where
        time.sleep(LOOK_EVERY_S)
    raise Failed(f"the broker did not get ready:\n{processes.last_words(folder / 'broker.log')}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def verify(folder: Path, calls: int) -> str:
    """What the books of a stopped broker say about `calls` calls; raises Failed where they do not agree."""
    found = _books(next((folder / "data").glob("*.db")))
    expected = {
        "call.allowed": calls,
        "call.succeeded": calls,
        "other call.*": 0,
        "holds settled": calls,
        "holds otherwise": 0,
        "charged micros": calls * PRICE_MICROS,
    }
    wrong = [f"{key}: {found[key]}, expected {value}" for key, value in expected.items() if found[key] != value]
    if wrong:
        raise Failed("the books do not agree with the calls that were answered: " + "; ".join(wrong))
    return verified(folder)


def verified(folder: Path) -> str:
    """What `haltline audit verify` says of a stopped broker's log; raises Failed where it does not hold."""
    command = [sys.executable, "-m", "haltline", "audit", "verify", "--data", str(folder / "data")]
    told = subprocess.run(command, env=processes.environment(), cwd=folder, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise Failed(f"haltline audit verify: {told.returncode}\n{told.stdout}{told.stderr}")
    return told.stdout.strip().splitlines()[0] if told.stdout.strip() else "ok"


def _books(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
        kinds = dict(store.execute("SELECT kind, count(*) FROM events WHERE kind LIKE 'call.%' GROUP BY kind"))
        states = dict(store.execute("SELECT state, count(*) FROM holds GROUP BY state"))
        charged = store.execute("SELECT coalesce(sum(charged_micros), 0) FROM holds").fetchone()[0]
    ours = {kind: kinds.pop(kind, 0) for kind in ("call.allowed", "call.succeeded")}
    settled = states.pop("settled", 0)
    return {
        **ours,
        "other call.*": sum(kinds.values()),
        "holds settled": settled,
        "holds otherwise": sum(states.values()),
        "charged micros": charged,
    }
