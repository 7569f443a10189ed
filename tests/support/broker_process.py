"""`haltline serve` as a real process in a folder of its own: started, killed, stopped and started again.

Black box: it is reached through its listeners, its commands and the files it leaves. Ports are the system's choice, the
first operator's credential is in a file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes
from haltline_client import ControlClient

__all__ = ["BrokerProcess", "Opened", "Ran", "broker_process"]

READY_S = 30.0
STOP_S = 40.0
LOOK_EVERY_S = 0.005


@dataclass(frozen=True, slots=True)
class Opened:
    """A session and its credential."""

    agent: str
    session: str
    token: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A `haltline` command that ended. `took_ms`: from being started to having ended."""

    code: int
    out: str
    err: str
    took_ms: float


class BrokerProcess:
    """`upstreams` as in haltline.yaml, `policy` the text of the one policy file, `more` further lines of haltline.yaml.

    `program`: another build of the broker, as arguments of the interpreter.
    `agents`: further keys of the agents' listener.
    `wrap` is put before the command (a mount namespace, limits). `data` lies in `folder` unless it is named.
    """

    def __init__(
        self,
        folder: Path,
        *,
        upstreams: Mapping[str, Mapping[str, Any]],
        policy: str,
        agents: Mapping[str, Any] | None = None,
        more: Sequence[str] = (),
        wrap: Sequence[str] = (),
        program: Sequence[str] = ("-m", "haltline"),
        data: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.log = folder / "broker.log"
        self.token_file = folder / "person.token"
        self.process: subprocess.Popen[bytes] | None = None
        self.agents_port = 0
        self.control_url = ""
        self._wrap = list(wrap)
        self._program = list(program)
        self._private = bool(wrap)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policies").mkdir()
        (folder / "policies" / "policy.yaml").write_text(policy, encoding="utf-8")
        lines = [
            'version: "1"',
            f"data: {self.data}",
            "policies: policies",
            f"agents: {json.dumps({'listen': '127.0.0.1:0', **(agents or {})})}",
            'control: {listen: "127.0.0.1:0"}',
            f"upstreams: {json.dumps(upstreams)}",
            *more,
        ]
        (folder / "haltline.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def data_seen(self) -> Path:
        """The data folder as this process can reach it, also when the broker has mounts of its own."""
        return Path(f"/proc/{self.pid}/root{self.data}") if self._private else self.data

    @property
    def database(self) -> Path:
        return self.data_seen / "haltline.db"

    # its life

    def start(self) -> float:
        """Start it; returns the seconds until `/readyz` said yes, or that everything is halted, which outlives a restart.

        Raises Failed with its last words.
        """
        if not self._private:
            (self.data / "endpoints.json").unlink(missing_ok=True)  # of one that was killed
        command = [sys.executable, *self._program, "serve", "--config", "haltline.yaml"]
        command += ["--operator-token-file", str(self.token_file), "--log-level", "warning"]
        begun = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._wrap, *command],
                cwd=self.folder,
                env=processes.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_ready(begun + READY_S)
        return time.perf_counter() - begun

    def _await_ready(self, by: float) -> None:
        assert self.process is not None
        while time.perf_counter() < by and self.process.poll() is None:
            with suppress(OSError, ValueError, KeyError):
                where = json.loads((self.data_seen / "endpoints.json").read_text(encoding="utf-8"))
                self.agents_port = int(where["agents"].rsplit(":", 1)[1].split("/")[0])
                self.control_url = where["control"]
                if self.ready() or "everything is halted" in self.readiness()[1]:
                    return
            time.sleep(LOOK_EVERY_S)
        self.kill()
        raise processes.Failed(f"the broker did not get ready:\n{processes.last_words(self.log)}")

    def ready(self) -> bool:
        return self.readiness()[0] == 200

    def readiness(self) -> tuple[int, str]:
        """What `/readyz` answers; 0 where nobody does."""
        try:
            with urllib.request.urlopen(f"{self.control_url}/readyz", timeout=5) as reply:
                return reply.status, reply.read().decode().strip()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode().strip()
        except OSError:
            return 0, ""

    def kill(self) -> None:
        """kill -9, whatever it is doing."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self) -> None:
        assert self.process is not None
        self.process.terminate()

    def ended(self, within_s: float = STOP_S) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise processes.Failed(f"the broker did not end:\n{processes.last_words(self.log)}") from None

    def stop(self) -> int:
        self.terminate()
        return self.ended()

    # who speaks to it

    @property
    def token(self) -> str:
        """The first operator's, a person's."""
        return self.token_file.read_text(encoding="ascii").strip()

    def control(self) -> ControlClient:
        return ControlClient(self.control_url, self.token, timeout_s=30)

    def await_tools(self, *names: str) -> None:
        """Until these are on offer."""
        by = time.monotonic() + READY_S
        with self.control() as control:
            while not set(names) <= {tool["tool"] for tool in control.list_tools()["tools"]}:
                if time.monotonic() > by:
                    raise processes.Failed(f"{names} are not on offer: {control.list_tools()}")
                time.sleep(LOOK_EVERY_S)

    def open(self, agents: Sequence[str], tier: str, *, each: int = 1, **more: Any) -> list[Opened]:
        """So many sessions of each of these agents, which are added."""
        with self.control() as control:
            for agent in agents:
                control.add_agent(agent, tier)
            opened = [(agent, control.open_session(agent, "a task", **more)) for agent in agents for _ in range(each)]
        return [Opened(agent, one["session"], one["token"]) for agent, one in opened]

    def haltline(self, *arguments: str, token: str | None = None) -> Ran:
        """A command of the command line, as a person types it in another terminal."""
        told = {"HALTLINE_URL": self.control_url, "HALTLINE_OPERATOR_TOKEN": token or self.token}
        command = [sys.executable, "-m", "haltline", *arguments]
        begun = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**processes.environment(), **told},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr, (time.perf_counter() - begun) * 1000)

    def verify(self) -> Ran:
        return self.haltline("audit", "verify", "--data", str(self.data))


@contextmanager
def broker_process(folder: Path, **settings: Any) -> Iterator[BrokerProcess]:
    """A ready broker while the block runs; whatever is left of it afterwards is killed."""
    broker = BrokerProcess(folder, **settings)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
