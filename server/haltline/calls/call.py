"""One call in the broker's words: as a face hands it over, and once it is admitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.calls.replays import Keyed
    from haltline.calls.running import Running
    from haltline.policy.model import Allow, Principal
    from haltline.upstreams.catalog import Tool
    from haltline.upstreams.model import Peer

__all__ = ["Admitted", "CallRequest", "NoSuchTool"]


class CallRequest(Protocol):
    """One request as a face hands it over: `tools/call`, or what else goes to an upstream."""

    method: str
    peer: Peer
    target: Tool | None
    """Where it goes; None: no upstream has it (now)."""
    token: str | None
    session_key: str
    source: str
    params: Mapping[str, Any]
    """The raw object that travels on, under the upstream's own name of it."""

    tool: str
    """The name that agents, policy and records know it by."""
    arguments: Mapping[str, Any]

    def attach(self, running: Running) -> None:
        """Let the caller cancel it, and withhold its notifications once it is stopped."""

    def notify(self, message: dict[str, Any]) -> None: ...
    async def drain(self) -> None:
        """Wait until the notifications so far are written."""

    async def respond(self, answer: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class NoSuchTool:
    """A name that no upstream has: the one refusal that is a protocol error (R22)."""

    tool: str


@dataclass(slots=True)
class Admitted:
    """A call that may go out: its hold and its event are committed."""

    who: Principal
    tool: Tool
    allow: Allow
    policy_version: str
    admitted_us: int
    doubt_charges_after_s: float
    params: Mapping[str, Any]
    """What leaves: the request's own, but for the state of a round. Empty once it is on its way."""
    keyed: Keyed | None = None
    """The idempotency key that it came with."""
    kept: bool = False
    """It goes on at its upstream, where it waits (`calls.kept`): nothing is sent anew."""
