"""What an upstream tells beside the answers to calls: that a list changed, or a resource that somebody subscribed to.

Names the messages and says how they are handed over; whom they reach is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from haltline.upstreams.isolation import introduction, key_of
from haltline.upstreams.model import Caller, Isolation, Peer

__all__ = [
    "ACKNOWLEDGED",
    "CHANGES",
    "NOT_HONOURED",
    "SUBSCRIBE",
    "SUBSCRIBING",
    "TOO_MANY",
    "UNSUBSCRIBE",
    "UPDATED",
    "Line",
    "Telling",
    "Told",
    "admitted_before",
    "fail",
    "honours",
    "line_of",
    "settle",
    "unheard",
    "updated",
]

Line = tuple[str, str, str]
"""Over whose connection something was told: an isolation key, and what the client said of itself (`isolation`)."""
Told = Callable[[Line, dict[str, Any]], bool]
"""Takes one message; whether somebody heard it."""
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"
CHANGES = frozenset({UPDATED, "notifications/prompts/list_changed", "notifications/resources/list_changed"})
SUBSCRIBE = "resources/subscribe"
UNSUBSCRIBE = "resources/unsubscribe"
SUBSCRIBING = frozenset({SUBSCRIBE, UNSUBSCRIBE})
TOO_MANY: dict[str, Any] = {"error": {"code": -32603, "message": "too many subscriptions of this agent"}}
NOT_HONOURED: dict[str, Any] = {"error": {"code": -32602, "message": "this resource cannot be subscribed to"}}


@runtime_checkable
class Telling(Protocol):
    """An upstream whose prompts and resources may change. `call` takes `resources/subscribe` whatever era it speaks."""

    def on_told(self, told: Told) -> None:
        """One listener. Called on the event loop; it may not block."""

    def line_of(self, caller: Caller, peer: Peer) -> Line:
        """On which line this caller's subscriptions are told."""

    def quiet(self, line: Line, uri: str) -> None:
        """Nobody wants to hear of this resource on this line any more. Never fails, opens nothing."""


def line_of(isolation: Isolation, caller: Caller, peer: Peer) -> Line:
    return (*key_of(isolation, caller), introduction(peer))


def unheard(line: Line, message: dict[str, Any]) -> bool:
    """There is no listener."""
    del line, message
    return False


def updated(uri: str) -> dict[str, Any]:
    """For what may have been missed: whoever is told reads again."""
    return {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}}


def honours(acknowledged: Mapping[str, Any], uri: str) -> bool:
    """Whether the acknowledgement of a subscription stream names this resource."""
    params = acknowledged.get("params")
    granted = params.get("notifications") if isinstance(params, dict) else None
    uris = granted.get("resourceSubscriptions") if isinstance(granted, dict) else None
    return isinstance(uris, list) and uri in uris


def settle(said: asyncio.Future[dict[str, Any]], answer: dict[str, Any]) -> None:
    """What whoever subscribed is answered; only the first counts."""
    if not said.done():
        said.set_result(answer)


def fail(said: asyncio.Future[dict[str, Any]], error: Exception) -> None:
    if not said.done():
        said.set_exception(error)
        said.exception()  # whoever subscribed may have been cancelled in the same moment


def admitted_before() -> None:
    """In place of the last check before a byte leaves: what is subscribed to again was admitted when it first was."""
