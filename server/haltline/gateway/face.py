"""The agents' face: what an LLM client sees of Haltline over MCP. Receives calls for `Broker.call` and lists tools.

Raw messages from edge to edge; only names gain a prefix, and `resultType` follows the caller's era. Decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from haltline.calls.admission import Dead
from haltline.calls.call import NoSuchTool
from haltline.calls.refusals import as_error
from haltline.gateway.brokered import Brokered, for_era, peer_of
from haltline.gateway.price_tags import tagged
from haltline.gateway.streams import Streams
from haltline.gateway.tasks import TASK_METHODS, TaskMaking, Tasks
from haltline.identity import Unknown
from haltline.policy.tiers import OPEN_SESSION
from haltline.quarantine import served
from haltline.upstreams.model import Caller
from haltline.upstreams.offers import LISTINGS, Offers
from haltline.wire import messages, strict_json
from haltline.wire.eras import LOG_LEVELS
from haltline.wire.headers import declares_headers
from haltline.wire.messages import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haltline.broker import Broker
    from haltline.calls.admission import Doorman
    from haltline.calls.attempts import Attempts
    from haltline.calls.running import Running
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.upstreams.catalog import Tool
    from haltline.wire.exchange import Exchange
    from haltline.wire.messages import Answer
    from haltline.wire.standing import NoStream, StandingRequest

__all__ = ["Gateway"]

INSTRUCTIONS = (
    "These tools are brokered by Haltline: each call is attributed to your session, priced and recorded. A result that "
    "starts with 'Denied' or 'Halted' is a decision, not a fault: read it, do not retry unless it says that you may, "
    "and finish without that tool or tell the person you work for."
)
_LISTS_CACHED = 1_000
_PRICINGS_CACHED = 50
_REFERENCES = {"ref/prompt": ("name", "prompt"), "ref/resource": ("uri", "resource")}
_HANDSHAKE_ONLY = frozenset(
    {"logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list", "tasks/result"}
)
_MODERN_ONLY = frozenset({"subscriptions/listen"})


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
        self._offers = Offers(parts.catalog)
        self._tasks = Tasks()
        self._streams = Streams(parts, broker, doorman, self._offers, self._turned_away)
        parts.catalog.on_unchanged(lambda: self._streams.lists_changed("tools"))
        self._mirrored: dict[str, bool] = {}
        """By digest: whether a tool's arguments travel in headers too."""
        self._lists: OrderedDict[tuple[Any, ...], list[dict[str, Any]]] = OrderedDict()
        self._prices: OrderedDict[tuple[Any, ...], list[tuple[str, dict[str, Any]]]] = OrderedDict()
        self._handlers: dict[str, Callable[[Exchange], Awaitable[Answer | Unauthorized | None]]] = {
            "tools/list": self._list,
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._use_resource,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._subscribe,
            "subscriptions/listen": self._streams.listen,
            "completion/complete": self._complete,
            **dict.fromkeys(TASK_METHODS, self._use_task),
            "tasks/list": self._list_tasks,
            "logging/setLevel": self._set_level,
            **dict.fromkeys(LISTINGS, self._list_offers),
        }

    @property
    def capabilities(self) -> dict[str, Any]:
        return {"tools": {"listChanged": True}, **self._offers.capabilities()}

    async def admit(self, token: str | None, source: str) -> Unauthorized | None:
        who = await self._who(token, "")
        return self._turned_away(who, source) if isinstance(who, Unknown) else None

    async def handle(self, exchange: Exchange) -> Answer | Unauthorized | None:
        handler = self._handlers.get(exchange.method)
        if handler is None or exchange.method in (_HANDSHAKE_ONLY if exchange.modern else _MODERN_ONLY):
            return await self.admit(exchange.token, exchange.source)
        conversation = exchange.conversation
        if conversation is not None and not conversation.recalled:
            await self._streams.subscriptions.recall(conversation, exchange.session_key)
        return await handler(exchange)

    async def stand(self, request: StandingRequest) -> Unauthorized | NoStream | None:
        if not request.conversation.recalled:
            await self._streams.subscriptions.recall(request.conversation, request.session_key)
        return await self._streams.stand(request)

    async def session_over(self, session_key: str) -> None:
        await self._streams.subscriptions.forget(session_key)

    def mirrored_schema(self, tool: str) -> Any:
        found = self._parts.catalog.tool(tool)
        if found is None or found.input_schema is None:
            return None
        declares = self._mirrored.get(found.digest)
        if declares is None:
            declares = self._mirrored[found.digest] = declares_headers(strict_json.dumps(found.input_schema))
        return found.input_schema if declares else None

    # requests that go to an upstream

    async def _call_tool(self, exchange: Exchange) -> Answer | Unauthorized | None:
        name, arguments = exchange.params.get("name"), exchange.params.get("arguments")
        if not isinstance(name, str) or not (arguments is None or isinstance(arguments, dict)):
            return await self._malformed(exchange, '"name" must be a string and "arguments" an object')
        target = self._parts.catalog.tool(name)
        return await self._broker_it(TaskMaking(self._tasks, exchange, name, target, arguments or {}), exchange, "tool")

    async def _get_prompt(self, exchange: Exchange) -> Answer | Unauthorized | None:
        name, arguments = exchange.params.get("name"), exchange.params.get("arguments")
        if not isinstance(name, str) or not (arguments is None or isinstance(arguments, dict)):
            return await self._malformed(exchange, '"name" must be a string and "arguments" an object')
        target = self._offers.prompt(name)
        return await self._broker_it(Brokered(exchange, name, target, arguments or {}, own="name"), exchange, "prompt")

    async def _use_resource(self, exchange: Exchange) -> Answer | Unauthorized | None:
        uri = exchange.params.get("uri")
        if not isinstance(uri, str):
            return await self._malformed(exchange, '"uri" must be a string')
        target = await self._resource(exchange, uri)
        if isinstance(target, Unauthorized):
            return target
        name = uri if target is None else target.name
        return await self._broker_it(Brokered(exchange, name, target, {"uri": uri}), exchange, "resource")

    async def _subscribe(self, exchange: Exchange) -> Answer | Unauthorized | None:
        """Hear about the changes of a resource from now on, or no more."""
        uri = exchange.params.get("uri")
        if not isinstance(uri, str):
            return await self._malformed(exchange, '"uri" must be a string')
        target = await self._resource(exchange, uri)
        if isinstance(target, Unauthorized):
            return target
        request = await self._streams.subscriptions.subscribing(exchange, uri, target)
        return await self._broker_it(request, exchange, "resource") if isinstance(request, Brokered) else request

    async def _resource(self, exchange: Exchange, uri: str) -> Tool | Unauthorized | None:
        """Where a resource is for this caller, who is asked for first: a URI is looked for in what upstreams said."""
        who = await self._who(exchange.token, exchange.session_key)
        if isinstance(who, Unknown):
            return self._turned_away(who, exchange.source)
        return self._offers.resource(uri, self._granted_to(who))

    def _granted_to(self, who: Principal | Dead) -> Callable[[str, str], bool]:
        policy = self._parts.policies.current
        if policy is None or isinstance(who, Dead):
            return lambda _name, _upstream: False
        return lambda name, upstream: policy.grants(who, name, upstream)

    async def _use_task(self, exchange: Exchange) -> Answer | Unauthorized | None:
        """Ask about a task, bring it input or cancel it: its own agent alone can."""
        task_id = exchange.params.get("taskId")
        if not isinstance(task_id, str):
            return await self._malformed(exchange, '"taskId" must be a string')
        who = await self._who(exchange.token, exchange.session_key)
        if isinstance(who, Unknown):
            return self._turned_away(who, exchange.source)
        agent_id = who.agent.id if isinstance(who, Dead) else who.agent_id
        target = self._tasks.made_by(agent_id, task_id)
        name = task_id if target is None else target.name
        return await self._broker_it(Brokered(exchange, name, target, {"taskId": task_id}), exchange, "task")

    async def _complete(self, exchange: Exchange) -> Answer | Unauthorized | None:
        ref = exchange.params.get("ref")
        if not isinstance(ref, dict) or ref.get("type") not in _REFERENCES:
            return await self._malformed(exchange, '"ref" must name a prompt or a resource')
        key, what = _REFERENCES[ref["type"]]
        lead = ref.get(key)
        if not isinstance(lead, str):
            return await self._malformed(exchange, f'"ref" must have a "{key}"')
        target = self._offers.prompt(lead) if what == "prompt" else await self._resource(exchange, lead)
        if isinstance(target, Unauthorized):
            return target
        request = Brokered(exchange, lead if target is None else target.name, target, {"ref": ref})
        if target is not None:
            request.params = {**exchange.params, "ref": {**ref, key: target.own_name}}
        return await self._broker_it(request, exchange, what)

    async def _broker_it(self, request: Brokered, exchange: Exchange, what: str) -> Answer | Unauthorized | None:
        answer = await self._broker.call(request)
        self._came(exchange, request.running)
        if isinstance(answer, Unknown):
            return self._turned_away(answer, exchange.source)
        if isinstance(answer, NoSuchTool):
            return messages.error(messages.INVALID_PARAMS, f"Unknown {what}: {answer.tool[:80]}")
        if answer is None or what == "tool":
            return None if answer is None else for_era(answer, modern=exchange.modern)
        return as_error(answer)

    def _came(self, exchange: Exchange, running: Running | None) -> None:
        """A call of this session was let in."""
        if exchange.conversation is None or running is None or not running.agent_id:
            return
        self._streams.bind(exchange.conversation, running)
        self._streams.subscriptions.revive(exchange.conversation, exchange.token, exchange.session_key, exchange.source)

    async def _malformed(self, exchange: Exchange, text: str) -> Answer | Unauthorized:
        denied = await self.admit(exchange.token, exchange.source)
        return denied or messages.error(messages.INVALID_PARAMS, text)

    # logging

    async def _set_level(self, exchange: Exchange) -> Answer | Unauthorized:
        denied = await self.admit(exchange.token, exchange.source)
        level = exchange.params.get("level")
        if denied is not None:
            return denied
        if level not in LOG_LEVELS:
            return messages.error(messages.INVALID_PARAMS, f'"level" must be one of {", ".join(LOG_LEVELS)}')
        conversation = exchange.conversation
        if conversation is not None and conversation.log_level != level:
            conversation.log_level = level
            await self._streams.subscriptions.keep(conversation, exchange.session_key, exchange.token)
        return messages.result({})

    # lists

    async def _list_offers(self, exchange: Exchange) -> Answer | Unauthorized:
        """Prompts, resources or templates of every upstream, in one page; nothing while halted, for it would be asked for."""
        listing = LISTINGS[exchange.method]
        if exchange.params.get("cursor") is not None:
            return await self._malformed(exchange, "this list has one page, so no cursor leads on")

        async def ask(who: Principal, running: Running) -> list[dict[str, Any]]:
            return await self._offers.listed(
                listing,
                _caller(who),
                peer_of(exchange),
                granted=self._granted_to(who),
                before_send=running.before_send,
            )

        return await self._look(exchange, listing.items, ask)

    async def _list_tasks(self, exchange: Exchange) -> Answer | Unauthorized:
        """Of the tasks that an upstream knows, those that this agent's calls made."""
        if exchange.params.get("cursor") is not None:
            return await self._malformed(exchange, "this list has one page, so no cursor leads on")

        async def ask(who: Principal, running: Running) -> list[dict[str, Any]]:
            made = self._tasks.of(who.agent_id, self._granted_to(who))
            return await self._offers.tasks(made, _caller(who), peer_of(exchange), before_send=running.before_send)

        return await self._look(exchange, "tasks", ask)

    async def _look(
        self, exchange: Exchange, key: str, ask: Callable[[Principal, Running], Awaitable[list[dict[str, Any]]]]
    ) -> Answer | Unauthorized:
        items = await self._broker.look(Brokered(exchange, exchange.method, None, {}), ask)
        if isinstance(items, Unknown):
            return self._turned_away(items, exchange.source)
        return self._page(exchange, key, items)

    def _page(self, exchange: Exchange, key: str, items: list[dict[str, Any]]) -> Answer:
        result: dict[str, Any] = {key: items}
        if exchange.modern:
            result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        return messages.result(result)

    # tools/list

    async def _list(self, exchange: Exchange) -> Answer | Unauthorized:
        who = await self._who(exchange.token, exchange.session_key)
        if isinstance(who, Unknown):
            return self._turned_away(who, exchange.source)
        if exchange.params.get("cursor") is not None:
            return messages.error(messages.INVALID_PARAMS, "this list has one page, so no cursor leads on")
        policy = self._parts.policies.current
        tools = [] if isinstance(who, Dead) or policy is None else self._granted(who, policy)
        return self._page(exchange, "tools", tools)

    def _granted(self, who: Principal, policy: Policy) -> list[dict[str, Any]]:
        """The definitions that this grant may call; made once for each grant, policy, catalogue and set of pins."""
        narrowed = (who.tools, *(one.tools for one in who.above))
        key = (who.scopes, narrowed, *self._pricing(who, policy))
        found = self._lists.get(key)
        if found is None:
            opens, priced = self._parts.catalog.tool(OPEN_SESSION), self._priced(who, policy)
            granted = policy.granted(who, [OPEN_SESSION, *(name for name, _ in priced)])
            own = [dict(opens.definition)] if opens is not None and opens.name in granted else []
            found = own + [definition for name, definition in priced if name in granted]
            self._lists[key] = found
            if len(self._lists) > _LISTS_CACHED:
                self._lists.popitem(last=False)
        return found

    def _pricing(self, who: Principal, policy: Policy) -> tuple[Any, ...]:
        """What prices, definitions and their order depend on."""
        alone = who.agent if policy.priced_alone(who.agent) else ""
        return (who.tier, alone, policy.version, id(self._parts.catalog.tools()), self._parts.pins.generation)

    def _priced(self, who: Principal, policy: Policy) -> list[tuple[str, dict[str, Any]]]:
        """Every served tool with its price by name; the lists of all grants share these."""
        key = self._pricing(who, policy)
        found = self._prices.get(key)
        if found is None:
            found = [
                (tool.name, tagged(tool.definition, policy.terms_for(who, tool.name, tool.upstream), policy.currency))
                for tool in served(self._parts.pins, self._parts.catalog.tools())
            ]
            self._prices[key] = found
            if len(self._prices) > _PRICINGS_CACHED:
                self._prices.popitem(last=False)
        return found

    def forget_lists(self) -> None:
        """The catalogue, what of it is approved, or the policy changed: those who listen are told."""
        self._lists.clear()
        self._prices.clear()
        self._mirrored.clear()
        self._streams.lists_changed("tools")

    def forget_grants(self) -> None:
        """The policy changed, and with it what anybody may use."""
        self.forget_lists()
        self._streams.lists_changed("prompts", "resources")

    # who

    async def _who(self, token: str | None, session_key: str) -> Principal | Dead | Unknown:
        policy = self._parts.policies.current
        return await self._parts.writer.run(
            lambda tx: self._doorman.principal(tx, token, session_key, policy, open_session=False)
        )

    def _turned_away(self, unknown: Unknown, source: str) -> Unauthorized:
        self._attempts.note("agents", source, unknown.code)
        return Unauthorized(unknown.code, unknown.text)


def _caller(who: Principal) -> Caller:
    return Caller(who.agent_id, who.session_id, who.agent, who.task, who.tier)
