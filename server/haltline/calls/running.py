"""The calls that are running now: each with a scope to cancel it, indexed by whom it belongs to (R17).

Lives on the event loop alone. A call is registered before its first transaction, bound to its agent when that transaction
is committed, and `stop` is run from the commit of whatever stops it: the writer hands commits over in their order, so a
stop sees every call admitted before it, and every call after it finds the halt or the revocation in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import anyio

from haltline.calls.kept import KeptCalls
from haltline.calls.late import LateAnswers
from haltline.calls.scope import Scope
from haltline.calls.streams import OpenStreams
from haltline.identity import new_ids

if TYPE_CHECKING:
    from haltline.policy.model import Reason

__all__ = ["Running", "RunningCalls", "StoppedCall"]


class StoppedCall(Exception):
    """Raised where a first byte would have left, or a result would have been delivered, after a stop."""


class Running:
    """One call from before its first transaction until its outcome is recorded."""

    __slots__ = ("agent_id", "delivery", "id", "outputs", "scope", "sent", "session_id", "stopped", "tool")

    def __init__(self, identifier: str) -> None:
        self.id = identifier
        self.scope = Scope()
        """Around its dispatch."""
        self.delivery = Scope()
        """Around the writing of its result, which may wait for a slow reader."""
        self.agent_id: str | None = None
        self.session_id: str | None = None
        self.stopped: Reason | None = None
        """Why nothing more may be sent or delivered for it."""
        self.sent = False
        self.tool = ""
        """Known once it is dispatched."""
        self.outputs = 0
        """How often its upstream told something of it, progress included."""

    def before_send(self) -> None:
        """Immediately before the first byte leaves: raises StoppedCall if it may not; from here on it may have run."""
        if self.stopped is not None or self.scope.cancel_called:
            raise StoppedCall
        self.sent = True

    def stop(self, reason: Reason) -> bool:
        """Withhold whatever comes of it and cancel it. False if it was stopped before."""
        if self.stopped is not None:
            return False
        self.stopped = reason
        self.scope.cancel()
        self.delivery.cancel()
        return True

    def cancel(self) -> None:
        """Its own caller no longer wants it."""
        self.scope.cancel()


class RunningCalls:
    """The index. Every method is synchronous but `ended`, and runs on the event loop."""

    def __init__(self) -> None:
        self._ids = new_ids("call")
        self._calls: dict[str, Running] = {}
        self._by_agent: dict[str, set[str]] = {}
        self._idle = asyncio.Event()
        self.streams = OpenStreams()
        """What is open beside the calls: stopped with them, counted and waited for nowhere."""
        self.kept = KeptCalls()
        """What waits at an upstream between two rounds: stopped with the calls, and counted as none."""

        self.late = LateAnswers()
        """What came for calls that were given up, until it is recorded."""

    def __len__(self) -> int:
        return len(self._calls)

    def open(self) -> Running:
        call = Running(next(self._ids))
        self._calls[call.id] = call
        self._idle.clear()
        return call

    def bind(self, call: Running, agent_id: str, session_id: str, call_id: str | None = None) -> None:
        """Whose call it is, known once its first transaction is committed; `call_id` where it is a call that goes on."""
        if call_id is not None:
            del self._calls[call.id]
            call.id = call_id
            self._calls[call_id] = call
            call.sent = True  # in an earlier round
        call.agent_id, call.session_id = agent_id, session_id
        self._by_agent.setdefault(agent_id, set()).add(call.id)

    def close(self, call: Running) -> None:
        """Its outcome is recorded and delivered or withheld."""
        self._calls.pop(call.id, None)
        mine = self._by_agent.get(call.agent_id or "")
        if mine is not None:
            mine.discard(call.id)
            if not mine:
                del self._by_agent[call.agent_id or ""]
        if not self._calls:
            self._idle.set()

    def dispatched(self) -> list[Running]:
        return [call for call in self._calls.values() if call.sent and call.tool]

    def running_of(self, agent_id: str) -> int:
        return len(self._by_agent.get(agent_id, ()))

    def stop(
        self,
        *,
        reason: Reason,
        session_ids: Collection[str] = (),
        agent_id: str | None = None,
        everything: bool = False,
    ) -> int:
        """Stop the calls of these sessions, of this agent, or all. When it returns, no send and no delivery can start.

        Returns how many it stopped.
        """
        self.streams.stop(reason=reason, session_ids=session_ids, agent_id=agent_id, everything=everything)
        self.kept.stop(session_ids=session_ids, agent_id=agent_id, everything=everything)
        wanted = self._calls.values() if everything else self._of(session_ids, agent_id)
        return sum(call.stop(reason) for call in list(wanted))

    def hold_back(self, *, reason: Reason, session_ids: Collection[str] = (), agent_id: str | None = None) -> int:
        """Stop those of which nothing has left yet; what was sent runs on and is delivered (R18)."""
        return sum(call.stop(reason) for call in list(self._of(session_ids, agent_id)) if not call.sent)

    def _of(self, session_ids: Collection[str], agent_id: str | None) -> Iterator[Running]:
        if session_ids:
            yield from (call for call in self._calls.values() if call.session_id in session_ids)
        for call_id in self._by_agent.get(agent_id or "", ()):
            yield self._calls[call_id]

    async def ended(self, timeout_s: float) -> bool:
        """Wait until nothing runs; False when `timeout_s` is over first."""
        with anyio.move_on_after(timeout_s):
            while self._calls:
                await self._idle.wait()
        return not self._calls
