"""An upstream that is a program: one process for each isolation key, started when first needed, again after it ended.

A process speaks one protocol era, so a program that speaks both has one for each that its agents speak; which it speaks is
found out when it is started, and remembered. A program that keeps ending is started again at growing intervals; what is
called meanwhile is refused, with nothing sent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from haltline.upstreams import faults
from haltline.upstreams.isolation import OWN, Held, Key, Whole, for_caller_alone, introduction, key_of, leaving
from haltline.upstreams.listing import all_tools
from haltline.upstreams.messages import HANDSHAKE_VERSION, MODERN_VERSION, OWN_META, for_modern
from haltline.upstreams.model import NOBODY, Caller, NotSent, Peer, UpstreamCall, UpstreamError, UpstreamSpec
from haltline.upstreams.pace import Pace
from haltline.upstreams.places import Places
from haltline.upstreams.stdio_ears import StdioEars
from haltline.upstreams.stdio_opening import NoAnswer, open_session
from haltline.upstreams.stdio_session import StdioSession
from haltline.upstreams.telling import SUBSCRIBE, SUBSCRIBING, UNSUBSCRIBE, Line, Told, line_of, unheard, updated

__all__ = ["MAX_PROCESSES", "StdioUpstream"]

_OWN_SLOT: Whole = (*OWN, "")
MAX_PROCESSES = 128
"""Of one upstream. For another one a process that is idle is ended."""
START_TIMES = 3.0
"""A start may take so many times as long as a connection: a package runner may fetch the program first."""
FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 30.0
SUBSCRIBE_S = 5.0
SILENCES_MAX = 2
AGREEING_MAX = 3
"""So often a program may turn out to speak another era than it did."""


@dataclass(slots=True)
class _Slot:
    """What is known of one key's process, also while it is not running."""

    session: StdioSession | None = None
    starting: asyncio.Task[StdioSession] | None = None
    opener: str = ""
    """The agent that it was first needed for."""
    waiting: int = 0
    """Calls that are about to use it."""
    failures: int = 0
    not_before: float = 0.0
    uris: set[str] = field(default_factory=set)
    """Resources that somebody subscribed to, in the handshake era."""
    ears: StdioEars | None = None
    """How it is listened to at 2026-07-28."""


