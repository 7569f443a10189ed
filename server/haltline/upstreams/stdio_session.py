"""One MCP session with one program over its standard input and output: requests out, answers matched by id.

Owns what keeps the calls of several sessions in one process apart: progress tokens are replaced on the way out and restored
on the way back, and log messages, which name no call, are handed on only while exactly one call can have caused them.
Handshake era only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from haltline.upstreams import faults
from haltline.upstreams.child import Child, NotStarted, start
from haltline.upstreams.messages import (
    HANDSHAKE_VERSIONS,
    LIST_CHANGED,
    BadMessage,
    answer_in,
    answer_to,
    for_handshake,
    initialize_params,
    notification,
    progress_token,
    read,
    reply_to,
    request,
)
from haltline.upstreams.model import NOBODY, Peer
from haltline.upstreams.pace import Unasked
from haltline.upstreams.telling import CHANGES

if TYPE_CHECKING:
    from haltline.upstreams.model import OutcomeUnknown, UpstreamCall, UpstreamSpec
    from haltline.upstreams.pace import Pace

__all__ = ["StdioSession", "open_session"]

Late = Callable[[dict[str, Any]], None]
Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = structlog.get_logger(__name__)

ENVELOPE_BYTES = 64 * 1024
"""What a line may have beside the result."""
ABANDONED_S = 60.0
"""For so long a call that was called off, and never answered, may still be what a log message is about."""
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*[,}]')
_ID_NEAR_BYTES = 200


@dataclass(slots=True)
class _Pending:
    answer: asyncio.Future[dict[str, Any]]
    token: int | str | None = None
    on_notification: Callable[[dict[str, Any]], None] | None = None
    ask: Ask | None = None

    def tell(self, message: dict[str, Any]) -> None:
        if self.on_notification is None or self.answer.done():
            return
        try:
            self.on_notification(message)
        except Exception as error:  # its listener broke: this call ends with that, the others go on
            log.exception("notification_not_taken")
            _fail(self, error)


class StdioSession:
    """`on_end` is called once when the program is gone; `on_changed` when it says that its tools changed."""

    def __init__(
        self,
        spec: UpstreamSpec,
        on_end: Callable[[StdioSession], None],
        on_changed: Callable[[], None],
        peer: Peer = NOBODY,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace
        self._spec = spec
        self._peer = peer
        self._on_end = on_end
        self._on_changed = on_changed
        self._ids = count(1)
        self._pending: dict[int, _Pending] = {}
        self._abandoned: dict[int, tuple[float, Late]] = {}
        self._unasked = Unasked()
        self._flooding = False
        self._log_level: str | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self.capabilities: Mapping[str, Any] = {}
        """As it answered the handshake."""
        self.child: Child | None = None
        self.on_told: Callable[[dict[str, Any]], bool] | None = None
        """Takes what it tells of its prompts and resources; whether somebody heard it."""

    @property
    def usable(self) -> bool:
        return self.child is not None and self.child.alive

    @property
    def in_use(self) -> bool:
        return bool(self._pending)

    async def open(self) -> None:
        """Raises NotStarted or UpstreamError."""
        self.child = await start(
            self._spec, self._spec.max_result_bytes + ENVELOPE_BYTES, self._hear, self._child_ended, self._pace
        )
        answer = await self.ask("initialize", initialize_params(self._peer.capabilities, self._peer.info))
        version = answer.get("result", {}).get("protocolVersion")
        if version not in HANDSHAKE_VERSIONS:
            said = answer.get("error", {}).get("message", f"version {version!r:.40}")
            raise NotStarted(f"it refused the handshake: {said!s:.500}")
        offered = answer["result"].get("capabilities")
        self.capabilities = offered if isinstance(offered, dict) else {}
        self.child.write(notification("notifications/initialized"))

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A request of the broker's own; the caller bounds the time."""
        identifier = next(self._ids)
        pending = self._expect(identifier)
        try:
            if self.child is None or not self.child.write(request(identifier, method, params)):
                raise faults.unreachable(self._spec.name, self._last_words)
            return await pending.answer
        finally:
            self._pending.pop(identifier, None)

    async def call(self, call: UpstreamCall, deadline: float) -> dict[str, Any]:
        """Raises NotSent, OutcomeUnknown, or what `before_send` raises. `deadline` is loop time."""
        identifier = next(self._ids)
        params, token = _own_token(for_handshake(call.params), identifier)
        line = request(identifier, call.method, params)
        if self.child is None or not self.child.writable:
            self.kill()  # if it is there, it does not read what it is sent
            raise faults.unreachable(self._spec.name, self._last_words)
        level = call.peer.log_level
        if level is not None and level != self._log_level:
            self._log_level = level  # what it answers is passed over
            self.child.write(request(next(self._ids), "logging/setLevel", {"level": level}))
        call.before_send()
        self.child.write(line)
        pending = self._expect(identifier, token, call.on_notification, call.peer.ask)
        late = faults.overdue(self._spec.name, call.deadline_s)
        timer = asyncio.get_running_loop().call_at(deadline, _fail, pending, late)
        try:
            answer = await pending.answer
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) or error is late:
                self._call_off(identifier, call.on_late)
                if pending.answer.done() and pending.answer.exception() is None:
                    call.on_late(pending.answer.result())  # it came in the moment of the cancellation
            raise
        else:
            return answer
        finally:
            timer.cancel()
            self._pending.pop(identifier, None)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()

    async def end(self) -> None:
        if self.child is not None:
            await self.child.end()

    @property
    def _last_words(self) -> str | None:
        return None if self.child is None else self.child.last_words

    def _expect(
        self,
        identifier: int,
        token: int | str | None = None,
        on_notification: Callable[[dict[str, Any]], None] | None = None,
        ask: Ask | None = None,
    ) -> _Pending:
        pending = _Pending(asyncio.get_running_loop().create_future(), token, on_notification, ask)
        self._pending[identifier] = pending
        return pending

    def _call_off(self, identifier: int, on_late: Late) -> None:
        if self.child is not None:
            params = {"requestId": identifier, "reason": "no longer wanted"}
            self.child.write(notification("notifications/cancelled", params))
        self._abandoned_may_run()  # so that what is kept does not grow
        self._abandoned[identifier] = (asyncio.get_running_loop().time(), on_late)

    def _abandoned_may_run(self) -> bool:
        """Whether a call that was called off may be what the program speaks of now. Forgets those of long ago."""
        long_ago = asyncio.get_running_loop().time() - ABANDONED_S
        while self._abandoned:
            oldest = next(iter(self._abandoned))
            if self._abandoned[oldest][0] > long_ago:
                return True
            del self._abandoned[oldest]
        return False

    def _child_ended(self, why: str) -> None:
        error = self._why_lost(why)
        for pending in self._pending.values():
            _fail(pending, error)
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
        pending = self._pending.get(message["id"])
        if pending is None:
            self._count_unasked()
            if abandoned is not None:
                with suppress(BadMessage):
                    abandoned[1](answer_in(message))
        elif not pending.answer.done():
            try:
                pending.answer.set_result(answer_in(message))
            except BadMessage as error:
                _fail(pending, faults.malformed(self._spec.name, str(error)))

    def _told(self, message: dict[str, Any]) -> None:
        self._count_unasked()
        method = message["method"]
        if "id" in message:
            self._asked(message)
        elif method == LIST_CHANGED:
            self._on_changed()
        elif method == "notifications/progress":
            self._progressed(message)
        elif method in CHANGES and self.on_told is not None and self.on_told(message):
            return
        elif method != "notifications/cancelled":
            self._logged(message)

    def _asked(self, message: dict[str, Any]) -> None:
        """What the program asks of its client goes to the only call that it can be about; else nothing is offered."""
        alone = self._alone()
        if message["method"] != "ping" and alone is not None and alone.ask is not None:
            task = asyncio.create_task(self._ask_client(alone.ask, message))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        elif self.child is not None:
            self.child.write(reply_to(message))

    async def _ask_client(self, ask: Ask, message: dict[str, Any]) -> None:
        answer = await ask(message)
        if self.child is not None:
            self.child.write(answer_to(message, answer))

    def _progressed(self, message: dict[str, Any]) -> None:
        params = message.get("params")
        token = params.get("progressToken") if isinstance(params, dict) else None
        pending = self._pending.get(token) if type(token) is int else None
        if pending is not None and pending.token is not None:
            pending.tell({**message, "params": {**(params or {}), "progressToken": pending.token}})

    def _logged(self, message: dict[str, Any]) -> None:
        alone = self._alone()
        if alone is not None:
            alone.tell(message)

    def _alone(self) -> _Pending | None:
        """What names no call belongs to the only one there is; to none under `shared`, nor while one called off may run."""
        if self._spec.isolation == "shared" or len(self._pending) != 1 or self._abandoned_may_run():
            return None
        return next(iter(self._pending.values()))

    def _unreadable(self, line: bytes, error: BadMessage) -> None:
        """Fail the call that it answers, if that can be seen; a line that is none of the protocol's is passed over."""
        self._count_unasked()
        found = _ID.search(line[:_ID_NEAR_BYTES]) or _ID.search(line[-_ID_NEAR_BYTES:])
        pending = self._pending.get(int(found[1])) if found else None
        if pending is None and len(self._pending) == 1 and line.lstrip()[:1] in {b"{", b"["}:
            (pending,) = self._pending.values()
        if pending is not None:
            _fail(pending, faults.malformed(self._spec.name, str(error)))
        else:
            log.debug("upstream_noise", upstream=self._spec.name, line=line[:200].decode("utf-8", "replace"))

    def _count_unasked(self) -> None:
        """A program that writes too many lines which answer nothing is ended, so that it cannot occupy the broker."""
        if self._unasked.too_many():
            self._flooding = True
            self.kill()


