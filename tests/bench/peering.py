"""Others' proxies and gateways to compare with, each from its registry in an environment of its own under a cache folder.

What cannot be installed or does not start is named as missing, with why; it stops no benchmark. Versions are fixed here.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import load
import processes
import uvloop
from processes import BENCH, Failed
from rounds import HOST, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AUTHMCP", "FASTMCP", "PY_PROXY", "TS_PROXY", "Peers", "install", "none", "started"]

FASTMCP = "FastMCP proxy"
AUTHMCP = "authmcp-gateway"
PY_PROXY = "Py mcp-proxy, stdio"
TS_PROXY = "TypeScript mcp-proxy, stdio"
PACKAGES = {
    FASTMCP: ("fastmcp==4.2.3", "uvloop", "httptools"),
    AUTHMCP: ("authmcp-gateway==1.2.74", "uvloop", "httptools"),
    PY_PROXY: ("mcp-proxy==0.13.0", "uvloop", "httptools"),
    TS_PROXY: ("mcp-proxy@6.7.19",),
}
READY_S = 60.0
OVER_HTTP, OVER_STDIO = (64,), (16,)
"""At how many sessions each is measured."""
HANDSHAKE: tuple[load.Era, ...] = ("handshake",)


@dataclass(frozen=True, slots=True)
class Peers:
    """Those that run, and why the others do not."""

    targets: list[Target]
    missing: dict[str, str]
    answered: dict[str, int]
    """Calls that showed that they work."""


def none(why: str) -> Peers:
    return Peers([], dict.fromkeys(PACKAGES, why), {})


def install(cache: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Fetch what is not there yet. Returns why some are missing, by name."""
    missing = {}
    for name, packages in PACKAGES.items():
        folder = cache / packages[0].replace("==", "-").replace("@", "-npm-")
        if (folder / "installed").exists():
            continue
        say(f"fetching {packages[0]} into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        problem = _npm(folder, packages) if name == TS_PROXY else _pip(folder, packages)
        if problem is None:
            (folder / "installed").touch()
        else:
            missing[name] = problem
    return missing


def _pip(folder: Path, packages: Sequence[str]) -> str | None:
    venv.create(folder / "venv", with_pip=True)
    return _ran([_python(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], folder)


def _npm(folder: Path, packages: Sequence[str]) -> str | None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "there is no node with npm"
    quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1")
    return _ran(["npm", "install", "--prefix", str(folder), *quiet, *packages], folder)


def _ran(command: Sequence[str], folder: Path) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (folder / "install.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    return None if done.returncode == 0 else f"it cannot be installed, see {folder / 'install.log'}"


def _python(folder: Path) -> str:
    return str(folder / "venv" / "bin" / "python")


@contextmanager
def started(cache: Path, scratch: Path, url: str, say: Callable[[str], None]) -> Iterator[Peers]:
    """All that can be had, running before the upstream at `url`, or over its standard streams."""
    peers = Peers([], install(cache, say), {})
    with ExitStack() as stack:
        for name in PACKAGES:
            if name in peers.missing:
                continue
            try:
                target = stack.enter_context(_running(name, cache, scratch, url))
                peers.answered[name] = uvloop.run(_answers(target))
                peers.targets.append(target)
            except (Failed, load.Wrong, OSError) as error:
                peers.missing[name] = f"it does not serve the upstream: {str(error)[:300]}"
        yield peers


@contextmanager
def _running(name: str, cache: Path, scratch: Path, url: str) -> Iterator[Target]:
    folder = cache / PACKAGES[name][0].replace("==", "-").replace("@", "-npm-")
    work = scratch / name.split(maxsplit=1)[0].lower().replace("/", "-")
    work.mkdir()
    port = _free_port()
    log = work / "peer.log"
    with processes.running(_command(name, folder, url, port), folder=work, log=log) as process:
        by = time.monotonic() + READY_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > by:
                raise Failed(processes.last_words(log))
            time.sleep(0.05)
        stdio = name in {PY_PROXY, TS_PROXY}
        yield Target(
            name,
            port,
            process.pid,
            tokens=[(work / "token").read_text(encoding="ascii")] * max(OVER_HTTP) if name == AUTHMCP else None,
            eras=HANDSHAKE,
            counts=OVER_STDIO if stdio else OVER_HTTP,
        )


def _command(name: str, folder: Path, url: str, port: int) -> list[str]:
    upstream = [sys.executable, str(BENCH / "upstream.py"), "--stdio"]
    if name == FASTMCP:
        return [_python(folder), str(BENCH / "peers" / "fastmcp_proxy.py"), url, str(port)]
    if name == AUTHMCP:
        return [_python(folder), str(BENCH / "peers" / "authmcp.py"), url, str(port)]
    if name == PY_PROXY:
        script = str(folder / "venv" / "bin" / "mcp-proxy")
        return [
            script,
            "--host",
            HOST,
            "--port",
            str(port),
            "--log-level",
            "ERROR",
            "--pass-environment",
            "--",
            *upstream,
        ]
    script = str(folder / "node_modules" / ".bin" / "mcp-proxy")
    return [script, "--host", HOST, "--port", str(port), "--server", "stream", "--", *upstream]


async def _answers(target: Target) -> int:
    """A few calls, so that what does not work is missing before anything is measured; how many."""
    [session] = target.sessions("handshake", 1)
    await session.open()
    sample = await load.run([session], 0.0, warm_s=0.0)
    session.close()
    return sample.answered


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as bound:
        return int(bound.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
