"""Policies from text, and the principals and calls that tests ask them about."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from haltline.policy.model import Principal, ToolCall
from haltline.policy.policy import Policy, load_policy

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AGENT", "NOON_US", "call", "policy_from", "who", "write_files"]

NOON_US = 1_764_072_000_000_000
"""2025-11-25 12:00 UTC, a Tuesday."""
AGENT = Principal(agent_id="agt_1", agent="bot", tier="t", session_id="ses_1", task="a task")


def write_files(folder: Path, **files: str) -> Path:
    """Each text as `<name>.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(dedent(text), encoding="utf-8")
    return folder


def policy_from(folder: Path, text: str, **defaults: Any) -> Policy:
    return load_policy(write_files(folder, policy=text), defaults)


def who(**changes: Any) -> Principal:
    return replace(AGENT, **changes)


def call(tool: str = "pay__charge", arguments: dict[str, Any] | None = None, schema: Any = None) -> ToolCall:
    return ToolCall(tool, tool.partition("__")[0], arguments or {}, schema)