async def open_session(
    spec: UpstreamSpec,
    peer: Peer,
    on_end: Callable[[StdioSession], None],
    on_changed: Callable[[], None],
    limit_s: float,
    pace: Pace | None = None,
) -> StdioSession:
    """Start the program and shake hands. Raises NotSent; then no process is left."""
    session = StdioSession(spec, on_end, on_changed, peer, pace)
    try:
        async with asyncio.timeout(limit_s):
            await session.open()
    except NotStarted as error:
        session.kill()
        raise faults.failed_to_start(spec.name, str(error)) from error
    except TimeoutError as error:
        session.kill()
        words = session.child.last_words if session.child is not None else None
        raise faults.failed_to_start(spec.name, f"no handshake within {limit_s:g} s; {words or ''}") from error
    except Exception as error:
        session.kill()
        detail = getattr(error, "detail", None) or str(error)
        raise faults.failed_to_start(spec.name, detail) from error
    except BaseException:
        session.kill()
        raise
    return session


def _own_token(params: dict[str, Any], identifier: int) -> tuple[dict[str, Any], int | str | None]:
    token = progress_token(params)
    if token is None:
        return params, None
    return {**params, "_meta": {**params["_meta"], "progressToken": identifier}}, token


def _fail(pending: _Pending, error: Exception) -> None:
    if not pending.answer.done():
        pending.answer.set_exception(error)
        pending.answer.exception()  # whoever waited may have been cancelled in the same moment
