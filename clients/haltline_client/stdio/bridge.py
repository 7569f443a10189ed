"""The control flow of the bridge: what becomes of each line of the host, and of each answer of the broker.

Messages pass as the bytes they are. Requests run side by side; a request ends with exactly one answer unless the host
cancelled it. Nothing that goes wrong with one of them ends the bridge.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from haltline_client.errors import BrokerUnreachable
from haltline_client.stdio import words
from haltline_client.stdio.carrier import Carrier, Running
from haltline_client.stdio.events import MAX_ANSWER_BYTES, TooLarge
from haltline_client.stdio.headers import routing
from haltline_client.stdio.messages import IDEMPOTENCY_KEY, INVALID_REQUEST, VERSION_KEY, Message, Unreadable, read
from haltline_client.stdio.pipes import MAX_LINE_BYTES, HostGone, Pipes, TooLong

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from haltline_client.stdio.endpoint import Endpoint

__all__ = ["Bridge"]

REQUESTS_MAX = 256
TASKS_MAX = 512
"""Requests are answered as too many before; then reading the host waits. What is not a request ends by itself in time."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""All lines of the host that are still being worked on, beyond which requests are refused; reading waits at twice this."""
LEAVE_S = 0.5
CANCELLED_S = 30.0
"""How long a cancelled request may still be answered, as it may be in the handshake era."""


