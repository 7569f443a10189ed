"""One JSON-RPC request over HTTP and what comes back for it: a JSON body or a stream of events, read as it arrives.

Owns the bounds on an answer (bytes of one message, messages and bytes of one stream) and which HTTP answers count as one.
Knows neither eras nor sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from haltline.upstreams import faults
from haltline.upstreams.http_wire import Connection, Lost, NoConnection, Pool, Receiver
from haltline.upstreams.messages import BadMessage, answer_in, read
from haltline.upstreams.pace import Unasked
from haltline.upstreams.sse import EventReader, EventTooLarge

__all__ = ["Awaited", "Paused", "Reply", "exchange"]

MAX_STREAM_SPARE_BYTES = 1024 * 1024
MAX_STREAM_TIMES = 4
"""A stream with all its notifications may be so many times as long as one answer."""
CONNECT_ATTEMPTS = 3
MAX_ERROR_BYTES = 64 * 1024
"""Of the body of an HTTP error status: room for a JSON-RPC error."""


Answer = TypeVar("Answer")


class Awaited(Receiver, Protocol[Answer]):
    """A receiver whose answer is waited for. `answered`: it was whole before its body ended."""

    answer: asyncio.Future[Answer]
    answered: bool

    def fail(self, error: Exception) -> None: ...


class Paused(Exception):
    """The stream ended before its answer, after events that say where it can be taken up again."""

    def __init__(self, last_id: str, retry_ms: int | None) -> None:
        super().__init__(last_id)
        self.last_id = last_id
        self.retry_ms = retry_ms


class Reply:
    """The receiver of one answer; `answer` ends with `{"result"}`, `{"error"}` or an UpstreamError.

    For a notification (`request_id` None) any success status ends it, with an empty object. `resumable`: its stream may
    end early and be taken up again, then `answer` ends with Paused.
    """

    def __init__(
        self, name: str, request_id: int | None, max_bytes: int, on_message: Callable[[dict[str, Any]], None]
    ) -> None:
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self._name = name
        self._id = request_id
        self._max = max_bytes
        self._on_message = on_message
        self._events: EventReader | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._unasked = Unasked()
        self._last_id: str | None = None
        self.answered = False
        self.resumable = False

    def goes_on(self, error: Exception, most_bytes: int) -> bool:
        """Whoever waits is told `error`; the answer, if it comes, is another future's. False where too much has come."""
        if self.answer.done() or self._size > most_bytes:
            return False
        told, self.answer = self.answer, asyncio.get_running_loop().create_future()
        self._max, self._on_message, self.resumable = min(self._max, most_bytes), _pass_over, False
        told.set_exception(error)
        told.exception()  # whoever waited may have been cancelled in the same moment
        return True

    def again(self) -> Reply:
        """For the rest of a stream that paused. The bounds hold for all of it together."""
        rest = Reply(self._name, self._id, self._max, self._on_message)
        rest.resumable, rest._size, rest._unasked = True, self._size, self._unasked
        rest._last_id = self._last_id
        return rest

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever waited may have been cancelled in the same moment
            self._chunks.clear()  # now, not when the interpreter finds that nobody needs it
            if self._events is not None:
                self._events.clear()

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self.status, self.headers = status, headers
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        length = headers.get(b"content-length", b"0")
        if status >= 300:
            self._max = min(self._max, MAX_ERROR_BYTES)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self.fail(faults.malformed(self._name, "it is compressed although that was not asked for"))
        elif 300 <= status < 400:
            self.fail(faults.http_error(self._name, status))
        elif self._id is None and status < 300:
            self._settle({})
        elif status < 300 and kind == b"text/event-stream":
            self._events = EventReader(self._max)
        elif status < 300 and kind != b"application/json":
            self.fail(faults.malformed(self._name, "neither JSON nor a stream of events"))
        elif length.isdigit() and (len(length) > 18 or int(length) > self._max):
            self._overflow()

    def body(self, data: bytes) -> None:
        if self.answer.done():
            return
        self._size += len(data)
        if self._events is not None:
            self._stream(self._events, data)
        elif self._size > self._max:
            self._overflow()
        else:
            self._chunks.append(data)

    def done(self) -> None:
        if self.answer.done():
            return
        if self._events is not None:
            self._broke_off(faults.lost(self._name, "the stream ended without an answer"))
            return
        try:
            self._take(read(b"".join(self._chunks)))
        except BadMessage as error:
            if self.status < 300:
                self.fail(faults.malformed(self._name, str(error)))
        if self.status >= 300:
            self.fail(faults.http_error(self._name, self.status))
        self.fail(faults.malformed(self._name, "it does not belong to the request"))

    def lost(self, error: Exception) -> None:
        if isinstance(error, Lost):
            self._broke_off(faults.lost(self._name, str(error)))
        else:
            self.fail(error)

    def _broke_off(self, error: Exception) -> None:
        if self._events is not None:
            self._last_id = self._events.last_id or self._last_id
        if self.resumable and self._events is not None and self._last_id is not None:
            error = Paused(self._last_id, self._events.retry_ms)
        self.fail(error)

    def _overflow(self) -> None:
        if self.status >= 300:
            self.fail(faults.http_error(self._name, self.status))
        else:
            self.fail(faults.too_large(self._name, self._max))

    def _stream(self, events: EventReader, data: bytes) -> None:
        if self._size > MAX_STREAM_TIMES * self._max + MAX_STREAM_SPARE_BYTES:
            self._overflow()
            return
        try:
            for event in events.feed(data):
                self._take(read(event))
                if self.answer.done():
                    return
        except EventTooLarge:
            self._overflow()
        except BadMessage as error:
            self.fail(faults.malformed(self._name, str(error)))

    def _take(self, value: Any) -> None:
        """One message, or a batch of them as one revision had it; what is neither is passed over."""
        for message in value if isinstance(value, list) else (value,):
            if not isinstance(message, dict) or self.answer.done():
                continue
            if self._unasked.too_many():
                self.fail(faults.too_talkative(self._name))
            elif "method" in message:
                self._on_message(message)
            elif type(message.get("id")) is int and message["id"] == self._id:
                self._settle(answer_in(message))

    def _settle(self, answer: dict[str, Any]) -> None:
        if not self.answer.done():
            self.answered = True
            self.answer.set_result(answer)


