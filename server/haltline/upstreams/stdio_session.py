"""One MCP session with one program over its standard input and output: requests out, answers matched by id.

Owns what keeps the calls of several sessions in one process apart: progress tokens are replaced on the way out and restored
on the way back; what names no call (a log message, a question) is handed on only where one call alone can be meant.
In which era the program is spoken to is settled when it is opened (`stdio_opening`), and stays.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from haltline.upstreams import faults
from haltline.upstreams.child import Child, start
from haltline.upstreams.messages import (
    LIST_CHANGED,
    BadMessage,
    answer_in,
    answer_to,
    for_handshake,
    for_modern,
    notification,
    progress_token,
    read,
    reply_to,
    request,
)
from haltline.upstreams.pace import Unasked
from haltline.upstreams.stdio_pending import Ask, Late, Pending, may_ask
from haltline.upstreams.telling import CHANGES

if TYPE_CHECKING:
    from haltline.upstreams.model import OutcomeUnknown, Peer, UpstreamCall, UpstreamSpec
    from haltline.upstreams.pace import Pace

__all__ = ["StdioSession"]

log = structlog.get_logger(__name__)

ENVELOPE_BYTES = 64 * 1024
"""What a line may have beside the result."""
ABANDONED_S = 60.0
"""For so long a call that was called off, and never answered, may still be what a log message is about."""
CANCELLED = "notifications/cancelled"
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
_WHOSE: Mapping[str, Any] = {
    "error": {
        "code": -32603,
        "message": "several calls are open here, and over standard streams a request does not say which it belongs to; "
        "ask again when the others have ended",
    }
}
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*[,}]')
_ID_NEAR_BYTES = 200


class StdioSession:
    """`on_end` is called once when the program is gone; `on_changed` when it says that its tools changed."""

    def __init__(
        self,
        spec: UpstreamSpec,
        on_end: Callable[[StdioSession], None],
        on_changed: Callable[[], None],
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace
        self._spec = spec
        self._on_end = on_end
        self._on_changed = on_changed
        self._ids = count(1)
        self._pending: dict[int, Pending] = {}
        self._streams: dict[int, Pending] = {}
        """Subscriptions of 2026-07-28, by the id of their request, which is on each of their messages."""
        self._abandoned: dict[int, tuple[float, Late, bool]] = {}
        self._unasked = Unasked()
        self._flooding = False
        self._log_level: str | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self.capabilities: Mapping[str, Any] = {}
        """As it said when it was opened."""
        self.modern = False
        """It is spoken to at 2026-07-28."""
        self.child: Child | None = None
        self.on_told: Callable[[dict[str, Any]], bool] | None = None
        """Takes what it tells of its prompts and resources; whether somebody heard it."""

    @property
    def usable(self) -> bool:
        return self.child is not None and self.child.alive

    @property
    def in_use(self) -> bool:
        return bool(self._pending)

    async def start(self) -> None:
        """Raises NotStarted."""
        self.child = await start(
            self._spec, self._spec.max_result_bytes + ENVELOPE_BYTES, self._hear, self._child_ended, self._pace
        )

    def tell(self, method: str) -> None:
        if self.child is not None:
            self.child.write(notification(method))

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A request of the broker's own; the caller bounds the time."""
        identifier = next(self._ids)
        pending = self._pending[identifier] = Pending()
        try:
            if self.child is None or not self.child.write(request(identifier, method, params)):
                raise faults.unreachable(self._spec.name, self._last_words)
            return await pending.answer
        finally:
            self._pending.pop(identifier, None)

    async def call(self, call: UpstreamCall, deadline: float) -> dict[str, Any]:
        """Raises NotSent, OutcomeUnknown, or what `before_send` raises. `deadline` is loop time."""
        identifier = next(self._ids)
        written = for_modern(call.params, call.peer) if self.modern else for_handshake(call.params)
        params, token = _own_token(written, identifier)
        line = request(identifier, call.method, params)
        if self.child is None or not self.child.writable:
            self.kill()  # if it is there, it does not read what it is sent
            raise faults.unreachable(self._spec.name, self._last_words)
        level = call.peer.log_level
        if level is not None and level != self._log_level and not self.modern:
            self._log_level = level  # what it answers is passed over
            self.child.write(request(next(self._ids), "logging/setLevel", {"level": level}))
        call.before_send()
        self.child.write(line)
        pending = Pending(token, call.on_notification, call.peer.ask, asking=may_ask(call.method))
        self._pending[identifier] = pending
        late = faults.overdue(self._spec.name, call.deadline_s)
        timer = asyncio.get_running_loop().call_at(deadline, pending.fail, late)
        try:
            answer = await pending.answer
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) or error is late:
                self._call_off(identifier, pending, call.on_late)
                if pending.answer.done() and pending.answer.exception() is None:
                    call.on_late(pending.answer.result())  # it came in the moment of the cancellation
            raise
        else:
            return answer
        finally:
            timer.cancel()
            self._pending.pop(identifier, None)

    async def listen(
        self,
        wanted: Mapping[str, Any],
        hear: Callable[[dict[str, Any]], None],
        peer: Peer,
        before_send: Callable[[], None],
    ) -> dict[str, Any]:
        """A subscription of 2026-07-28, until the program ends it; `hear` gets its messages, their acknowledgement first.

        Raises as `call`. Cancelled, it is called off.
        """
        identifier = next(self._ids)
        line = request(identifier, "subscriptions/listen", for_modern({"notifications": wanted}, peer))
        if self.child is None or not self.child.writable:
            raise faults.unreachable(self._spec.name, self._last_words)
        before_send()
        self.child.write(line)
        pending = self._streams[identifier] = Pending(None, hear)
        try:
            return await pending.answer
        except asyncio.CancelledError:
            self.child.write(_cancelled(identifier))
            raise
        finally:
            del self._streams[identifier]

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()

    async def end(self) -> None:
        if self.child is not None:
            await self.child.end()

    @property
    def _last_words(self) -> str | None:
        return None if self.child is None else self.child.last_words

    def _call_off(self, identifier: int, pending: Pending, on_late: Late) -> None:
        if self.child is not None:
            self.child.write(_cancelled(identifier))
        self._abandoned_may_run(asking=False)  # so that what is kept does not grow
        self._abandoned[identifier] = (asyncio.get_running_loop().time(), on_late, pending.asking)

    def _abandoned_may_run(self, *, asking: bool) -> bool:
        """Whether a call that was called off may be what the program speaks of now. Forgets those of long ago."""
        long_ago = asyncio.get_running_loop().time() - ABANDONED_S
        while self._abandoned and next(iter(self._abandoned.values()))[0] <= long_ago:
            del self._abandoned[next(iter(self._abandoned))]
        return any(may_ask or not asking for _, _, may_ask in self._abandoned.values())

    def _child_ended(self, why: str) -> None:
        error = self._why_lost(why)
        for pending in [*self._pending.values(), *self._streams.values()]:
            pending.fail(error)
        self._on_end(self)

    def _why_lost(self, why: str) -> OutcomeUnknown:
        if self.child is not None and self.child.broken:
            return faults.too_large(self._spec.name, self._spec.max_result_bytes)
        if self._flooding:
            return faults.too_talkative(self._spec.name)
        return faults.lost(self._spec.name, f"{why}; {self._last_words or 'it wrote no error'}")

    def _hear(self, line: bytes) -> None:
        if not line:
            return
        try:
            value = read(line)
        except BadMessage as error:
            self._unreadable(line, error)
            return
        for message in value if isinstance(value, list) else (value,):
            if isinstance(message, dict) and isinstance(message.get("method"), str):
                self._told(message)
            elif isinstance(message, dict) and type(message.get("id")) is int:
                self._answered(message)
            else:
                self._count_unasked()

    def _answered(self, message: dict[str, Any]) -> None:
        abandoned = self._abandoned.pop(message["id"], None)
        pending = self._pending.get(message["id"]) or self._streams.get(message["id"])
        if pending is None:
            self._count_unasked()
            if abandoned is not None:
                with suppress(BadMessage):
                    abandoned[1](answer_in(message))
        elif not pending.answer.done():
            try:
                pending.settle(answer_in(message))
            except BadMessage as error:
                pending.fail(faults.malformed(self._spec.name, str(error)))

    def _told(self, message: dict[str, Any]) -> None:
        self._count_unasked()
        method, stream = message["method"], self._stream_of(message)
        if "id" in message:
            self._asked(message)
        elif stream is not None and method == CANCELLED:
            stream.settle({"result": {}})
        elif stream is not None:
            stream.tell(message)
        elif method == LIST_CHANGED:
            self._on_changed()
        elif method == "notifications/progress":
            self._progressed(message)
        elif method in CHANGES and self.on_told is not None and self.on_told(message):
            return
        elif method != CANCELLED:
            self._logged(message)

    def _stream_of(self, message: Mapping[str, Any]) -> Pending | None:
        """The subscription that a message belongs to, or ends."""
        params = message.get("params")
        if not self._streams or not isinstance(params, dict):
            return None
        meta = params.get("_meta")
        named = meta.get(SUBSCRIPTION_ID) if isinstance(meta, dict) else None
        if named is None and message["method"] == CANCELLED:
            named = params.get("requestId")
        return self._streams.get(named) if type(named) is int else None

    def _asked(self, message: dict[str, Any]) -> None:
        """What the program asks of its client goes to the only call that it can be about; else nothing is offered."""
        if self.child is None:
            return
        if (
            message["method"] == "ping"
            or self.modern
            or not any(one.ask and one.asking for one in self._pending.values())
        ):
            self.child.write(reply_to(message))
            return
        alone = self._alone(asking=True)
        if alone is None:
            self.child.write(answer_to(message, _WHOSE))
        elif alone.ask is None:
            self.child.write(reply_to(message))
        else:
            alone.asked += 1
            task = asyncio.create_task(self._ask_client(alone, alone.ask, message))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_client(self, pending: Pending, ask: Ask, message: dict[str, Any]) -> None:
        try:
            answer = await ask(message)
        finally:
            pending.asked -= 1
        if self.child is not None:
            self.child.write(answer_to(message, answer))

    def _progressed(self, message: dict[str, Any]) -> None:
        params = message.get("params")
        token = params.get("progressToken") if isinstance(params, dict) else None
        pending = self._pending.get(token) if type(token) is int else None
        if pending is not None and pending.token is not None:
            pending.tell({**message, "params": {**(params or {}), "progressToken": pending.token}})

    def _logged(self, message: dict[str, Any]) -> None:
        alone = self._alone(asking=False)
        if alone is not None:
            alone.tell(message)

    def _alone(self, *, asking: bool) -> Pending | None:
        """Of which call a message that names none is: of the only one, or of the only one that waits for no answer of its
        client. Of none under `shared`, nor while one that was called off may run. `asking`: of those that may ask.
        """
        if self._spec.isolation == "shared" or self._abandoned_may_run(asking=asking):
            return None
        here = [one for one in self._pending.values() if one.asking or not asking]
        meant = [one for one in here if not one.asked] or here
        return meant[0] if len(meant) == 1 else None

    def _unreadable(self, line: bytes, error: BadMessage) -> None:
        """Fail the call that it answers, if that can be seen; a line that is none of the protocol's is passed over."""
        self._count_unasked()
        found = _ID.search(line[:_ID_NEAR_BYTES]) or _ID.search(line[-_ID_NEAR_BYTES:])
        pending = self._pending.get(int(found[1])) if found else None
        if pending is None and len(self._pending) == 1 and line.lstrip()[:1] in {b"{", b"["}:
            (pending,) = self._pending.values()
        if pending is not None:
            pending.fail(faults.malformed(self._spec.name, str(error)))
        else:
            log.debug("upstream_noise", upstream=self._spec.name, line=line[:200].decode("utf-8", "replace"))

    def _count_unasked(self) -> None:
        """A program that writes too many lines which answer nothing is ended, so that it cannot occupy the broker."""
        if self._unasked.too_many():
            self._flooding = True
            self.kill()


def _own_token(params: dict[str, Any], identifier: int) -> tuple[dict[str, Any], int | str | None]:
    token = progress_token(params)
    if token is None:
        return params, None
    return {**params, "_meta": {**params["_meta"], "progressToken": identifier}}, token


def _cancelled(identifier: int) -> bytes:
    return notification(CANCELLED, {"requestId": identifier, "reason": "no longer wanted"})
