"""One request to the broker and everything that comes back for it, passed on as it comes.

Owns the session of the handshake era and what is known of the tools, because both decide the headers of a request.
A request is sent a second time only where the broker has said that the first one did nothing, or where the request has an
idempotency key, with which the broker carries it out once however often it comes.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from haltline_client.errors import BrokerUnreachable
from haltline_client.stdio import words
from haltline_client.stdio.endpoint import EVENT_STREAM, answers, own_id
from haltline_client.stdio.events import TooLarge, events, whole
from haltline_client.stdio.headers import Tools, encoded, routing
from haltline_client.stdio.messages import Message, line, parse
from haltline_client.stdio.pipes import HostGone
from haltline_client.stdio.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from haltline_client.stdio.endpoint import Endpoint
    from haltline_client.stdio.events import Room
    from haltline_client.stdio.http import Reply

__all__ = ["Carrier", "Running"]

TRAILING_S = 0.5
"""A stream may go on after the answer it was for; longer than this nobody listens."""
LIST_PAGES_MAX = 100
HEADER_MISMATCH = -32020
META_PREFIX = "io.modelcontextprotocol/"
Again = Literal["session", "headers", "running"]
AGAIN_AFTER_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How long to wait before each further try of a request with an idempotency key whose answer was lost."""


class Running:
    """A request that waits for its answer. `free` is called when its id may be used again."""

    def __init__(self, message: Message, free: Callable[[Running], None]) -> None:
        assert message.id is not None
        self.message = message
        self.key = (type(message.id), message.id)
        self.sent = asyncio.Event()
        self.answered = False
        self.cancelled = False
        """The host does not wait for it any more."""
        self.task: asyncio.Task[None] | None = None
        self._free = free

    def free(self) -> None:
        self._free(self)


