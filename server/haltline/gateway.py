"""The agents' face: what an LLM client sees of Haltline over MCP. Receives calls for `Broker.call` and lists tools.

Raw messages from edge to edge; only names gain a prefix, and `resultType` follows the caller's era. Decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map

from haltline.calls.admission import Dead
from haltline.calls.call import NoSuchTool
from haltline.identity import Unknown
from haltline.wire import messages
from haltline.wire.messages import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.broker import Broker
    from haltline.calls.admission import Doorman
    from haltline.calls.attempts import Attempts
    from haltline.calls.running import Running
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.wire.endpoint import Exchange
    from haltline.wire.messages import Answer

__all__ = ["Gateway"]

INSTRUCTIONS = (
    "These tools are brokered by Haltline: each call is attributed to your session, priced and recorded. A result that "
    "starts with 'Denied' or 'Halted' is a decision, not a fault: read it, do not retry unless it says that you may, "
    "and finish without that tool or tell the person you work for."
)
_LISTS_CACHED = 1_000


class _Request:
    """A `tools/call` exchange as the broker reads it."""

    def __init__(self, exchange: Exchange, tool: str, arguments: Mapping[str, Any]) -> None:
        self._exchange = exchange
        self.token = exchange.token
        self.session_key = exchange.session_key
        self.source = exchange.source
        self.params: Mapping[str, Any] = exchange.params
        self.tool = tool
        self.arguments = arguments

    def attach(self, running: Running) -> None:
        self._exchange.on_cancel = running.cancel
        self._exchange.reply.muted = lambda: running.stopped is not None

    def notify(self, message: dict[str, Any]) -> None:
        self._exchange.notify(message)

    async def drain(self) -> None:
        await self._exchange.reply.drain()

    async def respond(self, answer: Answer) -> None:
        await self._exchange.reply.answer(for_era(answer, modern=self._exchange.modern))


class Gateway:
    """Implements `wire.endpoint.Face` for agents."""

    name = "haltline"
    instructions = INSTRUCTIONS

    def __init__(self, parts: Parts, broker: Broker, doorman: Doorman, attempts: Attempts, version: str) -> None:
        self.version = version
        self._parts = parts
        self._broker = broker
        self._doorman = doorman
        self._attempts = attempts
        self._lists: OrderedDict[tuple[Any, ...], list[dict[str, Any]]] = OrderedDict()

    @property
    def capabilities(self) -> dict[str, Any]:
        return {"tools": {}}

    async def admit(self, token: str | None, source: str) -> Unauthorized | None:
        who = await self._who(token, "")
        return self._turned_away(who, source) if isinstance(who, Unknown) else None

    async def handle(self, exchange: Exchange) -> Answer | Unauthorized | None:
        if exchange.method == "tools/call":
            return await self._call(exchange)
        if exchange.method == "tools/list":
            return await self._list(exchange)
        return await self.admit(exchange.token, exchange.source)

    def input_schema(self, tool: str) -> Any:
        found = self._parts.catalog.tool(tool)
        schema = None if found is None else found.input_schema
        if schema is None or find_invalid_x_mcp_header(schema) is not None or not x_mcp_header_map(schema):
            return None
        return schema

    # tools/call

    async def _call(self, exchange: Exchange) -> Answer | Unauthorized | None:
        tool, arguments = exchange.params.get("name"), exchange.params.get("arguments")
        if not isinstance(tool, str) or not (arguments is None or isinstance(arguments, dict)):
            denied = await self.admit(exchange.token, exchange.source)
            text = '"name" must be a string and "arguments" an object'
            return denied or messages.error(messages.INVALID_PARAMS, text)
        answer = await self._broker.call(_Request(exchange, tool, arguments or {}))
        if isinstance(answer, Unknown):
            return self._turned_away(answer, exchange.source)
        if isinstance(answer, NoSuchTool):
            return messages.error(messages.INVALID_PARAMS, f"Unknown tool: {tool[:80]}")
        return None if answer is None else for_era(answer, modern=exchange.modern)

    # tools/list

    async def _list(self, exchange: Exchange) -> Answer | Unauthorized:
        who = await self._who(exchange.token, exchange.session_key)
        if isinstance(who, Unknown):
            return self._turned_away(who, exchange.source)
        if exchange.params.get("cursor") is not None:
            return messages.error(messages.INVALID_PARAMS, "this list has one page, so no cursor leads on")
        policy = self._parts.policies.current
        tools = [] if isinstance(who, Dead) or policy is None else self._granted(who, policy)
        result: dict[str, Any] = {"tools": tools}
        if exchange.modern:
            result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        return messages.result(result)

    def _granted(self, who: Principal, policy: Policy) -> list[dict[str, Any]]:
        """The definitions that this grant may call; a list is made once for each grant, policy and catalogue."""
        tools = self._parts.catalog.tools()
        key = (who.tier, who.scopes, who.tools, policy.version, id(tools))
        found = self._lists.get(key)
        if found is None:
            found = [dict(tool.definition) for tool in tools if policy.grants(who, tool.name, tool.upstream)]
            self._lists[key] = found
            if len(self._lists) > _LISTS_CACHED:
                self._lists.popitem(last=False)
        return found

    def forget_lists(self) -> None:
        """The catalogue changed."""
        self._lists.clear()

    # who

    async def _who(self, token: str | None, session_key: str) -> Principal | Dead | Unknown:
        policy = self._parts.policies.current
        return await self._parts.writer.run(
            lambda tx: self._doorman.principal(tx, token, session_key, policy, open_session=False)
        )

    def _turned_away(self, unknown: Unknown, source: str) -> Unauthorized:
        self._attempts.note("agents", source, unknown.code)
        return Unauthorized(unknown.code, unknown.text)


def for_era(answer: Answer, *, modern: bool) -> Answer:
    """`resultType` belongs to 2026-07-28: there it is required, before it unknown."""
    result = answer.get("result")
    if not isinstance(result, dict) or ("resultType" in result) == modern:
        return answer
    if modern:
        return {"result": {"resultType": "complete", **result}}
    return {"result": {key: value for key, value in result.items() if key != "resultType"}}
