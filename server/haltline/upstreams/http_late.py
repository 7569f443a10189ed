"""Answers over HTTP that are still waited for after the deadline of their calls, so that what they say is known (R10).

Whoever called has been told, and is never given the answer. Bounded: so many at once, so many of one agent, so long, so many
bytes of each; a stop of their agent ends them with everything else that is open for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.upstreams import faults

if TYPE_CHECKING:
    from haltline.upstreams.http_reply import Reply
    from haltline.upstreams.http_wire import Connection, Pool
    from haltline.upstreams.model import Caller, UpstreamCall

__all__ = ["LATE_BYTES_MAX", "LATE_MAX", "LATE_OF_ONE_MAX", "LATE_S", "Overtime"]

LATE_S = 60.0
"""How long after its deadline an answer is waited for; then its connection is closed, which ends the call at 2026-07-28."""
LATE_MAX = 16
LATE_OF_ONE_MAX = 8
"""Of one agent."""
LATE_BYTES_MAX = 1024 * 1024
"""Of what came before the deadline and after it; a larger answer is not waited for."""


@dataclass(slots=True)
class _Awaited:
    caller: Caller
    timer: asyncio.TimerHandle


class Overtime:
    """Those of one upstream. On the event loop alone."""

    def __init__(self, upstream: str, late_s: float = LATE_S) -> None:
        self._upstream = upstream
        self._late_s = late_s
        self._awaited: dict[Reply, _Awaited] = {}

    def __len__(self) -> int:
        return len(self._awaited)

    def keep(self, call: UpstreamCall, error: Exception, reply: Reply, connection: Connection, pool: Pool) -> bool:
        """At the deadline: whoever waits gets `error`, and the connection is ours. False: there is no room for one more."""
        mine = sum(one.caller.agent_id == call.caller.agent_id for one in self._awaited.values())
        if len(self._awaited) >= LATE_MAX or mine >= LATE_OF_ONE_MAX or not reply.goes_on(error, LATE_BYTES_MAX):
            return False
        over = faults.lost(self._upstream, "nobody waited any longer")
        timer = asyncio.get_running_loop().call_later(self._late_s, reply.fail, over)
        self._awaited[reply] = _Awaited(call.caller, timer)

        def ended(answer: asyncio.Future[dict[str, object]]) -> None:
            del self._awaited[reply]
            timer.cancel()
            pool.release(connection, answered=reply.answered)
            if reply.answered:
                call.on_late(answer.result())

        reply.answer.add_done_callback(ended)
        return True

    def forget(self, caller: Caller, *, session_only: bool) -> None:
        """Nothing more is heard for this caller."""
        for reply, one in list(self._awaited.items()):
            same = one.caller.session_id == caller.session_id if session_only else True
            if one.caller.agent_id == caller.agent_id and same:
                self._end(reply)

    def close(self) -> None:
        for reply in list(self._awaited):
            self._end(reply)

    def _end(self, reply: Reply) -> None:
        reply.fail(faults.lost(self._upstream, "it was stopped"))
