"""The MCP sessions with one HTTP upstream of the handshake era: one for each isolation key, opened when first needed."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from haltline.upstreams import faults
from haltline.upstreams.http_eras import Handshake
from haltline.upstreams.http_line import HttpLine
from haltline.upstreams.isolation import OWN, Held, Whole, for_caller_alone, leaving
from haltline.upstreams.messages import HANDSHAKE_VERSIONS, initialize_params, notification, request
from haltline.upstreams.model import NOBODY, Caller, NotSent, Peer, UpstreamSpec

__all__ = ["MAX_SESSIONS", "HandshakeRefused", "Handshakes"]

MAX_SESSIONS = 1024
END_S = 0.8


class HandshakeRefused(NotSent):
    """It answered, and wants no session."""


class Handshakes:
    """A session is shared by those who may share it (R32) and whose clients said the same of themselves."""

    def __init__(self, spec: UpstreamSpec, line: HttpLine) -> None:
        self._spec = spec
        self._line = line
        self._open: OrderedDict[Whole, Handshake] = OrderedDict()
        self._opening: dict[Whole, asyncio.Task[Handshake]] = {}
        self._users: Counter[Whole] = Counter()
        self._openers: dict[Whole, str] = {}
        self.on_ended: Callable[[Whole], object] = lambda _: None
        """Told of a session that was ended for another one."""
        self.capabilities: Mapping[str, Any] = {}
        """As the upstream answered the newest handshake."""
        self.tells_lists = False
        """It offers to tell when one of its lists changes."""

    def open_one(self, key: Whole) -> Handshake | None:
        found = self._open.get(key)
        if found is not None:
            self._open.move_to_end(key)
        return found

    def use(self, key: Whole, opener: str) -> None:
        """Until `leave`, this session is not ended for another one. `opener`: the agent, whoever may share what it opens."""
        self._users[key] += 1
        self._openers.setdefault(key, opener)

    def leave(self, key: Whole) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            if key not in self._open and key not in self._opening:
                self._openers.pop(key, None)

    async def get(self, key: Whole, peer: Peer = NOBODY) -> Handshake:
        """`peer`: who introduces itself. Raises UpstreamError. All who come while it is being opened wait for the same one; none of them can end it."""
        found = self.open_one(key)
        if found is not None:
            return found
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._open_new(key, peer))
            task.add_done_callback(_seen)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by whoever ended the session, not the call
                raise faults.unreachable(self._spec.name) from None
            raise

    async def _open_new(self, key: Whole, peer: Peer) -> Handshake:
        try:
            await self._make_room(key)
            self._open[key] = session = await self._initialize(peer)
        finally:
            del self._opening[key]
        return session

    async def _make_room(self, key: Whole) -> None:
        """Raises NotSent where nothing that may be ended is idle."""
        known = {*self._open, *self._opening, *self._users}
        self._openers = {one: opener for one, opener in self._openers.items() if one in known}
        wanted = Held(key, self._openers.get(key, ""), idle=True)
        while key != (*OWN, ""):
            ending = leaving(self._spec.name, wanted, self._held(key), MAX_SESSIONS)
            if ending is None:
                return
            session = self._open.pop(ending)
            self.on_ended(ending)
            await self._end([session])

    def _held(self, wanted: Whole) -> Iterator[Held]:
        for key in self._open:
            yield Held(key, self._openers.get(key, ""), key not in self._users)
        for key in self._opening:
            if key != wanted:
                yield Held(key, self._openers.get(key, ""), idle=False)

    def lost(self, session: Handshake) -> None:
        """The upstream does not know it any more."""
        for key, one in self._open.items():
            if one is session:
                del self._open[key]
                return

    def drop_own(self) -> None:
        """The session with which the broker lists tools."""
        self._open.pop((*OWN, ""), None)

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """Out of use at once; the upstream is told within END_S."""
        for key in [key for key in self._opening if for_caller_alone(key[:2], caller, session_only=session_only)]:
            self._opening[key].cancel()
        keys = [key for key in self._open if for_caller_alone(key[:2], caller, session_only=session_only)]
        await self._end([self._open.pop(key) for key in keys])

    async def aclose(self) -> None:
        for task in list(self._opening.values()):
            task.cancel()
        sessions = list(self._open.values())
        self._open.clear()
        await self._end(sessions)

    async def _initialize(self, peer: Peer) -> Handshake:
        reply = self._line.reply(0)
        body = request(0, "initialize", initialize_params(peer.capabilities, peer.info))
        limit = asyncio.get_running_loop().time() + self._spec.connect_timeout_s
        overdue = (limit, faults.overdue(self._spec.name, self._spec.connect_timeout_s))
        answer = await self._line.post({}, body, reply, overdue=overdue)
        version = answer.get("result", {}).get("protocolVersion")
        if version not in HANDSHAKE_VERSIONS:
            error = answer.get("error", {})
            said = f"error {error.get('code')}: {error.get('message')}" if error else f"version {version!r:.40}"
            refused = faults.unreachable(self._spec.name, f"it refused the handshake ({said[:500]})")
            raise HandshakeRefused(refused.code, str(refused), refused.detail)
        offered = answer["result"].get("capabilities")
        self.capabilities = offered if isinstance(offered, dict) else {}
        offers = self.capabilities.values()
        self.tells_lists = any(isinstance(one, dict) and one.get("listChanged") is True for one in offers)
        session_id = reply.headers.get(b"mcp-session-id")
        session = Handshake(version, None if session_id is None else session_id.decode("latin-1"))
        await self._line.tell(session.headers, notification("notifications/initialized"))
        return session

    async def _end(self, sessions: list[Handshake]) -> None:
        named = [one for one in sessions if one.session_id is not None]
        await asyncio.gather(*(self._line.delete(one.headers, END_S) for one in named))


def _seen(task: asyncio.Task[Handshake]) -> None:
    if not task.cancelled():
        task.exception()  # told to whoever waits; perhaps nobody does any more
