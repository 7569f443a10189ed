"""The streams that agents keep open now, indexed by whom they belong to, so that a stop reaches them as it reaches calls.

Lives on the event loop alone. A stream is no running call: it costs nothing, and a drain does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from haltline.policy.model import Principal, Reason

__all__ = ["STREAMS_PER_AGENT_MAX", "OpenStreams", "Stream"]

STREAMS_PER_AGENT_MAX = 256


class Stream:
    """One stream from its admission to its end. `who` is whose it is, as admitted."""

    __slots__ = ("end", "scope", "session_id", "stopped", "who")

    def __init__(self, who: Principal) -> None:
        self.who = who
        self.session_id = who.session_id
        """Empty while the agent's own credential has opened no session."""
        self.scope = anyio.CancelScope()
        """Around its writing."""
        self.stopped: Reason | None = None
        self.end: Callable[[], None] = lambda: None
        """Closes it in good order."""

    def stop(self, reason: Reason) -> None:
        if self.stopped is None:
            self.stopped = reason
            self.scope.cancel()


class OpenStreams:
    """Every method is synchronous and runs on the event loop."""

    def __init__(self) -> None:
        self._by_agent: dict[str, set[Stream]] = {}
        self.closed = False
        """The broker is shutting down: no new ones."""

    def add(self, stream: Stream) -> None:
        self._by_agent.setdefault(stream.who.agent_id, set()).add(stream)

    def remove(self, stream: Stream) -> None:
        mine = self._by_agent.get(stream.who.agent_id)
        if mine is not None:
            mine.discard(stream)
            if not mine:
                del self._by_agent[stream.who.agent_id]

    def count_of(self, agent_id: str) -> int:
        return len(self._by_agent.get(agent_id, ()))

    def stop(self, *, reason: Reason, session_ids: Collection[str], agent_id: str | None, everything: bool) -> None:
        """As `RunningCalls.stop`: when it returns nothing more is written on these."""
        for owner, streams in list(self._by_agent.items()):
            for stream in list(streams):
                if everything or owner == agent_id or (stream.session_id and stream.session_id in session_ids):
                    stream.stop(reason)

    def close(self) -> None:
        """End all in good order, and let none begin."""
        self.closed = True
        for streams in list(self._by_agent.values()):
            for stream in list(streams):
                stream.end()
