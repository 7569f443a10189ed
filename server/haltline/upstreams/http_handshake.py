"""The MCP sessions with one HTTP upstream of the handshake era: one for each isolation key, opened when first needed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from haltline.upstreams import faults
from haltline.upstreams.http_eras import Handshake
from haltline.upstreams.http_line import HttpLine
from haltline.upstreams.isolation import Key, for_caller_alone, introduction
from haltline.upstreams.messages import HANDSHAKE_VERSIONS, initialize_params, notification, request
from haltline.upstreams.model import NOBODY, Caller, NotSent, Peer, UpstreamSpec

__all__ = ["MAX_SESSIONS", "HandshakeRefused", "Handshakes"]

SessionKey = tuple[str, str, str]
"""An isolation key, and what the client said of itself."""
MAX_SESSIONS = 1024
END_S = 0.8


class HandshakeRefused(NotSent):
    """It answered, and wants no session."""


class Handshakes:
    """A session is shared by those who may share it (R32) and whose clients said the same of themselves."""

    def __init__(self, spec: UpstreamSpec, line: HttpLine) -> None:
        self._spec = spec
        self._line = line
        self._open: OrderedDict[SessionKey, Handshake] = OrderedDict()
        self._opening: dict[SessionKey, asyncio.Task[Handshake]] = {}
        self.capabilities: Mapping[str, Any] = {}
        """As the upstream answered the newest handshake."""

    def open_one(self, key: Key, peer: Peer = NOBODY) -> Handshake | None:
        found = self._open.get((*key, introduction(peer)))
        if found is not None:
            self._open.move_to_end((*key, introduction(peer)))
        return found

    async def get(self, key: Key, peer: Peer = NOBODY) -> Handshake:
        """Raises UpstreamError. All who come while it is being opened wait for the same one; none of them can end it."""
        found = self.open_one(key, peer)
        if found is not None:
            return found
        whole = (*key, introduction(peer))
        task = self._opening.get(whole)
        if task is None:
            task = self._opening[whole] = asyncio.create_task(self._open_new(whole, peer))
            task.add_done_callback(_seen)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by whoever ended the session, not the call
                raise faults.unreachable(self._spec.name) from None
            raise

    async def _open_new(self, key: SessionKey, peer: Peer) -> Handshake:
        try:
            self._open[key] = session = await self._initialize(peer)
        finally:
            del self._opening[key]
        while len(self._open) > MAX_SESSIONS:
            _, oldest = self._open.popitem(last=False)
            await self._end([oldest])
        return session

    def lost(self, session: Handshake) -> None:
        """The upstream does not know it any more."""
        for key, one in self._open.items():
            if one is session:
                del self._open[key]
                return

    def drop(self, key: Key) -> None:
        """Sessions of the broker's own under this key."""
        self._open.pop((*key, introduction(NOBODY)), None)

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
