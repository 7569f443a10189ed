"""Agents, sessions and operators as their rows say: frozen values, the columns in their order, the JSON in them parsed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import orjson

from haltline.policy.caps import caps_from_json
from haltline.policy.hours import hours_from_json
from haltline.policy.model import Caps, Hours

if TYPE_CHECKING:
    import sqlite3

__all__ = ["AGENT", "SESSION", "AgentRow", "OperatorRow", "SessionRow", "agent_of", "json_of", "session_of"]


@dataclass(frozen=True, slots=True)
class AgentRow:
    id: str
    handle: str
    tier: str
    owner: str
    scopes: tuple[str, ...]
    hours: Hours | None
    caps: Caps
    state: Literal["active", "revoked"]
    created_us: int


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: str
    agent_id: str
    task: str
    tools: tuple[str, ...] | None
    caps: Caps
    state: Literal["open", "revoked"]
    opened_by: str
    opened_us: int
    expires_us: int
    ended_us: int | None
    parent_id: str | None = None
    """The session that opened it for a sub-agent (R20)."""

    def life(self, now_us: int) -> Literal["open", "revoked", "expired"]:
        """Expiry is read from the clock, never written, so that a stopped broker changes nothing."""
        if self.state == "revoked":
            return "revoked"
        return "open" if now_us < self.expires_us else "expired"


@dataclass(frozen=True, slots=True)
class OperatorRow:
    name: str
    cls: Literal["person", "local"]
    state: Literal["active", "revoked"]
    created_us: int


AGENT = "SELECT id, handle, tier, owner, scopes, hours, caps, state, created_us FROM agents"
SESSION = (
    "SELECT id, agent_id, task, tools, caps, state, opened_by, opened_us, expires_us, ended_us, parent_id FROM sessions"
)


def json_of(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=4096)
def _caps(text: str) -> Caps:
    return caps_from_json(orjson.loads(text))


@lru_cache(maxsize=4096)
def _hours(text: str) -> Hours:
    return hours_from_json(orjson.loads(text))


@lru_cache(maxsize=4096)
def _names(text: str) -> tuple[str, ...]:
    return tuple(orjson.loads(text))


def agent_of(row: sqlite3.Row | tuple[Any, ...]) -> AgentRow:
    identifier, handle, tier, owner, scopes, hours, caps, state, created_us = row
    return AgentRow(
        identifier,
        handle,
        tier,
        owner,
        _names(scopes),
        None if hours is None else _hours(hours),
        _caps(caps),
        state,
        created_us,
    )


def session_of(row: sqlite3.Row | tuple[Any, ...]) -> SessionRow:
    identifier, agent_id, task, tools, caps, *rest = row
    return SessionRow(identifier, agent_id, task, None if tools is None else _names(tools), _caps(caps), *rest)
