"""What sessions of the handshake era subscribed to, and what else they set, also after a restart of the broker.

A session that comes back after one has its log level at once, and is subscribed again to what it wanted to hear of: as calls
of its own, decided and recorded like the first, so that nothing is told that it may not have any more.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from haltline.calls.refusals import META_KEY, as_error
from haltline.gateway.hearers import LISTS, SUBSCRIPTIONS_MAX, Hearer, Hearers, Place
from haltline.gateway.remembered import Remembered, Set, Wish
from haltline.gateway.subscribing import Noted, Subscribing
from haltline.upstreams.model import Caller, Peer
from haltline.upstreams.offers import target_of
from haltline.upstreams.telling import SUBSCRIBE, Telling, updated
from haltline.wire import messages

if TYPE_CHECKING:
    from haltline.broker import Broker
    from haltline.calls.running import Running
    from haltline.gateway.brokered import Brokered
    from haltline.parts import Parts
    from haltline.upstreams.catalog import Tool
    from haltline.wire.conversations import Conversation
    from haltline.wire.exchange import Exchange
    from haltline.wire.messages import Answer

__all__ = ["ENDED", "FULL", "Subscriptions", "place_of"]

FULL = f"at most {SUBSCRIPTIONS_MAX} subscriptions"
ENDED = "this MCP session has ended; send initialize again"
AGAIN_TIMES = 7
AGAIN_FIRST_S = 0.5
"""Upstreams may need a while after a restart; each pause is twice as long: a minute together."""
log = structlog.get_logger(__name__)


class Subscriptions:
    """Lives on the event loop."""

    def __init__(self, parts: Parts, broker: Broker, hearers: Hearers) -> None:
        self._parts = parts
        self._broker = broker
        self._hearers = hearers
        self._remembered = Remembered(parts)
        self._sessions: dict[Conversation, Hearer] = {}
        self._wishes: dict[Conversation, dict[str, Wish]] = {}
        """Of sessions that came back: what is not subscribed to again yet."""
        self._reviving: set[asyncio.Task[None]] = set()
        self._since_us = parts.clock.now_us()

    def hearer(self, conversation: Conversation | None) -> Hearer | None:
        return None if conversation is None else self._sessions.get(conversation)

    def hearer_of(self, conversation: Conversation) -> Hearer:
        """The same, made where there is none."""
        found = self._sessions.get(conversation)
        if found is None:
            found = self._sessions[conversation] = Hearer(frozenset(LISTS))
            conversation.on_end = partial(self._session_ended, conversation)
        return found

    async def subscribing(self, exchange: Exchange, uri: str, target: Tool | None) -> Brokered | Answer:
        """`resources/subscribe` or `unsubscribe` as a call, or the answer where none is needed."""
        conversation = exchange.conversation
        hearer = self.hearer(conversation)
        if hearer is None or conversation is None:
            return Noted(exchange, uri, target, self._note)
        if exchange.method == SUBSCRIBE:
            if len(hearer.places) >= SUBSCRIPTIONS_MAX:
                return messages.error(messages.INVALID_REQUEST, FULL)
        elif uri in hearer.places and self._hearers.others(hearer, uri, hearer.places[uri]):
            self._leave(conversation, uri)
            await self.keep(conversation, exchange.session_key, exchange.token)
            return messages.result({})  # another session of its line goes on hearing of it
        return Noted(exchange, uri, target, self._note)

    async def _note(self, request: Brokered, exchange: Exchange, answer: Answer) -> Answer:
        """What became of it, before its client is told; the answer that its client gets."""
        conversation, uri = exchange.conversation, str(request.arguments["uri"])
        if conversation is None:
            return answer
        self._wishes.get(conversation, {}).pop(uri, None)
        if request.method != SUBSCRIBE:
            self._leave(conversation, uri)
        else:
            place = place_of(self._parts, request.target, request.running, request.peer, answer)
            if place is None:
                return answer
            answer = self._take(conversation, uri, place) or answer
        await self.keep(conversation, exchange.session_key, exchange.token)
        return answer

    def _take(self, conversation: Conversation, uri: str, place: Place) -> Answer | None:
        """Join, or why not: meanwhile its session has ended, or others of its own have filled it."""
        if conversation.ended:
            self._hearers.decline(uri, place)
            return messages.error(messages.INVALID_REQUEST, ENDED)
        if not self._hearers.join(self.hearer_of(conversation), uri, place):
            return messages.error(messages.INVALID_REQUEST, FULL)
        conversation.subscriptions.add(uri)
        return None

    def _leave(self, conversation: Conversation, uri: str) -> None:
        hearer = self._sessions.get(conversation)
        if hearer is not None:
            self._hearers.leave(hearer, uri)
            conversation.subscriptions.discard(uri)

    def _session_ended(self, conversation: Conversation) -> None:
        self._wishes.pop(conversation, None)
        hearer = self._sessions.pop(conversation, None)
        if hearer is not None:
            if hearer.stream is not None:
                hearer.stream.end()
            self._hearers.leave_all(hearer)

    # through a restart

    async def keep(self, conversation: Conversation, session_key: str, token: str | None) -> None:
        """Durable when it returns, as it is now; nothing of one that has ended."""
        if conversation.ended:
            return
        hearer = self._sessions.get(conversation)
        wishes = dict(self._wishes.get(conversation, {}))
        for uri, place in ({} if hearer is None else hearer.places).items():
            wishes[uri] = Wish(place.upstream, place.subject)
        await self._remembered.keep(session_key, token, Set(conversation.log_level, wishes))

    async def forget(self, session_key: str) -> None:
        await self._remembered.forget(session_key)

    async def recall(self, conversation: Conversation, session_key: str) -> None:
        """Once for a session that this process has not opened itself, or has forgotten for others.

        Only a restart is a reason to subscribe again: who has more sessions than are remembered could else make each of
        his requests many calls.
        """
        known = await self._remembered.recall(session_key)
        if known is None or conversation.recalled:
            return
        conversation.recalled = True
        conversation.log_level = conversation.log_level or known.log_level
        if known.wishes and known.at_us < self._since_us and not conversation.ended:
            self._wishes[conversation] = dict(known.wishes)
            self.hearer_of(conversation)  # so that its end is heard of

    def revive(self, conversation: Conversation | None, token: str | None, session_key: str, source: str) -> None:
        """Its credential was found good: what it wanted to hear of before is subscribed to again, beside its requests."""
        if conversation is None or conversation not in self._wishes or conversation.reviving:
            return
        conversation.reviving = True
        task = asyncio.create_task(self._revive(conversation, token, session_key, source))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _revive(self, conversation: Conversation, token: str | None, session_key: str, source: str) -> None:
        pause_s = AGAIN_FIRST_S
        try:
            for _ in range(AGAIN_TIMES):
                for uri, wish in list(self._wishes.get(conversation, {}).items()):
                    done = await self._subscribe(conversation, uri, wish, (token, session_key, source))
                    if done and conversation in self._wishes:
                        self._wishes[conversation].pop(uri, None)
                if not self._wishes.get(conversation):
                    break
                await asyncio.sleep(pause_s)
                pause_s *= 2
            if self._wishes.pop(conversation, None) is not None:
                await self.keep(conversation, session_key, token)
        except Exception as error:  # the boundary of this task: its requests go on without what it wanted to hear of
            log.exception("subscriptions_not_revived", exc_info=error)

    async def _subscribe(
        self, conversation: Conversation, uri: str, wish: Wish, whose: tuple[str | None, str, str]
    ) -> bool:
        """False: it may be possible later."""
        if wish.upstream not in {one.spec.name for one in self._parts.catalog.upstreams()}:
            return True  # it is not configured any more
        token, session_key, source = whose
        peer = Peer(conversation.capabilities, conversation.info, conversation.log_level, handshake=True)
        target = target_of(wish.subject, wish.upstream, uri)
        request = Subscribing(uri, target, peer, token=token, session_key=session_key, source=source)
        answers: list[Answer] = []
        request.noted = answers.append
        refused = await self._broker.call(request)
        if not answers:
            return not _may_be_soon(refused)
        place = place_of(self._parts, target, request.running, peer, answers[0])
        if place is None:
            return not _may_be_soon(answers[0])
        if self._take(conversation, uri, place) is None:
            self._hearers.tell(self.hearer_of(conversation), uri, updated(uri))  # it may have missed something
        return True


def place_of(parts: Parts, target: Tool | None, running: Running | None, peer: Peer, answer: Answer) -> Place | None:
    """Where a resource will be told of that was subscribed to; None: it was not."""
    if target is None or running is None or "result" not in as_error(answer):
        return None
    upstream = parts.catalog.upstream(target.upstream)
    if not isinstance(upstream, Telling):
        return None
    caller = Caller(running.agent_id or "", running.session_id or "")
    return Place(target.upstream, upstream.line_of(caller, peer), target.name)


def _may_be_soon(answer: Any) -> bool:
    """Whether a refusal says that it may be tried again."""
    result = answer.get("result") if isinstance(answer, dict) else None
    facts = result.get("_meta", {}).get(META_KEY) if isinstance(result, dict) else None
    return facts is not None and bool(facts["reasons"][0]["retryable"])
