"""What agents hear by themselves: the standing stream of a handshake-era session, and subscriptions of 2026-07-28.

Subscribing to a resource takes the path of a call, so it is decided and recorded as one; what is told afterwards costs
nothing and is not recorded. A stream ends with the session or the credential it was opened with, and when either is stopped.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from haltline.calls.admission import AGENT_CLASSES, Dead
from haltline.calls.refusals import as_error, refusal
from haltline.calls.streams import STREAMS_PER_AGENT_MAX, Stream
from haltline.errors import StoreUnavailable
from haltline.gateway.brokered import peer_of
from haltline.gateway.hearers import LISTS, SUBSCRIPTIONS_MAX, Hearer, Hearers
from haltline.gateway.subscribing import Subscribing
from haltline.gateway.subscriptions import ENDED, Subscriptions, place_of
from haltline.identity import Unknown
from haltline.policy.model import Principal, Reason
from haltline.wire import messages
from haltline.wire.eras import SUBSCRIPTION_ID
from haltline.wire.standing import PING_S, NoStream, until_gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from haltline.broker import Broker
    from haltline.calls.admission import Doorman
    from haltline.calls.running import Running
    from haltline.parts import Parts
    from haltline.store.writer import Tx
    from haltline.upstreams.offers import Offers
    from haltline.wire.conversations import Conversation
    from haltline.wire.exchange import Exchange
    from haltline.wire.messages import Answer, Unauthorized
    from haltline.wire.standing import Standing, StandingRequest

__all__ = ["Streams"]

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_FLAGS = {f"{kind}ListChanged": method for method, kind in LISTS.items()}
"""How a subscription asks to be told of each."""


class Streams:
    """Lives on the event loop. `turn_away` records a credential that is nobody's, and says so."""

    def __init__(
        self,
        parts: Parts,
        broker: Broker,
        doorman: Doorman,
        offers: Offers,
        turn_away: Callable[[Unknown, str], Unauthorized],
    ) -> None:
        self._parts = parts
        self._broker = broker
        self._doorman = doorman
        self._offers = offers
        self._turn_away = turn_away
        self._hearers = Hearers(parts)
        self.subscriptions = Subscriptions(parts, broker, self._hearers)

    def lists_changed(self, *kinds: str) -> None:
        """Everybody's lists may be others now; `kinds` of `tools`, `prompts`, `resources`."""
        self._hearers.lists_changed(*kinds)

    def bind(self, conversation: Conversation | None, running: Running | None) -> None:
        """An agent's own credential has opened a session by its call: its stream ends with that one too (R24)."""
        hearer = self.subscriptions.hearer(conversation)
        if hearer is None or hearer.stream is None or running is None or not running.session_id:
            return
        _bind(hearer.stream, running)

    # the standing stream of the handshake era

    async def stand(self, request: StandingRequest) -> Unauthorized | NoStream | None:
        """Implements `wire.standing.StandingFace`."""
        async with self._admitted(request.token, request.session_key) as stream:
            if isinstance(stream, Unknown):
                return self._turn_away(stream, request.source)
            if isinstance(stream, Reason):
                return NoStream(stream.text)
            if request.conversation.ended:  # while it was admitted
                return NoStream(ENDED)
            subscriptions, conversation, standing = self.subscriptions, request.conversation, request.standing
            subscriptions.revive(conversation, request.token, request.session_key, request.source)
            hearer = subscriptions.hearer_of(conversation)
            if hearer.stream is not None:
                hearer.stream.end()  # one for each session: the newest
            stream.end = standing.end
            with self._hearers.listening(hearer, stream, standing):
                conversation.standing = partial(_say, standing)
                try:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(until_gone, request.receive, stream.scope.cancel)
                        await self._write(stream, standing, request.token)
                        tasks.cancel_scope.cancel()
                finally:
                    if hearer.stream is stream:
                        conversation.standing = None
            if stream.stopped is not None:
                conversation.subscriptions.clear()
                self._hearers.leave_all(hearer)
                await subscriptions.keep(conversation, request.session_key, request.token)
        return None

    # subscriptions of 2026-07-28

    async def listen(self, exchange: Exchange) -> Answer | Unauthorized | None:
        """`subscriptions/listen`: an acknowledgement with what is honoured, then only that, until either side ends it."""
        async with self._admitted(exchange.token, "") as stream:
            if isinstance(stream, Unknown):
                return self._turn_away(stream, exchange.source)
            if isinstance(stream, Reason):
                return as_error(refusal("halted" if "halted" in stream.code else "denied", [stream]))
            wanted = _wanted(exchange.params.get("notifications"))
            if isinstance(wanted, str):
                return messages.error(messages.INVALID_PARAMS, wanted)
            return await self._serve(exchange, stream, *wanted)

    async def _serve(
        self, exchange: Exchange, stream: Stream, kinds: frozenset[str], uris: Sequence[str]
    ) -> Answer | None:
        offered = self._offers.capabilities()
        meta = {SUBSCRIPTION_ID: exchange.id}
        hearer = Hearer(frozenset(kind for kind in kinds if _carried(kind, offered)), meta)
        try:
            hearer.hold(stream)
            for uri in uris:
                await self._subscribe(hearer, stream, exchange, uri)
            exchange.on_cancel = stream.scope.cancel
            standing = exchange.reply.stand()
            if standing is None:
                return messages.error(messages.INVALID_REQUEST, "subscriptions/listen is answered by an event stream")
            last = {"jsonrpc": "2.0", "id": exchange.id, "result": {"resultType": "complete", "_meta": meta}}
            stream.end = partial(standing.end, last)
            standing.tell(_acknowledgement(hearer, meta))
            with self._hearers.listening(hearer, stream, standing):
                hearer.release()
                await self._write(stream, standing, exchange.token)
            return None
        finally:
            self._hearers.leave_all(hearer)

    async def _subscribe(self, hearer: Hearer, stream: Stream, exchange: Exchange, uri: str) -> None:
        """As a call of its own; what is refused is not honoured, and that is all."""
        request = Subscribing(
            uri,
            self._offers.resource(uri),
            peer_of(exchange),
            token=exchange.token,
            session_key=exchange.session_key,
            source=exchange.source,
            attached=partial(_cancelled_with, exchange, stream),
        )

        def note(answer: Answer) -> None:
            place = place_of(self._parts, request.target, request.running, request.peer, answer)
            if place is not None:
                self._hearers.join(hearer, uri, place)

        request.noted = note
        if not stream.scope.cancel_called:
            await self._broker.call(request)
        if request.running is not None and request.running.session_id:
            _bind(stream, request.running)

    # both

    async def _write(self, stream: Stream, standing: Standing, token: str | None) -> None:
        standing.muted = lambda: stream.stopped is not None
        if self._parts.calls.streams.closed:
            stream.end()
        with stream.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, stream, token)
                await standing.run()
                tasks.cancel_scope.cancel()

    async def _watch(self, stream: Stream, token: str | None) -> None:
        """End it with its session or its credential, whatever ends those."""
        while True:
            await anyio.sleep(PING_S)
            try:
                alive = await self._parts.writer.run(lambda tx: self._alive(tx, stream, token))
            except StoreUnavailable:
                alive = False
            if not alive:
                stream.stop(Reason("session.expired", "its session or its credential has ended"))

    def _alive(self, tx: Tx, stream: Stream, token: str | None) -> bool:
        """Without use of the session: listening keeps none open."""
        identity = self._parts.identity
        credential = identity.verify(tx, token, AGENT_CLASSES)  # type: ignore[arg-type]  # the two are classes
        if isinstance(credential, Unknown) or credential.revoked_us is not None:
            return False
        return not stream.session_id or identity.session(tx, stream.session_id).life(tx.now_us) == "open"

    @asynccontextmanager
    async def _admitted(self, token: str | None, session_key: str) -> AsyncIterator[Stream | Unknown | Reason]:
        """A stream of whoever this is, registered from the commit on, so that a stop after it finds it."""
        opened: list[Stream] = []

        def unit(tx: Tx) -> Principal | Unknown | Reason:
            who = self._who(tx, token, session_key)
            if isinstance(who, Principal):
                tx.after_commit(partial(self._open, who, opened))
            return who

        try:
            who = await self._parts.writer.run(unit)
            yield self._refused(opened[0]) or opened[0] if isinstance(who, Principal) else who
        finally:
            for stream in opened:
                self._parts.calls.streams.remove(stream)

    def _open(self, who: Principal, opened: list[Stream]) -> None:
        opened.append(Stream(who))
        self._parts.calls.streams.add(opened[0])

    def _who(self, tx: Tx, token: str | None, session_key: str) -> Principal | Unknown | Reason:
        policy = self._parts.policies.current
        who = self._doorman.principal(tx, token, session_key, policy, open_session=False)
        if isinstance(who, Unknown):
            return who
        if isinstance(who, Dead):
            return who.reason
        if policy is None:
            return Reason("policy.error", "the policy cannot be read, so nothing is told until an operator repairs it")
        halts = self._parts.halts.on(tx, who.session_id, who.agent_id, who.sessions_above)
        return Reason(f"{halts[0].scope}.halted", f"halted: {halts[0].text}") if halts else who

    def _refused(self, stream: Stream) -> Reason | None:
        streams = self._parts.calls.streams
        if streams.closed:
            return Reason("broker.stopping", "the broker is shutting down", retryable=True)
        if streams.count_of(stream.who.agent_id) > STREAMS_PER_AGENT_MAX:
            text = f"this agent has {STREAMS_PER_AGENT_MAX} streams open; close one first"
            return Reason("rate.concurrent", text, retryable=True)
        return None


