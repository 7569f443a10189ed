"""An upstream with credentials per agent or tier: one whole upstream of its kind for each credential, so that none shares
a connection, a handshake session or a process with another (R32).

Chooses by who calls, before anything of the call leaves; owns no transport. The entry's bound on concurrency holds for all of
them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from haltline.upstreams import faults
from haltline.upstreams.credentials import Credential, Credentials, given
from haltline.upstreams.model import (
    Asking,
    Caller,
    Noted,
    NotSent,
    Peer,
    Upstream,
    UpstreamCall,
    UpstreamError,
    UpstreamSpec,
)
from haltline.upstreams.places import Places
from haltline.upstreams.telling import Line, Telling, Told, line_of

__all__ = ["CredentialedUpstream"]

log = structlog.get_logger(__name__)
_BETWEEN = " | "
"""In a line, between the credential's name and what the client said of itself."""
_WAITED_S = 0.01
"""A place that was free at once takes nothing from the call's time."""


@dataclass(slots=True, eq=False)
class _Door:
    """One credential's upstream. `listed`: it has read the list itself, as HTTP calls want (headers named in schemas)."""

    upstream: Upstream
    listed: bool = False
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)


class CredentialedUpstream:
    """`open_one` opens an upstream of the entry's kind, without credentials."""

    def __init__(
        self, spec: UpstreamSpec, credentials: Credentials, open_one: Callable[[UpstreamSpec], Upstream]
    ) -> None:
        self._spec = spec
        self._credentials = credentials
        self._doors = {one.name: _Door(open_one(given(spec, one))) for one in credentials.all()}
        self._own = self._doors[credentials.for_listing.name]
        self._places = Places(spec.name, spec.max_concurrent)
        self._last: dict[str, str] = {}

    @property
    def spec(self) -> UpstreamSpec:
        return self._spec

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._own.upstream.capabilities

    @property
    def notes(self) -> tuple[str, ...]:
        return self._own.upstream.notes if isinstance(self._own.upstream, Noted) else ()

    def watch(self, changed: Callable[[], None]) -> None:
        for door in self._doors.values():
            door.upstream.watch(changed)

    # telling: on which line, and with which credential

    def on_told(self, told: Told) -> None:
        for name, door in self._doors.items():
            if isinstance(door.upstream, Telling):
                door.upstream.on_told(partial(_told_by, name, told))

    def line_of(self, caller: Caller, peer: Peer) -> Line:
        """Of a caller whose handle is not said, the credential is that of its last call: it subscribed in one."""
        credential = self._credentials.of(caller)
        name = credential.name if credential is not None and caller.agent else self._last.get(caller.agent_id, "")
        agent_id, session_id, introduced = line_of(self._spec.isolation, caller, peer)
        return (agent_id, session_id, f"{name}{_BETWEEN}{introduced}")

    def quiet(self, line: Line, uri: str) -> None:
        agent_id, session_id, whole = line
        name, _, introduced = whole.partition(_BETWEEN)
        door = self._doors.get(name)
        if door is not None and isinstance(door.upstream, Telling):
            door.upstream.quiet((agent_id, session_id, introduced), uri)

    def asks_in_mid_call(self) -> bool:
        return isinstance(self._own.upstream, Asking) and self._own.upstream.asks_in_mid_call()

    async def list_tools(self) -> list[Any]:
        """With the credential for listing. Those that have been called read their own again, for themselves alone."""
        tools = await self._own.upstream.list_tools()
        for name, door in self._doors.items():
            if door.listed:
                try:
                    await door.upstream.list_tools()
                except UpstreamError as error:
                    door.listed = False
                    log.info("not_listed_again", upstream=self._spec.name, credential=name, code=error.code)
        return tools

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        credential = self._credentials.of(call.caller)
        if credential is None:
            raise _without(self._spec)
        self._last[call.caller.agent_id] = credential.name
        began = asyncio.get_running_loop().time()
        async with self._places.held(call.caller.agent_id, began + call.deadline_s):
            door = await self._ready(credential, began + call.deadline_s)
            waited_s = asyncio.get_running_loop().time() - began
            if waited_s > _WAITED_S:
                call = replace(call, deadline_s=round(max(call.deadline_s - waited_s, 0.01), 2))
            return await door.upstream.call(call)

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        await asyncio.gather(
            *(door.upstream.forget(caller, session_only=session_only) for door in self._doors.values())
        )

    async def aclose(self) -> None:
        await asyncio.gather(*(door.upstream.aclose() for door in self._doors.values()))

    async def _ready(self, credential: Credential, deadline: float) -> _Door:
        """Raises NotSent: nothing of the call left."""
        door = self._doors[credential.name]
        if door is self._own or door.listed or self._spec.kind == "stdio":
            return door
        try:
            async with asyncio.timeout_at(deadline), door.listing:
                if not door.listed:
                    await door.upstream.list_tools()
                    door.listed = True
        except TimeoutError as error:
            raise faults.too_late_to_send(self._spec.name) from error
        except UpstreamError as error:
            raise faults.unreachable(self._spec.name, error.detail or str(error)) from error
        return door


def _told_by(name: str, told: Told, line: Line, message: dict[str, Any]) -> bool:
    agent_id, session_id, introduced = line
    return told((agent_id, session_id, f"{name}{_BETWEEN}{introduced}"), message)


def _without(spec: UpstreamSpec) -> NotSent:
    return NotSent(
        "upstream.no_credential",
        f"{spec.name} has no credential for this agent, and it is given none of another's; an operator can name one under "
        f"credentials of upstreams.{spec.name}",
    )
