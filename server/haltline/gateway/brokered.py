"""An exchange with an agent's client as the broker reads it: one request, where it goes, and how its client is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.upstreams.model import Peer
from haltline.wire.messages import http_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.calls.running import Running
    from haltline.upstreams.catalog import Tool
    from haltline.wire.exchange import Exchange
    from haltline.wire.messages import Answer

__all__ = ["Brokered", "for_era", "peer_of"]


class Brokered:
    """Implements `calls.call.CallRequest`. `tool` is the name that policy and records know it by."""

    def __init__(
        self, exchange: Exchange, tool: str, target: Tool | None, arguments: Mapping[str, Any], own: str | None = None
    ) -> None:
        """`own`: the parameter in which the upstream's own name of it travels."""
        self._exchange = exchange
        self.method = exchange.method
        self.token = exchange.token
        self.session_key = exchange.session_key
        self.source = exchange.source
        self.tool = tool
        self.target = target
        self.arguments = arguments
        self.peer = peer_of(exchange)
        self.running: Running | None = None
        named = own is not None and target is not None
        self.params: Mapping[str, Any] = (
            {**exchange.params, own: target.own_name}
            if named and target is not None and own is not None
            else exchange.params
        )

    def attach(self, running: Running) -> None:
        self.running = running
        self._exchange.on_cancel = running.cancel
        self._exchange.reply.muted = lambda: running.stopped is not None

    def notify(self, message: dict[str, Any]) -> None:
        if self.running is not None:
            self.running.outputs += 1
        self._exchange.notify(message)

    async def drain(self) -> None:
        await self._exchange.reply.drain()

    async def respond(self, answer: Answer) -> None:
        modern = self._exchange.modern
        await self._exchange.reply.answer(for_era(answer, modern=modern), http_status(answer) if modern else 200)


def peer_of(exchange: Exchange) -> Peer:
    """The agent's client as an upstream may know it. Only one of the handshake era can be asked in mid-call."""
    return Peer(
        capabilities=exchange.capabilities,
        info=exchange.client_info,
        log_level=exchange.log_level,
        ask=None if exchange.conversation is None else exchange.ask,
        handshake=not exchange.modern,
    )


def for_era(answer: Answer, *, modern: bool) -> Answer:
    """`resultType` belongs to 2026-07-28: there it is required, before it unknown."""
    result = answer.get("result")
    if not isinstance(result, dict) or ("resultType" in result) == modern:
        return answer
    if modern:
        return {"result": {"resultType": "complete", **result}}
    return {"result": {key: value for key, value in result.items() if key != "resultType"}}
