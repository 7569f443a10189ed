"""Subscribing to a resource as a request for the broker: what a client asked for itself, and what is asked on its behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.gateway.brokered import Brokered
from haltline.upstreams.telling import SUBSCRIBE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from haltline.calls.running import Running
    from haltline.upstreams.catalog import Tool
    from haltline.upstreams.model import Peer
    from haltline.wire.exchange import Exchange
    from haltline.wire.messages import Answer

__all__ = ["Noted", "Subscribing"]


class Noted(Brokered):
    """A client's own, in the handshake era; `noted` looks at its answer before its client has it."""

    def __init__(
        self,
        exchange: Exchange,
        uri: str,
        target: Tool | None,
        noted: Callable[[Brokered, Exchange, Answer], Awaitable[Answer]],
    ) -> None:
        super().__init__(exchange, uri if target is None else target.name, target, {"uri": uri})
        self._of = exchange
        self._noted = noted

    async def respond(self, answer: Answer) -> None:
        await super().respond(await self._noted(self, self._of, answer))


class Subscribing:
    """Implements `calls.call.CallRequest`: one resource on somebody's behalf. `noted` takes the upstream's answer."""

    def __init__(
        self,
        uri: str,
        target: Tool | None,
        peer: Peer,
        *,
        token: str | None,
        session_key: str,
        source: str,
        attached: Callable[[Running], None] = lambda _: None,
    ) -> None:
        self.method = SUBSCRIBE
        self.token = token
        self.session_key = session_key
        self.source = source
        self.tool = uri if target is None else target.name
        self.target = target
        self.arguments: Mapping[str, Any] = {"uri": uri}
        self.params: Mapping[str, Any] = {"uri": uri}
        self.peer = peer
        self.running: Running | None = None
        self.noted: Callable[[Answer], None] | None = None
        self._attached = attached

    def attach(self, running: Running) -> None:
        self.running = running
        self._attached(running)

    def notify(self, message: dict[str, Any]) -> None:
        """Nothing but changes is told of a subscription."""

    async def drain(self) -> None:
        """There is nothing before the answer."""

    async def respond(self, answer: Answer) -> None:
        if self.noted is not None:
            self.noted(answer)
