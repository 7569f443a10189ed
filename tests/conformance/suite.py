"""The official conformance suite as a program: run against one address, and what it said of each scenario.

Knows where `.ci/conformance` puts things. Which scenarios a revision requires is the suite's to say.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REVISIONS", "Scenario", "missing", "node_of", "run_suite", "server_folder"]

REVISIONS = ("2026-07-28", "2025-11-25")
NODE_NEEDED = 22
SUITE_TIMEOUT_S = 600.0
SCENARIO_TIMEOUT_MS = 10_000
_SUMMARY = re.compile(r"^([✓✗]) ([a-z0-9-]+): (\d+) passed, (\d+) failed", re.MULTILINE)
_UNSCORED = re.compile(r"^  [✓✗] ([a-z0-9-]+) \(([a-z-]+)\)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`unscored`: why the revision does not require it; empty if it does."""

    name: str
    passed: bool
    checks: int
    failed: int
    unscored: str
    complaints: tuple[str, ...]
    asked: tuple[str, ...]
    """Its checks by name."""


def node_of(tools: Path) -> str | None:
    """A node that is new enough: the system's, or the one that came from npm."""
    for command in (shutil.which("node"), str(tools / "conformance" / "node_modules" / ".bin" / "node")):
        if command is not None and Path(command).exists():
            said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
            if (found := re.match(r"v(\d+)", said)) and int(found[1]) >= NODE_NEEDED:
                return command
    return None


def _program(tools: Path) -> Path:
    return tools / "conformance" / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"


def server_folder(tools: Path) -> Path:
    return tools / "everything-server"


def missing(tools: Path) -> str | None:
    """Why it cannot be run here."""
    if node_of(tools) is None:
        return f"there is no node {NODE_NEEDED} or newer, and npm gave none"
    if not _program(tools).exists():
        return "@modelcontextprotocol/conformance could not be had from npm"
    if not (server_folder(tools) / "mcp_everything_server").is_dir():
        return "the source distribution of mcp with its everything-server could not be had"
    return None


def run_suite(tools: Path, port: int, revision: str) -> list[Scenario]:
    """Every scenario of a revision, in the suite's order. Raises RuntimeError if it ran none."""
    node = node_of(tools)
    assert node is not None
    with tempfile.TemporaryDirectory() as scratch:
        command = [node, str(_program(tools)), "server", "--url", f"http://127.0.0.1:{port}/mcp"]
        command += ["--requirements", revision, "-o", scratch, "--timeout", str(SCENARIO_TIMEOUT_MS)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=SUITE_TIMEOUT_S
        )
        summary = done.stdout.partition("=== SUMMARY ===")[2]
        unscored = dict(_UNSCORED.findall(summary))
        found = [
            Scenario(
                name,
                mark == "✓",
                int(passed) + int(failed),
                int(failed),
                unscored.get(name, ""),
                *_checks(Path(scratch), name),
            )
            for mark, name, passed, failed in _SUMMARY.findall(summary)
        ]
    if not found:
        raise RuntimeError(f"the suite ran no scenario:\n{(done.stdout + done.stderr)[-2000:]}")
    return found


def _checks(scratch: Path, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The message of each check that failed, and the name of each that was made."""
    for folder in scratch.iterdir():
        if re.fullmatch(rf"server-{re.escape(name)}-\d{{4}}-.*", folder.name):
            checks = json.loads((folder / "checks.json").read_text(encoding="utf-8"))
            complaints = tuple(
                f"{check['name']}: {' '.join(str(check.get('errorMessage', '')).split())[:400]}"
                for check in checks
                if check["status"] == "FAILURE"
            )
            return complaints, tuple(str(check["name"]) for check in checks if check["status"] == "SUCCESS")
    return (), ()
