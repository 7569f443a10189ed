"""Fair shares of one upstream's concurrency: an agent holds at most half, and waiting agents take turns (R32, P5).

Lives on the event loop; knows agents by their ids only, and nothing of transports.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from haltline.upstreams.model import NotSent

__all__ = ["MAX_WAITING", "MAX_WAITING_OF_ONE", "Places"]

MAX_WAITING = 1024
MAX_WAITING_OF_ONE = 128


class Places:
    """`total` calls at once; an agent may hold half of them, rounded up."""

    def __init__(self, upstream: str, total: int) -> None:
        self._upstream = upstream
        self._free = total
        self._share = (total + 1) // 2
        self._held: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def held(self, agent_id: str, deadline: float) -> AsyncIterator[None]:
        """A place until the block ends. Raises NotSent (`upstream.busy`) when there is none by the deadline (loop time)."""
        await self.take(agent_id, deadline)
        try:
            yield
        finally:
            self.give_back(agent_id)

    async def take(self, agent_id: str, deadline: float) -> None:
        """The same, for what may outlast its call: a place until `give_back`."""
        if agent_id not in self._waiting and self._may_have(agent_id):
            self._give(agent_id)
        else:
            await self._wait(agent_id, deadline)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def _may_have(self, agent_id: str) -> bool:
        return self._free > 0 and self._held.get(agent_id, 0) < self._share

    def _give(self, agent_id: str) -> None:
        self._free -= 1
        self._held[agent_id] = self._held.get(agent_id, 0) + 1

    def give_back(self, agent_id: str) -> None:
        self._free += 1
        self._held[agent_id] -= 1
        if not self._held[agent_id]:
            del self._held[agent_id]
        self._wake()

    async def _wait(self, agent_id: str, deadline: float) -> None:
        if len(self._waiting.get(agent_id, ())) >= MAX_WAITING_OF_ONE or self.waiting >= MAX_WAITING:
            raise self._busy("and too many calls wait for one")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(agent_id, deque()).append(turn)
        timer = loop.call_at(deadline, self._too_late, turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(agent_id)  # given in the same moment as it was cancelled
            raise
        finally:
            timer.cancel()
            self._forget(agent_id, turn)

    def _too_late(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            turn.set_exception(self._busy("and none became free in time"))

    def _busy(self, why: str) -> NotSent:
        return NotSent("upstream.busy", f"{self._upstream} is busy: no place is free for this agent, {why}")

    def _forget(self, agent_id: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(agent_id)
        if queue is None:
            return
        if turn in queue:
            queue.remove(turn)
        if not queue:
            del self._waiting[agent_id]

    def _wake(self) -> None:
        """Hand free places to those who wait: one each, the agent served last goes to the end."""
        while self._free > 0:
            agent_id = next((one for one in self._waiting if self._may_have(one)), None)
            if agent_id is None:
                return
            queue = self._waiting[agent_id]
            turn = queue.popleft()
            if queue:
                self._waiting.move_to_end(agent_id)
            else:
                del self._waiting[agent_id]
            if not turn.done():
                self._give(agent_id)
                turn.set_result(None)
