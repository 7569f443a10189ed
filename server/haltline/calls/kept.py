"""Calls that are kept open at their upstream while a client of 2026-07-28 finds the input that was asked for (R14).

An upstream of the handshake era asks in the middle of a call; a client of 2026-07-28 is asked by a result, and brings the
answer with a new request. Between the two the upstream's call waits here: for a limited time, so many for one agent, ended
when its agent is stopped. Lives on the event loop alone, knows no store.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from haltline.calls.rounds import ROUND_S
from haltline.upstreams.messages import progress_token
from haltline.upstreams.model import Asking, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from haltline.calls.call import CallRequest
    from haltline.upstreams.model import Upstream, UpstreamCall

__all__ = ["KEPT_PER_AGENT_MAX", "KeptCall", "KeptCalls", "may_be_asked"]

KEPT_PER_AGENT_MAX = 16
KEPT_MAX = 512
QUESTIONS_MAX = 16
"""Of one call, open at once."""
_CAPABILITY = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_OFFERED = frozenset(_CAPABILITY.values())
_ROUNDS_OF = frozenset({"tools/call", "prompts/get", "resources/read"})
"""What may be answered by a request for input (2026-07-28)."""
_NOT_FOUND, _INVALID, _GONE = -32601, -32602, -32603
Answer = dict[str, Any]


def may_be_asked(upstream: Upstream, request: CallRequest) -> bool:
    """Whether a call may have to be kept: its client is of the newer era and can give input, its upstream of the older."""
    if request.peer.handshake or request.method not in _ROUNDS_OF or _OFFERED.isdisjoint(request.peer.capabilities):
        return False
    return isinstance(upstream, Asking) and upstream.asks_in_mid_call()


class KeptCalls:
    """Those that wait between two rounds, by the id of the call."""

    def __init__(self, round_s: float = ROUND_S) -> None:
        self.round_s = round_s
        self._waiting: dict[str, KeptCall] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def room_for(self, agent_id: str) -> bool:
        mine = sum(one.agent_id == agent_id for one in self._waiting.values())
        return mine < KEPT_PER_AGENT_MAX and len(self._waiting) < KEPT_MAX

    def keep(self, call: str, one: KeptCall) -> None:
        self._waiting[call] = one
        one.listener = None
        one.timer = asyncio.get_running_loop().call_later(self.round_s, self._end, call)

    def take(self, call: str) -> KeptCall | None:
        """The call is worked on again; None where it does not wait any more."""
        one = self._waiting.pop(call, None)
        if one is not None and one.timer is not None:
            one.timer.cancel()
        return one

    def stop(self, *, session_ids: Collection[str], agent_id: str | None, everything: bool) -> None:
        """As `RunningCalls.stop`. What was begun of them stays in doubt when their time is over."""
        for call, one in list(self._waiting.items()):
            if everything or one.agent_id == agent_id or one.session_id in session_ids:
                self._end(call)

    def _end(self, call: str) -> None:
        one = self.take(call)
        if one is not None:
            one.end()


class KeptCall:
    """One upstream call in a task of its own, which outlives the request that began it. `listener` hears of it now."""

    def __init__(self, shelf: KeptCalls, upstream: Upstream, call: UpstreamCall, request: CallRequest) -> None:
        self._shelf = shelf
        self.name = upstream.spec.name
        self._capabilities = call.peer.capabilities
        self.agent_id = call.caller.agent_id
        self.session_id = call.caller.session_id
        self.listener: CallRequest | None = request
        self.timer: asyncio.TimerHandle | None = None
        self._numbers = count(1)
        self._asked: dict[str, tuple[Mapping[str, Any], asyncio.Future[Answer]]] = {}
        self._news = asyncio.Event()
        self._over = False
        longest_s = call.deadline_s + ROUND_S  # each turn has its own deadline
        lasting = replace(
            call,
            deadline_s=longest_s,
            on_notification=self._tell,
            peer=replace(call.peer, ask=self._ask),
        )
        self._task = asyncio.create_task(upstream.call(lasting))
        self._task.add_done_callback(self._ended)

    async def turn(self, deadline_s: float) -> Mapping[str, Any]:
        """The upstream's answer, or a result that asks for input.

        Raises TimeoutError, UpstreamError, or what `before_send` raised.
        """
        async with asyncio.timeout(deadline_s):
            while not self._task.done() and not self._asked:
                self._news.clear()
                await self._news.wait()
        if not self._task.done():
            asked = {key: {"method": one["method"], **_params(one)} for key, (one, _) in self._asked.items()}
            return {"result": {"resultType": "input_required", "inputRequests": asked}}
        if self._task.cancelled():
            raise OutcomeUnknown("upstream.lost", f"the call to {self.name} was ended while it waited for input")
        return self._task.result()

    @property
    def asks(self) -> bool:
        return bool(self._asked) and not self._task.done()

    def bring(self, brought: Any, listener: CallRequest) -> None:
        """What a client answered. What it left out is asked for again."""
        self.listener = listener
        for key, (_, answer) in list(self._asked.items()):
            if isinstance(brought, dict) and key in brought:
                said = brought[key]
                valid = isinstance(said, dict)
                _settle(answer, {"result": said} if valid else _error(_INVALID, "the client's answer is not an object"))
                del self._asked[key]

    def end(self) -> None:
        """Its upstream is told that it is no longer wanted."""
        self._over = True
        self._task.cancel()
        self._let_go()

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        if not task.cancelled():
            task.exception()  # told to the next turn; perhaps there is none
        self._let_go()
        self._news.set()

    def _let_go(self) -> None:
        for _, answer in self._asked.values():
            _settle(answer, _ENDED)
        self._asked.clear()

    def _tell(self, message: dict[str, Any]) -> None:
        """Progress is told under the token of the request that is worked on now."""
        if self.listener is None:
            return
        if message.get("method") == "notifications/progress":
            token = progress_token(self.listener.params)
            if token is None:
                return
            message = {**message, "params": {**_params(message).get("params", {}), "progressToken": token}}
        self.listener.notify(message)

    async def _ask(self, message: dict[str, Any]) -> Answer:
        """Towards the upstream, this call's client."""
        refused = self._refused(message)
        if refused is not None:
            return refused
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[f"input-{next(self._numbers)}"] = (message, answer)
        self._news.set()
        said = await answer
        return _ENDED if self._over else said

    def _refused(self, message: Mapping[str, Any]) -> Answer | None:
        capability = _CAPABILITY.get(message["method"])
        offered = self._capabilities.get(capability or "")
        if not isinstance(offered, dict):
            return _error(_NOT_FOUND, f"the client of this call offers no {capability or message['method']!s:.80}")
        if message["method"] == "elicitation/create" and not _takes(offered, message):
            return _error(_INVALID, "the client of this call does not take this kind of elicitation")
        if self._task.done():
            return _ENDED
        if len(self._asked) >= QUESTIONS_MAX:
            return _error(_GONE, "this call has asked too much at once; wait for the client's answers")
        if not self._shelf.room_for(self.agent_id):
            return _error(_GONE, "too many calls of this agent wait for input; answer those first")
        return None


def _takes(offered: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """An elicitation by URL only where it is named; a form also where nothing is."""
    mode = _params(message).get("params", {}).get("mode", "form")
    return mode in offered or (mode == "form" and "url" not in offered)


def _params(message: Mapping[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    return {"params": params} if isinstance(params, dict) else {}


def _error(code: int, text: str) -> Answer:
    return {"error": {"code": code, "message": text}}


def _settle(answer: asyncio.Future[Answer], said: Answer) -> None:
    if not answer.done():
        answer.set_result(said)


_ENDED = _error(_GONE, "the call ended before its client answered")