class Bridge:
    """`endpoint`: where requests go, or why nothing can be sent at all; every request is then answered with that."""

    def __init__(self, pipes: Pipes, endpoint: Endpoint | words.Trouble, notes: words.Notes) -> None:
        self._pipes = pipes
        self._notes = notes
        self._endpoint = endpoint
        self._carrier = None if isinstance(endpoint, words.Trouble) else Carrier(endpoint, self._write, notes)
        self._in_flight: dict[tuple[type, int | str], Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        self._notices = asyncio.Lock()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        """Until the host closes its end, is gone, or `stop` is called; then leave within a second."""
        reading = asyncio.ensure_future(self._read())
        stopped = asyncio.ensure_future(self._stopped.wait())
        await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        stopped.cancel()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._leave()
        except (TimeoutError, BrokerUnreachable, words.Trouble):
            pass
        for task in list(self._tasks):
            task.cancel()
        ends = await asyncio.gather(reading, stopped, *self._tasks, return_exceptions=True)
        if isinstance(ends[0], Exception) and not isinstance(ends[0], HostGone):
            raise ends[0]

    async def _leave(self) -> None:
        """Tell the broker what nobody waits for any more. At 2026-07-28 closing the connections says it."""
        if self._carrier is None:
            return
        cancels = []
        for running in list(self._in_flight.values()):
            message = running.message
            if message.key is not None:
                continue  # it goes on: whoever comes back with its key gets the answer
            if message.version is None and message.method != "initialize":
                params = {"requestId": message.id, "reason": "the host has ended"}
                notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
                told = self._carrier.tell(json.dumps(notice).encode(), self._carrier.session.headers(), behind=True)
                cancels.append(told)
            elif running.task is not None:
                running.task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S / 2):
                await asyncio.gather(*cancels, return_exceptions=True)
        await self._carrier.session.leave()

    # from the host

    async def _read(self) -> None:
        async for raw in self._pipes.lines():
            while len(self._tasks) >= TASKS_MAX or self._waiting_bytes > 2 * WAITING_BYTES_MAX:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if isinstance(raw, TooLong):
                size = MAX_LINE_BYTES // (1024 * 1024)
                await self._reject(Unreadable(INVALID_REQUEST, f"this line is longer than {size} MiB"))
                continue
            message = read(raw)
            if isinstance(message, Unreadable):
                await self._reject(message)
            elif message.id is not None and message.method is not None:
                await self._request(message)
            elif message.method == "notifications/initialized":
                await self._told(self._initialized(message))  # before any later request
            elif message.method == "notifications/cancelled":
                self._cancelled(message)
            else:
                self._start(self._told(self._tell(message)), len(raw))

    async def _reject(self, wrong: Unreadable) -> None:
        self._notes.say(f"the host sent something that was not passed on: {wrong.text}")
        await self._write(words.unreadable(wrong))

    async def _request(self, message: Message) -> None:
        running = Running(message, self._forget)
        if self._carrier is None:
            assert isinstance(self._endpoint, words.Trouble)
            await self._write(words.failed(message, self._endpoint))
        elif running.key in self._in_flight:
            text = f"request id {json.dumps(message.id)[:80]} is still being answered; use a new one"
            await self._write(words.unreadable(Unreadable(INVALID_REQUEST, text, message.id)))
        elif len(self._tasks) >= REQUESTS_MAX or self._waiting_bytes > WAITING_BYTES_MAX:
            await self._write(words.failed(message, words.busy()))
        else:
            self._in_flight[running.key] = running
            running.task = self._start(self._work(self._carrier, running), len(message.raw))
            running.task.add_done_callback(lambda _: self._forget(running))

    def _cancelled(self, notice: Message) -> None:
        wanted = notice.params.get("requestId")
        running = self._in_flight.get((type(wanted), wanted)) if isinstance(wanted, int | str) else None
        if running is None:
            return
        running.cancelled = True
        if running.message.version is not None:
            self._forget(running)
            if running.message.key is not None and running.sent.is_set():
                self._start(self._told(self._cancel_by_key(running, notice)), len(notice.raw))
            elif running.task is not None:
                running.task.cancel()
        else:
            self._start(self._told(self._cancel_when_sent(running, notice)), len(notice.raw))

    async def _cancel_when_sent(self, running: Running, notice: Message) -> None:
        # On another connection it could arrive before what it cancels.
        await running.sent.wait()
        await self._tell_now(notice, behind=True)
        if running.task is not None:
            await asyncio.wait({running.task}, timeout=CANCELLED_S)
            running.task.cancel()

    async def _cancel_by_key(self, running: Running, notice: Message) -> None:
        """With an idempotency key, closing the connection would not cancel it."""
        meta = {VERSION_KEY: running.message.version, IDEMPOTENCY_KEY: running.message.key}
        told = {"jsonrpc": "2.0", "method": notice.method, "params": {**notice.params, "_meta": meta}}
        try:
            named = read(json.dumps(told).encode())
            assert isinstance(named, Message)
            await self._tell_now(named, behind=True)
        finally:
            if running.task is not None:
                running.task.cancel()

    async def _initialized(self, message: Message) -> None:
        if self._carrier is not None:
            await self._carrier.session.initialized(message.raw)

    async def _tell(self, message: Message) -> None:
        if message.method is None:
            await self._tell_now(message)
            return
        async with self._notices:  # notifications in their order
            await self._tell_now(message)

    async def _tell_now(self, message: Message, *, behind: bool = False) -> None:
        if self._carrier is None:
            return
        headers = self._carrier.session.headers() if message.version is None else routing(message)
        status = await self._carrier.tell(message.raw, headers, behind=behind)
        if status >= 400:
            self._notes.say(f"Haltline did not take {message.method or 'an answer'} of the host (HTTP {status}).")

    async def _told(self, telling: Coroutine[Any, Any, None]) -> None:
        """What has no answer can only fail with a note."""
        try:
            await telling
        except BrokerUnreachable as error:
            assert self._carrier is not None
            self._notes.say(words.unreachable(error, self._carrier.url).text)
        except words.Trouble as trouble:
            self._notes.say(trouble.text)

    # a request

    async def _work(self, carrier: Carrier, running: Running) -> None:
        trouble = None
        try:
            await carrier.carry(running)
        except BrokerUnreachable as error:
            trouble = words.unreachable(error, carrier.url, keyed=running.message.key is not None)
        except TooLarge:
            trouble = words.too_large(MAX_ANSWER_BYTES)
        except words.Trouble as found:
            trouble = found
        except HostGone:
            return
        except Exception as error:  # noqa: BLE001 - the boundary of one request: its host must get an answer
            trouble = words.Trouble("bridge.failed", f"the bridge failed: {words.shown(repr(error))}.", ran=True)
        finally:
            running.sent.set()
        if trouble is not None and not running.answered and not running.cancelled:
            self._notes.say(trouble.text)
            await self._write(words.failed(running.message, trouble))

    # to the host

    async def _write(self, text: bytes) -> None:
        try:
            await self._pipes.write(text)
        except HostGone:
            self.stop()
            raise

    def _start(self, work: Coroutine[Any, Any, None], size: int) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        self._waiting_bytes += size
        task.add_done_callback(lambda done: self._ended(done, size))
        return task

    def _ended(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._waiting_bytes -= size
        if not task.cancelled() and not isinstance(task.exception(), HostGone | None):
            self._notes.say(f"a message could not be passed on: {words.shown(repr(task.exception()))}.")

    def _forget(self, running: Running) -> None:
        """Its id is free again."""
        if self._in_flight.get(running.key) is running:
            del self._in_flight[running.key]