class Carrier:
    """`write` takes one line for the host and raises HostGone."""

    def __init__(self, endpoint: Endpoint, write: Callable[[bytes], Awaitable[None]], notes: words.Notes) -> None:
        self.session = Session(endpoint, self._from_standing_stream)
        self.url = endpoint.url
        self.tell = endpoint.tell
        self._endpoint = endpoint
        self._write = write
        self._notes = notes
        self._tools = Tools()
        self._listing = asyncio.Lock()

    async def carry(self, running: Running) -> None:
        """Send it and pass on what comes; again where the first certainly did nothing, or cannot be carried out twice."""
        lost = False
        for wait_s in AGAIN_AFTER_S if running.message.key is not None else ():
            try:
                if await self._carry(running, await_end=lost) != "running":
                    return
            except BrokerUnreachable as error:
                if running.answered or not (lost or error.sent):
                    raise
                self._notes.say(f"the answer to a call was lost ({error.message}); it is asked for again by its key.")
            lost = True
            await asyncio.sleep(wait_s)
            if running.cancelled:
                return
        try:
            await self._carry(running)
        except BrokerUnreachable as error:
            raise BrokerUnreachable(error.message, sent=lost or error.sent) from error

    async def _carry(self, running: Running, *, await_end: bool = False) -> Again | None:
        """`await_end`: return instead of passing on that its first sending still runs."""
        used = self.session.id
        again = await self._attempt(running, last=False, await_end=await_end)
        if again == "session":
            self._notes.say("the MCP session with Haltline had ended; it is opened again.")
            await self._before_sending(self.session.renew(used))
        if again is None or again == "running":
            return again
        return await self._attempt(running, last=True, await_end=await_end)

    async def _attempt(self, running: Running, *, last: bool, await_end: bool) -> Again | None:
        message = running.message
        headers = await self._headers(message)
        in_session = "Mcp-Session-Id" in headers
        with self._endpoint.room() as room:
            async with self._endpoint.exchange("POST", headers, message.raw, sent=running.sent.set) as reply:
                if reply.headers.get("content-type", "").startswith(EVENT_STREAM):
                    await self._stream(running, reply, room)
                    return None
                body = await whole(reply.chunks(), room)
                if reply.status == 404 and in_session and not last:
                    return "session"
                answer = _json(body)
                if answers(answer, message.id):
                    if not last and await self._other_headers(message, answer, headers):
                        return "headers"
                    if await_end and _still_runs(answer):
                        return "running"
                    self._answered(running, answer, reply)
                    del answer
                    await self._write(line(body))
                    return None
                if reply.status == 404 and in_session:
                    raise words.ended()
                if isinstance(answer, dict) and answer.get("id") is None and isinstance(answer.get("error"), dict):
                    self._answered(running, answer, reply)
                    await self._write(words.error(message, answer["error"]))
                    return None
                raise words.not_mcp(reply.status, _said(answer, body), self._endpoint.url)

    async def _stream(self, running: Running, reply: Reply, room: Room) -> None:
        trailing = asyncio.timeout(None)
        try:
            async with trailing:
                async for event in events(reply.chunks(), room):
                    if event.data and trailing.when() is None and self._looked_at(running, event.data, reply):
                        await self._write(line(event.data))
                    if running.answered and trailing.when() is None:
                        trailing.reschedule(asyncio.get_running_loop().time() + TRAILING_S)
        except (TimeoutError, OSError, EOFError, ValueError):
            if not running.answered:
                raise
        if not running.answered:
            raise BrokerUnreachable("the connection broke", sent=True)

    def _looked_at(self, running: Running, text: bytes, reply: Reply) -> bool:
        """Steer by an event; whether it is for the host. What was parsed is not kept while the host takes its time."""
        value = _json(text)
        if not answers(value, running.message.id):
            return self._is_message(value)
        self._answered(running, value, reply)
        return True

    def _answered(self, running: Running, answer: dict[str, Any], reply: Reply) -> None:
        message, result = running.message, answer.get("result")
        if isinstance(result, dict) and message.method == "tools/list":
            if "cursor" not in message.params:
                self._tools.forget()
            self._tools.learn(result)
        if isinstance(result, dict) and message.method == "initialize":
            self.session.agreed(message, result, reply.headers)
        if isinstance(result, dict) and message.version is None:
            self.session.kept.note(message)
        running.answered = True
        running.free()

    async def _from_standing_stream(self, text: bytes) -> None:
        if self._is_message(_json(text)):
            with suppress(HostGone):
                await self._write(line(text))

    def _is_message(self, value: Any) -> bool:
        """Whether it is a notification or a request of the broker."""
        if not isinstance(value, dict):
            self._notes.say("Haltline sent an event that is not JSON-RPC; it was not passed on.")
            return False
        if value.get("method") == "notifications/tools/list_changed":
            self._tools.forget()
        return True

    # headers

    async def _headers(self, message: Message) -> Mapping[str, str]:
        if message.version is None:
            return {} if message.method == "initialize" else self.session.headers()
        name, arguments = message.params.get("name"), message.params.get("arguments")
        if (
            message.method != "tools/call"
            or not isinstance(name, str)
            or not isinstance(arguments, dict)
            or not arguments
        ):
            return routing(message)
        mirrored = self._tools.headers(name, arguments)
        if mirrored is None:
            await self._list(message)
            mirrored = self._tools.headers(name, arguments)
        return {**routing(message), **(mirrored or {})}

    async def _other_headers(self, message: Message, answer: dict[str, Any], used: Mapping[str, str]) -> bool:
        """Whether the broker found the headers wrong, and listing again gave others: then nothing has run."""
        error = answer.get("error")
        if message.version is None or not isinstance(error, dict) or error.get("code") != HEADER_MISMATCH:
            return False
        await self._list(message, anew=True)
        return await self._headers(message) != used

    async def _list(self, message: Message, *, anew: bool = False) -> None:
        """Learn the tools for this call, which has not been sent."""
        name = message.params["name"]
        async with self._listing:
            if anew or self._tools.headers(name, {}) is None:
                await self._before_sending(self._list_pages(message))
                self._tools.unknown(name)

    async def _list_pages(self, message: Message) -> None:
        envelope = {
            key: value for key, value in message.params["_meta"].items() if key.startswith("io.modelcontextprotocol/")
        }
        cursor: dict[str, str] = {}
        headers = {"MCP-Protocol-Version": encoded(message.version or ""), "Mcp-Method": "tools/list"}
        for _ in range(LIST_PAGES_MAX):
            identifier = own_id("list")
            asking = {
                "jsonrpc": "2.0",
                "id": identifier,
                "method": "tools/list",
                "params": {"_meta": envelope, **cursor},
            }
            asked = await self._endpoint.ask(json.dumps(asking).encode(), identifier, headers)
            result = (asked.answer or {}).get("result")
            if not isinstance(result, dict):
                return
            self._tools.learn(result)
            if not isinstance(result.get("nextCursor"), str):
                return
            cursor = {"cursor": result["nextCursor"]}

    @staticmethod
    async def _before_sending(asking: Coroutine[Any, Any, None]) -> None:
        try:
            await asking
        except BrokerUnreachable as error:
            raise BrokerUnreachable(error.message) from error  # the host's own request was not sent
        except TooLarge:
            return


def _json(text: bytes) -> Any:
    try:
        return parse(text)
    except ValueError:
        return None


def _still_runs(answer: Mapping[str, Any]) -> bool:
    """Whether the broker refused a retry because what it repeats has not ended."""
    result, error = answer.get("result"), answer.get("error")
    told = result.get("_meta") if isinstance(result, dict) else error.get("data") if isinstance(error, dict) else None
    refused = told.get(words.META_KEY) if isinstance(told, dict) else None
    reasons = refused.get("reasons") if isinstance(refused, dict) else None
    return isinstance(reasons, list) and bool(reasons) and reasons[0].get("code") == "call.running"


def _said(answer: Any, body: bytes) -> str:
    """What a reply that is no answer says, for a sentence."""
    error = answer.get("error") if isinstance(answer, dict) else None
    told = error.get("message") if isinstance(error, dict) else None
    return told if isinstance(told, str) else body[:1_000].decode("utf-8", "replace")
