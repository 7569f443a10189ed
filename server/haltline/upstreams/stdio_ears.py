"""Hearing of changes from one program that speaks 2026-07-28, where nothing is told that was not subscribed to.

Its lists are one subscription, each resource is another. One that the program ends is made again, and what may have been
missed meanwhile is told as changed. What is subscribed to outlives the process: the next one is asked for the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from haltline.upstreams import faults
from haltline.upstreams.isolation import Key
from haltline.upstreams.messages import LIST_CHANGED
from haltline.upstreams.model import NOBODY, Peer, UpstreamCall
from haltline.upstreams.stdio_session import StdioSession
from haltline.upstreams.telling import (
    ACKNOWLEDGED,
    CHANGES,
    NOT_HONOURED,
    TOO_MANY,
    UNSUBSCRIBE,
    Line,
    Told,
    admitted_before,
    fail,
    honours,
    settle,
    updated,
)

__all__ = ["StdioEars"]

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
PER_PROCESS_MAX = 512
_LISTS = dict.fromkeys(("toolsListChanged", "promptsListChanged", "resourcesListChanged"), True)


class StdioEars:
    """`key`: for whom the process is. `told` gets what changed beside tools, `changed` is called when those did."""

    def __init__(self, name: str, key: Key, told: Told, changed: Callable[[], None]) -> None:
        self._name = name
        self._key = key
        self._told = told
        self._changed = changed
        self._session: StdioSession | None = None
        self._lines: dict[str, set[Line]] = {}
        """By resource, on which lines it was subscribed to."""
        self._streams: dict[str, asyncio.Task[None]] = {}

    def attend(self, session: StdioSession) -> None:
        """Listen to this process, and to no other one any more."""
        self.end()
        self._session = session
        self._listen("", _LISTS, NOBODY, None, admitted_before)
        for uri in self._lines:  # of a process that ended
            self._listen(uri, {"resourceSubscriptions": [uri]}, NOBODY, None, admitted_before)
            self._tell_missed(uri)

    def end(self) -> None:
        for task in self._streams.values():
            task.cancel()
        self._streams.clear()

    async def carry(self, line: Line, call: UpstreamCall, deadline: float) -> dict[str, Any]:
        """`resources/subscribe` or `unsubscribe`. Raises as `StdioSession.call`."""
        uri = str(call.params.get("uri"))
        if call.method == UNSUBSCRIBE or uri in self._streams:
            call.before_send()
            if call.method == UNSUBSCRIBE:
                self.quiet(line, uri)
            else:
                self._lines[uri].add(line)
            return {"result": {}}
        if len(self._lines) >= PER_PROCESS_MAX:
            return TOO_MANY
        said: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._lines[uri] = {line}
        self._listen(uri, {"resourceSubscriptions": [uri]}, call.peer, said, call.before_send)
        taken = False
        try:
            async with asyncio.timeout_at(deadline):
                answer = await said
            taken = "result" in answer
        except TimeoutError as error:
            raise faults.overdue(self._name, call.deadline_s) from error
        finally:
            if not taken:
                self._drop(uri)
        return answer

    def quiet(self, line: Line, uri: str) -> None:
        lines = self._lines.get(uri)
        if lines is not None:
            lines.discard(line)
            if not lines:
                self._drop(uri)

    def _drop(self, uri: str) -> None:
        self._lines.pop(uri, None)
        task = self._streams.pop(uri, None)
        if task is not None:
            task.cancel()

    def _listen(
        self,
        uri: str,
        wanted: dict[str, Any],
        peer: Peer,
        said: asyncio.Future[dict[str, Any]] | None,
        before_send: Callable[[], None],
    ) -> None:
        assert self._session is not None
        said = said or asyncio.get_running_loop().create_future()
        keeping = self._keep(self._session, uri, wanted, peer, said, before_send)
        task = self._streams[uri] = asyncio.create_task(keeping)
        task.add_done_callback(partial(self._ended, uri))

    def _ended(self, uri: str, task: asyncio.Task[None]) -> None:
        if self._streams.get(uri) is task:
            del self._streams[uri]

    async def _keep(
        self,
        session: StdioSession,
        uri: str,
        wanted: dict[str, Any],
        peer: Peer,
        said: asyncio.Future[dict[str, Any]],
        before_send: Callable[[], None],
    ) -> None:
        """Until cancelled or the process ends. A first stream that is not acknowledged is the last."""
        pause_s = FIRST_PAUSE_S
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                answer = await session.listen(wanted, partial(self._hear, uri, said), peer, before_send)
            except Exception as error:  # the boundary of this task: whoever subscribes is told; else its process ended
                log.debug("subscription_ended", upstream=self._name, exc_info=error)
                fail(said, error)
                return
            settle(said, answer if "error" in answer else NOT_HONOURED)
            if said.cancelled() or said.exception() is not None or "error" in said.result():
                return
            before_send = admitted_before
            long = asyncio.get_running_loop().time() - begun > LONGEST_PAUSE_S
            pause_s = FIRST_PAUSE_S if long else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            self._tell_missed(uri)

    def _hear(self, uri: str, said: asyncio.Future[dict[str, Any]], message: dict[str, Any]) -> None:
        method = message["method"]
        if method == ACKNOWLEDGED:
            settle(said, {"result": {}} if not uri or honours(message, uri) else NOT_HONOURED)
        elif method == LIST_CHANGED:
            self._changed()
        elif method in CHANGES:
            for line in [*self._lines.get(uri, ())] if uri else [(*self._key, "")]:
                self._told(line, message)

    def _tell_missed(self, uri: str) -> None:
        if not uri:
            self._changed()
        for line in [*self._lines.get(uri, ())]:
            self._told(line, updated(uri))