class StdioUpstream:
    def __init__(self, spec: UpstreamSpec) -> None:
        self._spec = spec
        self._places = Places(spec.name, spec.max_concurrent)
        self._pace = Pace()
        self._slots: OrderedDict[Whole, _Slot] = OrderedDict()
        self._changed: Callable[[], None] = lambda: None
        self._closed = False
        self._background: set[asyncio.Task[None]] = set()
        self._offered: Mapping[str, Any] = {}
        self._told: Told = unheard
        self._modern: bool | None = None
        """Whether it speaks 2026-07-28, where that is known."""
        self._handshake: bool | None = None
        self._silences = 0
        """Starts in a row in which it said nothing at all when it was asked for the newer era first."""

    @property
    def spec(self) -> UpstreamSpec:
        return self._spec

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._offered

    def watch(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def on_told(self, told: Told) -> None:
        self._told = told

    def line_of(self, caller: Caller, peer: Peer) -> Line:
        return line_of(self._spec.isolation, caller, peer)

    def quiet(self, line: Line, uri: str) -> None:
        for key in {line, self._key(line[:2], NOBODY, modern=True)}:
            slot = self._slots.get(key)
            if slot is not None and slot.ears is not None:
                slot.ears.quiet(line, uri)
            if slot is not None and uri in slot.uris:
                slot.uris.discard(uri)
                if slot.session is not None and slot.session.usable:
                    self._later(_ask(slot.session, UNSUBSCRIBE, uri))

    def asks_in_mid_call(self) -> bool:
        return self._modern is not True

    async def list_tools(self) -> list[Any]:
        deadline = asyncio.get_running_loop().time() + self._spec.timeout_s
        _, session = await self._opened(_OWN_SLOT, deadline, NOBODY, "")
        self._offered = session.capabilities
        try:
            async with asyncio.timeout_at(deadline):
                return await all_tools(self._spec.name, partial(_list, session))
        except TimeoutError as error:
            if not session.in_use:
                session.kill()
            raise faults.overdue(self._spec.name, self._spec.timeout_s) from error

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + call.deadline_s
        key = key_of(self._spec.isolation, call.caller)
        async with self._places.held(call.caller.agent_id, deadline):
            slot, session = await self._matching(key, deadline, call.peer, call.caller.agent_id)
            if call.method in SUBSCRIBING:
                answer = await self._subscribe(slot, session, call, deadline)
            else:
                answer = await session.call(call, deadline)
            slot.failures = 0
            return answer

    async def _subscribe(
        self, slot: _Slot, session: StdioSession, call: UpstreamCall, deadline: float
    ) -> dict[str, Any]:
        if slot.ears is not None:
            return await slot.ears.carry(self.line_of(call.caller, call.peer), call, deadline)
        answer = await session.call(call, deadline)
        _note(slot.uris, call, answer)
        return answer

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        keys = [key for key in self._slots if for_caller_alone(key[:2], caller, session_only=session_only)]
        await self._end([self._slots.pop(key) for key in keys])

    async def aclose(self) -> None:
        self._closed = True
        slots = list(self._slots.values())
        self._slots.clear()
        await self._end(slots)
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _matching(self, key: Key, deadline: float, peer: Peer, opener: str) -> tuple[_Slot, StdioSession]:
        """In the era of the agent's client, where the program speaks it. Raises NotSent: nothing of the call left."""
        for _ in range(AGREEING_MAX):
            modern = self._wants_modern(peer)
            slot, session = await self._opened(self._key(key, peer, modern=modern), deadline, peer, opener)
            if slot.session is session and session.modern == self._wants_modern(peer):
                return slot, session
        raise faults.unreachable(self._spec.name, "it speaks another era each time it is started")

    def _wants_modern(self, peer: Peer) -> bool:
        return self._handshake is False if peer.handshake else self._modern is not False

    def _key(self, key: Key, peer: Peer, *, modern: bool) -> Whole:
        """At 2026-07-28 each request says whose it is, so that one process serves all clients of an agent."""
        if modern:
            return _OWN_SLOT if key == OWN else (*key, MODERN_VERSION)
        said = introduction(peer)
        return (*key, said or (HANDSHAKE_VERSION if key == OWN and self._modern else ""))

    async def _opened(self, key: Whole, deadline: float, peer: Peer, opener: str) -> tuple[_Slot, StdioSession]:
        """Raises NotSent: nothing of the call left."""
        slot = self._slots.get(key)
        if slot is None:
            await self._make_room(key, opener)
            slot = self._slots.setdefault(key, _Slot(opener=opener))
        self._slots.move_to_end(key)
        if slot.session is not None and slot.session.usable:
            return slot, slot.session
        starting = slot.starting = slot.starting or self._start(key, slot, peer)
        slot.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                return slot, await asyncio.shield(starting)
        except TimeoutError as error:
            raise faults.too_late_to_send(self._spec.name) from error
        except asyncio.CancelledError:
            if starting.cancelled():  # by whoever ended it, not the call
                raise faults.unreachable(self._spec.name) from None
            raise
        finally:
            slot.waiting -= 1

    def _start(self, key: Whole, slot: _Slot, peer: Peer) -> asyncio.Task[StdioSession]:
        """Raises NotSent while the next attempt is not due."""
        wait_s = slot.not_before - asyncio.get_running_loop().time()
        if self._closed or wait_s > 0:
            raise faults.failed_to_start(self._spec.name, None, max(wait_s, 0))
        task = asyncio.create_task(self._open(key, slot, peer))
        task.add_done_callback(_seen)
        return task

    async def _open(self, key: Whole, slot: _Slot, peer: Peer) -> StdioSession:
        if key == _OWN_SLOT:
            peer, modern, settled = NOBODY, not self._hangs, False  # it may have become another version
        else:
            modern = key[2] == MODERN_VERSION and not self._hangs
            settled = bool(self._modern if modern else self._handshake)
        make = partial(StdioSession, self._spec, partial(self._ended, slot), self._tell_changed, self._pace)
        limit_s = START_TIMES * self._spec.connect_timeout_s
        try:
            session = await open_session(self._spec, peer, make, limit_s, modern=modern, settled=settled)
        except NotSent as error:
            if isinstance(error, NoAnswer):
                self._silences = self._silences + 1 if modern else 0
            self._back_off(slot)
            raise
        finally:
            slot.starting = None
        slot.session = session
        self._learn(key, session, modern=modern)
        self._attend(self._in_its_place(key, slot, peer), slot, session, introduction(peer))
        return session

    @property
    def _hangs(self) -> bool:
        """It seems to hang at being asked for the newer era, so the other comes first. Once, it may just have been slow."""
        return self._silences >= SILENCES_MAX

    def _learn(self, key: Whole, session: StdioSession, *, modern: bool) -> None:
        """Which eras it speaks: the one it is spoken to in, and not the one that was tried before."""
        if session.modern:
            self._silences = 0
        if key == _OWN_SLOT:
            self._modern, self._handshake = session.modern, None if session.modern else True
        elif session.modern:
            self._modern, self._handshake = True, self._handshake if modern else False
        else:
            self._handshake, self._modern = True, False if modern else self._modern

    def _in_its_place(self, key: Whole, slot: _Slot, peer: Peer) -> Whole:
        """A process of another era than it was started for is another one's: the next that needs it finds it there."""
        assert slot.session is not None
        place = key if key == _OWN_SLOT else self._key(key[:2], peer, modern=slot.session.modern)
        if place != key and self._slots.get(key) is slot:
            del self._slots[key]
            if place in self._slots:  # somebody else started one meanwhile
                session, slot.session = slot.session, None
                self._later(session.end())
            else:
                self._slots[place] = slot
        return place

    def _attend(self, key: Whole, slot: _Slot, session: StdioSession, said: str) -> None:
        """Hear what it tells by itself, also of what somebody subscribed to in a process that ended."""
        if slot.session is not session:
            return
        if session.modern:
            slot.ears = slot.ears or StdioEars(self._spec.name, key[:2], self._tell, self._tell_changed)
            slot.ears.attend(session)
            return
        slot.ears = None
        line = (*key[:2], said)
        session.on_told = lambda message: self._tell(line, message)
        for uri in slot.uris:
            self._later(self._subscribe_again(line, session, uri))

    def _tell(self, line: Line, message: dict[str, Any]) -> bool:
        return self._told(line, message)

    async def _subscribe_again(self, line: Line, session: StdioSession, uri: str) -> None:
        await _ask(session, SUBSCRIBE, uri)
        self._told(line, updated(uri))

    def _ended(self, slot: _Slot, session: StdioSession) -> None:
        """A process is gone, or good for nothing. One that was being started is counted where its start fails."""
        self._later(session.end())
        if slot.session is session:
            slot.session = None
            self._back_off(slot)
        if self._slots.get(_OWN_SLOT) is slot and not self._closed:
            self._changed()

    def _tell_changed(self) -> None:
        self._changed()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _back_off(self, slot: _Slot) -> None:
        """The first end may be followed by a start at once."""
        slot.failures += 1
        if slot.failures > 1:
            pause_s = min(FIRST_BACK_OFF_S * 2 ** min(slot.failures - 2, 20), LONGEST_BACK_OFF_S)
            slot.not_before = asyncio.get_running_loop().time() + pause_s

    async def _make_room(self, key: Whole, opener: str) -> None:
        """Raises NotSent where nothing that may be ended is idle."""
        wanted = Held(key, opener, idle=True)
        while key != _OWN_SLOT and key not in self._slots:
            held = [Held(one, slot.opener, not _in_use(slot)) for one, slot in self._slots.items()]
            ending = leaving(self._spec.name, wanted, held, MAX_PROCESSES)
            if ending is None:
                return
            await self._end([self._slots.pop(ending)])

    async def _end(self, slots: list[_Slot]) -> None:
        starting = [slot.starting for slot in slots if slot.starting is not None]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        for slot in slots:
            if slot.ears is not None:
                slot.ears.end()
        sessions = [slot.session for slot in slots if slot.session is not None]
        await asyncio.gather(*(session.end() for session in sessions), return_exceptions=True)


def _in_use(slot: _Slot) -> bool:
    return slot.waiting > 0 or slot.starting is not None or (slot.session is not None and slot.session.in_use)


def _note(uris: set[str], call: UpstreamCall, answer: Mapping[str, Any]) -> None:
    uri = str(call.params.get("uri"))
    if call.method == SUBSCRIBE and "result" in answer:
        uris.add(uri)
    else:
        uris.discard(uri)


async def _list(session: StdioSession, params: Mapping[str, Any]) -> dict[str, Any]:
    return await session.ask(
        "tools/list", for_modern({**params, "_meta": OWN_META}, NOBODY) if session.modern else params
    )


async def _ask(session: StdioSession, method: str, uri: str) -> None:
    """Never fails."""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(SUBSCRIBE_S):
            await session.ask(method, {"uri": uri})


def _seen(task: asyncio.Task[StdioSession]) -> None:
    if not task.cancelled():
        task.exception()  # told to whoever waits; perhaps nobody does any more
