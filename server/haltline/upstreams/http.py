"""An upstream over streamable HTTP, in either protocol era: which it speaks is asked once and remembered.

2026-07-28 is stateless, so all agents share one pool of connections. In the handshake era there is one MCP session for each
isolation key, opened when first needed. What an agent presented as its credential is never among what is sent: only the
configured headers are.

A session that the upstream no longer knows (HTTP 404 to a request that names it) did not run the call: the revisions with
sessions say so. It is opened anew and the call sent once more, and a second 404 is an unknown outcome.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import structlog

from haltline.upstreams import faults
from haltline.upstreams.http_ears import Ears
from haltline.upstreams.http_eras import Handshake, Modern, Speaker, param_header_map
from haltline.upstreams.http_handshake import HandshakeRefused, Handshakes
from haltline.upstreams.http_late import LATE_S, Overtime
from haltline.upstreams.http_line import HttpLine
from haltline.upstreams.http_reply import Reply
from haltline.upstreams.http_watch import watch_list
from haltline.upstreams.isolation import OWN
from haltline.upstreams.listing import all_tools
from haltline.upstreams.messages import LIST_CHANGED, MODERN_VERSION, OWN_META, answer_to, progress_token, reply_to
from haltline.upstreams.model import (
    NOBODY,
    Caller,
    NotSent,
    OutcomeUnknown,
    Peer,
    UpstreamCall,
    UpstreamError,
    UpstreamSpec,
)
from haltline.upstreams.places import Places
from haltline.upstreams.telling import CHANGES, SUBSCRIBING, Line, Told, line_of

__all__ = ["HttpUpstream"]

log = structlog.get_logger(__name__)

_HEADER_MISMATCH = -32020
_OWN_LINE: Line = (*OWN, "")
_NOT_OF_A_CALL = frozenset({LIST_CHANGED, "notifications/cancelled"})


class HttpUpstream:
    """`tls`: another context than the system's. `handshake_only`: do not ask for the newer era. `late_s`: how long an answer
    is still heard after its deadline.
    """

    def __init__(
        self,
        spec: UpstreamSpec,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_only: bool = False,
        late_s: float = LATE_S,
    ) -> None:
        self._spec = spec
        self._overtime = Overtime(spec.name, late_s)
        self._line = HttpLine(spec, tls)
        self._places = Places(spec.name, spec.max_concurrent)
        self._handshakes = Handshakes(spec, self._line)
        self._handshake_only = handshake_only
        self._modern: Modern | None = None
        self._era_known = False
        self._modern_only = False
        """It refused a handshake although it speaks the newer era."""
        self._probing = asyncio.Lock()
        self._ids = count(1)
        self._ears = Ears(spec, self._line, self._handshakes, self._ids, self._tell_changed)
        self._background: set[asyncio.Task[None]] = set()
        self._changed: Callable[[], None] = lambda: None
        self._watching: asyncio.Task[None] | None = None
        self._discovered: Mapping[str, Any] = {}

    @property
    def spec(self) -> UpstreamSpec:
        return self._spec

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._discovered if self._modern is not None else self._handshakes.capabilities

    def watch(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def on_told(self, told: Told) -> None:
        self._ears.told = told

    def line_of(self, caller: Caller, peer: Peer) -> Line:
        return line_of(self._spec.isolation, caller, peer)

    def quiet(self, line: Line, uri: str) -> None:
        self._ears.quiet(line, uri)

    def asks_in_mid_call(self) -> bool:
        return self._modern is None

    async def list_tools(self) -> list[Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._spec.timeout_s
        try:
            speaker = await self._speaker(_OWN_LINE, deadline)
            tools = await all_tools(self._spec.name, partial(self._ask_own, speaker, deadline))
        except UpstreamError:
            self._era_known = self._modern_only = False  # it may come back as another version
            self._handshakes.drop_own()
            raise
        if self._modern is not None:
            self._modern = Modern(param_header_map(tools))
        self._listen(speaker)
        return tools

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + call.deadline_s
        agent, line = call.caller.agent_id, self.line_of(call.caller, call.peer)
        await self._places.take(agent, deadline)
        self._handshakes.use(line, agent)
        try:
            speaker = await self._speaker(line, deadline, call.peer)
            if isinstance(speaker, Handshake) and call.peer.log_level not in {None, *speaker.log_level}:
                await self._set_level(speaker, str(call.peer.log_level), deadline)
            answer = await self._carry(speaker, line, call, deadline)
            if answer is None:
                answer = await self._send_again(line, call, deadline)
        finally:
            self._handshakes.leave(line)
            self._places.give_back(agent)
        if isinstance(speaker, Modern) and answer.get("error", {}).get("code") == _HEADER_MISMATCH:
            self._changed()  # a schema with other headers than those that were listed
        return answer

    async def _set_level(self, speaker: Handshake, level: str, deadline: float) -> None:
        """What the agent's client wants to hear of, told once to each session; an upstream that will not is called all the same."""
        speaker.log_level[:] = [level]
        identifier = next(self._ids)
        headers, body = speaker.request(identifier, "logging/setLevel", {"level": level})
        with suppress(UpstreamError):
            await self._line.ask(headers, body, identifier, deadline=deadline)

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        self._ears.forget(caller, session_only=session_only)
        self._overtime.forget(caller, session_only=session_only)
        await self._handshakes.forget(caller, session_only=session_only)

    async def aclose(self) -> None:
        tasks = [*self._background, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._overtime.close()
        await self._ears.aclose()
        await self._handshakes.aclose()
        self._line.close()

    async def _carry(self, speaker: Speaker, line: Line, call: UpstreamCall, deadline: float) -> dict[str, Any] | None:
        """One attempt. What subscribes to a resource, or no longer does, concerns those who listen too."""
        if call.method in SUBSCRIBING:
            send = partial(self._send, speaker, call, deadline)
            return await self._ears.carry(line, speaker, call, deadline, send)
        if isinstance(speaker, Handshake):
            self._ears.overhear(line, call.peer, speaker)
        return await self._send(speaker, call, deadline)

    async def _send(self, speaker: Speaker, call: UpstreamCall, deadline: float) -> dict[str, Any] | None:
        """One attempt. None: the upstream does not know the session, so it did not run."""
        identifier = next(self._ids)
        headers, body = speaker.request(identifier, call.method, call.params, call.peer)
        hear = partial(self._hear, speaker, call)
        reply = Reply(self._spec.name, identifier, self._spec.max_result_bytes, hear)
        overdue = (deadline, faults.overdue(self._spec.name, call.deadline_s))
        late = partial(self._overtime.keep, call)
        sent = False

        def before_send() -> None:
            nonlocal sent
            call.before_send()
            sent = True

        try:
            return await self._line.post(headers, body, reply, before_send=before_send, overdue=overdue, late=late)
        except asyncio.CancelledError:
            if sent:
                self._call_off(speaker, identifier)
            raise
        except OutcomeUnknown as error:
            if error is overdue[1]:
                self._call_off(speaker, identifier)
            if reply.status == 404 and isinstance(speaker, Handshake) and speaker.session_id is not None:
                self._handshakes.lost(speaker)
                return None
            if reply.status >= 400:
                self._changed()  # it may have become another version; listing finds out
            raise

    async def _send_again(self, line: Line, call: UpstreamCall, deadline: float) -> dict[str, Any]:
        gone = OutcomeUnknown("upstream.lost", f"{self._spec.name} forgot the session in which it was called")
        try:
            answer = await self._carry(await self._speaker(line, deadline, call.peer), line, call, deadline)
        except NotSent as error:
            raise gone from error  # of the first attempt bytes left
        if answer is None:
            raise gone
        return answer

    def _hear(self, speaker: Speaker, call: UpstreamCall, message: dict[str, Any]) -> None:
        """One message that came beside an answer."""
        method = message["method"]
        if "id" in message:
            if isinstance(speaker, Handshake):
                self._later(self._ask_client(speaker, call, message))
        elif method in _NOT_OF_A_CALL:
            if method == LIST_CHANGED:
                self._changed()
        elif method in CHANGES and self._ears.told(self.line_of(call.caller, call.peer), message):
            return
        elif method != "notifications/progress" or _same(progress_token(call.params), message):
            call.on_notification(message)

    async def _ask_client(self, speaker: Handshake, call: UpstreamCall, message: dict[str, Any]) -> None:
        """What the upstream asks in the middle of a call goes to that call's client, and its answer back."""
        if message["method"] == "ping" or call.peer.ask is None:
            await self._line.tell(speaker.headers, reply_to(message))
        else:
            await self._line.tell(speaker.headers, answer_to(message, await call.peer.ask(message)))

    def _call_off(self, speaker: Speaker, identifier: int) -> None:
        """In the newer era closing the stream says it; in the handshake era a notification does."""
        if isinstance(speaker, Handshake):
            self._later(self._line.tell(speaker.headers, speaker.cancelled(identifier)))

    async def _speaker(self, line: Line, deadline: float, peer: Peer = NOBODY) -> Speaker:
        """Whoever can write the request, the era known and the session open. Raises NotSent: nothing of the call left."""
        if self._era_known and self._modern is not None and not self._matches_handshake(peer):
            return self._modern
        if self._era_known:
            found = self._handshakes.open_one(line)
            if found is not None:
                return found
        try:
            async with asyncio.timeout_at(deadline):
                await self._find_era()
                return await self._in_its_era(line, peer)
        except TimeoutError as error:
            raise faults.too_late_to_send(self._spec.name) from error
        except OutcomeUnknown as error:
            raise faults.unreachable(
                self._spec.name, f"{error}: {error.detail}" if error.detail else str(error)
            ) from error

    def _matches_handshake(self, peer: Peer) -> bool:
        """Eras are matched where the upstream speaks both: nothing is lost in translation then."""
        return peer.handshake and not self._modern_only

    async def _in_its_era(self, line: Line, peer: Peer) -> Speaker:
        if self._modern is None:
            return await self._handshakes.get(line, peer)
        if self._matches_handshake(peer):
            try:
                return await self._handshakes.get(line, peer)
            except (HandshakeRefused, OutcomeUnknown):
                self._modern_only = True
        return self._modern

    async def _find_era(self) -> None:
        async with self._probing:
            if not self._era_known:
                self._modern = Modern() if not self._handshake_only and await self._is_modern() else None
                self._era_known = True

    async def _is_modern(self) -> bool:
        headers, body = Modern().request(0, "server/discover", {"_meta": OWN_META})
        try:
            answer = await self._line.ask(headers, body, 0)
        except OutcomeUnknown:
            return False  # whatever is wrong with it, the handshake finds it too, and says so
        result = answer.get("result", {})
        self._discovered = _mapping(result.get("capabilities"))
        versions = result.get("supportedVersions")
        return isinstance(versions, list) and MODERN_VERSION in versions

    async def _ask_own(self, speaker: Speaker, deadline: float, params: Mapping[str, Any]) -> dict[str, Any]:
        identifier = next(self._ids)
        headers, body = speaker.request(identifier, "tools/list", {**params, "_meta": OWN_META})
        return await self._line.ask(headers, body, identifier, deadline=deadline)

    def _listen(self, speaker: Speaker) -> None:
        """Hear of changes of the list, where the upstream offers to tell them."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch_lists(speaker))

    async def _watch_lists(self, speaker: Speaker) -> None:
        def told(message: dict[str, Any]) -> None:
            self._ears.told(_OWN_LINE, message)

        await watch_list(self._line, speaker, next(self._ids), self._tell_changed, told)

    def _tell_changed(self) -> None:
        self._changed()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Beside the calls, so that a cancelled one need not wait: what it sends is bounded in time by itself."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _same(token: int | str | None, message: Mapping[str, Any]) -> bool:
    params = message.get("params")
    theirs = params.get("progressToken") if isinstance(params, dict) else None
    return token is not None and type(theirs) is type(token) and theirs == token