def _cancelled_with(exchange: Exchange, stream: Stream, running: Running) -> None:
    """The client's cancelling ends the stream, and the call that subscribes for it."""

    def cancel() -> None:
        stream.scope.cancel()
        running.cancel()

    exchange.on_cancel = cancel


def _bind(stream: Stream, running: Running) -> None:
    """To the session of this call, which may have been stopped before its stream could be found by it."""
    stream.session_id = running.session_id or ""
    if running.stopped is not None:
        stream.stop(running.stopped)


def _say(standing: Standing, message: dict[str, Any]) -> None:
    standing.tell(message)


def _wanted(asked: Any) -> tuple[frozenset[str], list[str]] | str:
    """The notifications and the resources that a subscription asks for, or what is wrong with it."""
    if not isinstance(asked, dict):
        return '"notifications" must be an object'
    uris = asked.get("resourceSubscriptions") or []
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        return '"resourceSubscriptions" must be a list of URIs'
    if len(uris) > SUBSCRIPTIONS_MAX:
        return f'"resourceSubscriptions" may have at most {SUBSCRIPTIONS_MAX} URIs'
    return frozenset(method for flag, method in _FLAGS.items() if asked.get(flag) is True), list(dict.fromkeys(uris))


def _carried(method: str, offered: Mapping[str, Any]) -> bool:
    kind = LISTS[method]
    return kind == "tools" or bool(offered.get(kind, {}).get("listChanged"))


def _acknowledgement(hearer: Hearer, meta: Mapping[str, Any]) -> dict[str, Any]:
    honoured: dict[str, Any] = {flag: True for flag, method in _FLAGS.items() if method in hearer.kinds}
    if hearer.places:
        honoured["resourceSubscriptions"] = list(hearer.places)
    return {"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": {"notifications": honoured, "_meta": dict(meta)}}
