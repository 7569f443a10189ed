"""Hearing of changed resources from an HTTP upstream on behalf of agents, in either era.

In the handshake era the session in which a resource was subscribed to gets its standing stream; in 2026-07-28, which has no
subscribing, each resource is a stream of its own. A stream that ends is opened again, and what may have been missed
meanwhile is told as changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from haltline.upstreams import faults
from haltline.upstreams.http_eras import Handshake, Modern, Speaker
from haltline.upstreams.http_handshake import Handshakes
from haltline.upstreams.http_line import HttpLine
from haltline.upstreams.http_reply import Reply
from haltline.upstreams.isolation import OWN, for_caller_alone
from haltline.upstreams.messages import LIST_CHANGED, reply_to
from haltline.upstreams.model import Caller, Peer, UpstreamCall, UpstreamError, UpstreamSpec
from haltline.upstreams.telling import (
    ACKNOWLEDGED,
    CHANGES,
    NOT_HONOURED,
    SUBSCRIBE,
    TOO_MANY,
    UNSUBSCRIBE,
    Line,
    Told,
    admitted_before,
    fail,
    honours,
    settle,
    unheard,
    updated,
)

__all__ = ["Ears"]

log = structlog.get_logger(__name__)

LONGEST_S = 3600.0
OPEN_S = 2.0
"""How long a subscription waits for its standing stream; then it is sent all the same."""
TELL_S = 5.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
PER_LINE_MAX = 512


@dataclass(slots=True, eq=False)
class _Ear:
    """One session of the handshake era that is listened to."""

    line: Line
    peer: Peer
    session: Handshake
    lists: bool
    """Also while no resource is subscribed to: the upstream tells when its lists change."""
    uris: set[str] = field(default_factory=set)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Ears:
    """`changed` is called when an upstream tells in an agent's own session that its tools changed."""

    def __init__(
        self,
        spec: UpstreamSpec,
        line: HttpLine,
        handshakes: Handshakes,
        ids: Iterator[int],
        changed: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._http = line
        self._handshakes = handshakes
        self._ids = ids
        self._changed = changed
        self._ears: dict[Line, _Ear] = {}
        self._streams: dict[tuple[Line, str], asyncio.Task[None]] = {}
        self._answers: set[asyncio.Task[None]] = set()
        self.told: Told = unheard
        handshakes.on_ended = self._drop

    def forget(self, caller: Caller, *, session_only: bool) -> None:
        for line in [one for one in self._ears if for_caller_alone(one[:2], caller, session_only=session_only)]:
            self._drop(line)
        for key in [one for one in self._streams if for_caller_alone(one[0][:2], caller, session_only=session_only)]:
            self._streams.pop(key).cancel()

    def quiet(self, line: Line, uri: str) -> None:
        stream = self._streams.pop((line, uri), None)
        if stream is not None:
            stream.cancel()
        ear = self._ears.get(line)
        if ear is not None and uri in ear.uris:
            self._later(self._unsubscribe(ear.session, uri))
            self._unsubscribed(line, uri)

    async def aclose(self) -> None:
        tasks = [*self._streams.values(), *self._answers, *(ear.task for ear in self._ears.values() if ear.task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def carry(
        self,
        line: Line,
        speaker: Speaker,
        call: UpstreamCall,
        deadline: float,
        send: Callable[[], Awaitable[dict[str, Any] | None]],
    ) -> dict[str, Any] | None:
        """Subscribe to a resource, or no longer, in whatever era. `send` and what this returns: as one attempt of a call."""
        if isinstance(speaker, Modern):
            return await self._listen(line, speaker, call, deadline)
        uri = str(call.params.get("uri"))
        if call.method == SUBSCRIBE:
            await self._attend(line, call.peer, speaker)
        answer = await send()
        if answer is not None and call.method == SUBSCRIBE and "result" in answer:
            self._subscribed(line, uri)
        else:
            self._unsubscribed(line, uri)
        return answer

    # the handshake era

    def overhear(self, line: Line, peer: Peer, session: Handshake) -> None:
        """Listen to an agent's session for changes of lists, where the upstream offers to tell them."""
        if not self._handshakes.tells_lists or line == (*OWN, ""):  # the broker's own is listened to anyway
            return
        ear = self._ears.get(line)
        if ear is None or ear.session is not session:
            self._start(line, peer, session)

    async def _attend(self, line: Line, peer: Peer, session: Handshake) -> None:
        """Listen to this session. Returns once its stream is open, or when it seems not to open."""
        ear = self._ears.get(line)
        if ear is None or ear.session is not session or (ear.task is not None and ear.task.done()):
            ear = self._start(line, peer, session)
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                await ear.ready.wait()

    def _start(self, line: Line, peer: Peer, session: Handshake) -> _Ear:
        known = self._drop(line)
        ear = self._ears[line] = _Ear(line, peer, session, self._handshakes.tells_lists)
        ear.task = asyncio.create_task(self._keep(ear, known))
        return ear

    def _subscribed(self, line: Line, uri: str) -> None:
        ear = self._ears.get(line)
        if ear is not None and len(ear.uris) < PER_LINE_MAX:
            ear.uris.add(uri)

    def _unsubscribed(self, line: Line, uri: str) -> None:
        ear = self._ears.get(line)
        if ear is not None:
            ear.uris.discard(uri)
            if not ear.uris and not ear.lists:
                self._drop(line)

    def _drop(self, line: Line) -> set[str]:
        ear = self._ears.pop(line, None)
        if ear is None:
            return set()
        if ear.task is not None:
            ear.task.cancel()
        return ear.uris

    async def _keep(self, ear: _Ear, lost: set[str]) -> None:
        """Until cancelled, or until the upstream says that it has no such stream. `lost`: subscribed in another session."""
        pause_s = FIRST_PAUSE_S
        await self._subscribe_again(ear, lost)
        while True:
            begun = asyncio.get_running_loop().time()
            status = await self._hear_session(ear)
            ear.ready.set()
            if status == 404:
                self._handshakes.lost(ear.session)
                if not ear.uris:
                    return
            elif 400 <= status < 500:
                return
            long = asyncio.get_running_loop().time() - begun > LONGEST_PAUSE_S
            pause_s = FIRST_PAUSE_S if long else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            await self._come_back(ear)

    async def _hear_session(self, ear: _Ear) -> int:
        """The HTTP status of a stream that was listened to until it ended; 0: there was no connection."""

        def hear(message: dict[str, Any]) -> None:
            if message["method"] in CHANGES:
                self.told(ear.line, message)
            elif message["method"] == LIST_CHANGED:
                self._changed()
            elif "id" in message:  # asked of nobody's call: there is no one to answer it
                self._later(self._http.tell(ear.session.headers, reply_to(message)))

        reply = _Opening(self._spec, next(self._ids), hear, ear.ready.set)
        with suppress(UpstreamError):
            await self._http.get(ear.session.headers, reply, asyncio.get_running_loop().time() + LONGEST_S)
        return reply.status

    async def _come_back(self, ear: _Ear) -> None:
        with suppress(UpstreamError):
            session = await self._handshakes.get(ear.line, ear.peer)
            if session is not ear.session:
                ear.session = session
                await self._subscribe_again(ear, set(ear.uris))

    async def _subscribe_again(self, ear: _Ear, uris: set[str]) -> None:
        ear.uris |= uris
        for uri in uris:
            with suppress(UpstreamError):
                await self._ask(ear.session, SUBSCRIBE, uri)
            self.told(ear.line, updated(uri))

    async def _ask(self, session: Handshake, method: str, uri: str) -> None:
        identifier = next(self._ids)
        headers, body = session.request(identifier, method, {"uri": uri})
        deadline = asyncio.get_running_loop().time() + TELL_S
        await self._http.ask(headers, body, identifier, deadline=deadline)

    async def _unsubscribe(self, session: Handshake, uri: str) -> None:
        with suppress(UpstreamError):
            await self._ask(session, UNSUBSCRIBE, uri)

    # 2026-07-28

    async def _listen(self, line: Line, speaker: Modern, call: UpstreamCall, deadline: float) -> dict[str, Any]:
        """`resources/subscribe` or `unsubscribe` to an upstream that has only subscription streams. Raises as `call`."""
        uri = str(call.params.get("uri"))
        key = (line, uri)
        if call.method == UNSUBSCRIBE or key in self._streams:
            call.before_send()
            if call.method == UNSUBSCRIBE:
                self.quiet(line, uri)
            return {"result": {}}
        if sum(one[0] == line for one in self._streams) >= PER_LINE_MAX:
            return TOO_MANY
        said: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        task = self._streams[key] = asyncio.create_task(self._keep_listening(key, speaker, call, said))
        task.add_done_callback(lambda done: self._streams.pop(key) if self._streams.get(key) is done else None)
        try:
            async with asyncio.timeout_at(deadline):
                return await said
        except TimeoutError as error:
            task.cancel()
            raise faults.overdue(self._spec.name, call.deadline_s) from error
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _keep_listening(
        self, key: tuple[Line, str], speaker: Modern, call: UpstreamCall, said: asyncio.Future[dict[str, Any]]
    ) -> None:
        """Until cancelled. A first stream that is not acknowledged is the last."""
        pause_s, before_send = FIRST_PAUSE_S, call.before_send
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                answer = await self._hear_stream(key, speaker, call.peer, said, before_send)
            except (
                Exception
            ) as error:  # the boundary of this task: whoever subscribes is told, later ones are tried again
                log.debug("subscription_ended", upstream=self._spec.name, exc_info=error)
                answer = {}
                fail(said, error)
            settle(said, answer if "error" in answer else NOT_HONOURED)
            if said.cancelled() or said.exception() is not None or "error" in said.result():
                return
            before_send = admitted_before
            long = asyncio.get_running_loop().time() - begun > LONGEST_PAUSE_S
            pause_s = FIRST_PAUSE_S if long else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            self.told(key[0], updated(key[1]))

    async def _hear_stream(
        self,
        key: tuple[Line, str],
        speaker: Modern,
        peer: Peer,
        said: asyncio.Future[dict[str, Any]],
        before_send: Callable[[], None],
    ) -> dict[str, Any]:
        line, uri = key

        def hear(message: dict[str, Any]) -> None:
            if message["method"] == ACKNOWLEDGED:
                settle(said, {"result": {}} if honours(message, uri) else NOT_HONOURED)
            elif message["method"] in CHANGES:
                self.told(line, message)

        identifier = next(self._ids)
        wanted = {"notifications": {"resourceSubscriptions": [uri]}}
        headers, body = speaker.request(identifier, "subscriptions/listen", wanted, peer)
        overdue = (asyncio.get_running_loop().time() + LONGEST_S, faults.overdue(self._spec.name, LONGEST_S))
        reply = self._http.reply(identifier, hear)
        return await self._http.post(headers, body, reply, before_send=before_send, overdue=overdue)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)


class _Opening(Reply):
    """Says when its stream is open."""

    def __init__(
        self, spec: UpstreamSpec, identifier: int, hear: Callable[[dict[str, Any]], None], opened: Callable[[], None]
    ) -> None:
        super().__init__(spec.name, identifier, spec.max_result_bytes, hear)
        self._opened = opened

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        super().head(status, headers)
        self._opened()