def _pass_over(message: dict[str, Any]) -> None:
    del message


async def exchange(
    pool: Pool,
    data: bytes,
    reply: Awaited[Answer],
    *,
    before_send: Callable[[], None],
    ready_by: float,
    overdue: tuple[float, Exception],
    late: Callable[[Connection], bool] | None = None,
) -> Answer:
    """Send one request once and wait for its answer until the loop time in `overdue`, when it ends with that error.

    Raises NoConnection while nothing was sent (by the loop time `ready_by` at the latest), what `before_send` raises, or
    what the reply ends with. When cancelled, the connection is closed at once. `late` may take it over at the deadline,
    with the reply: then it has told whoever waits.
    """
    connection = await _sent(pool, data, reply, before_send, ready_by)
    waited = reply.answer

    def give_up() -> None:
        if late is None or not late(connection):
            reply.fail(overdue[1])

    timer = asyncio.get_running_loop().call_at(overdue[0], give_up)
    try:
        return await waited
    finally:
        timer.cancel()
        if reply.answer is waited:
            pool.release(connection, answered=reply.answered)


async def _sent(
    pool: Pool, data: bytes, reply: Receiver, before_send: Callable[[], None], ready_by: float
) -> Connection:
    for attempt in range(CONNECT_ATTEMPTS):
        connection = await pool.connection(ready_by)
        try:
            connection.send(data, reply, before_send)
        except NoConnection:
            pool.release(connection)
            if attempt + 1 == CONNECT_ATTEMPTS:
                raise
        except BaseException:
            pool.release(connection)
            raise
        else:
            return connection
    raise NoConnection("every connection was closed at once")
