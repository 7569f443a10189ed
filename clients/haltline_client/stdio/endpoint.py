"""The broker's side: one MCP endpoint over streamable HTTP with one credential, in whichever era a message is.

Owns what every request carries, and the bridge's own questions. Turns a refused credential into words; decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from haltline_client.errors import BrokerUnreachable
from haltline_client.stdio import words
from haltline_client.stdio.events import Room, events, whole
from haltline_client.stdio.messages import parse
from haltline_client.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from haltline_client.stdio.http import Http, Reply

__all__ = ["EVENT_STREAM", "OWN_TIMEOUT_S", "Asked", "Endpoint", "answers", "own_id"]

EVENT_STREAM = "text/event-stream"
OWN_TIMEOUT_S = 10.0
"""For what the bridge asks itself; how long a host waits for its own requests is the host's matter."""
LARGE_AT_ONCE = 2


class Asked(NamedTuple):
    """The answer to the bridge's own question; `answer` is None when there was none in the reply."""

    status: int
    answer: dict[str, Any] | None
    headers: Mapping[str, str]


class Endpoint:
    """`credential` says in words which one it is."""

    def __init__(self, http: Http, token: str, credential: str) -> None:
        self.url = http.where.url
        self._http = http
        self._token = token
        self._credential = credential
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    def room(self) -> Room:
        return Room(self._large)

    @asynccontextmanager
    async def exchange(
        self,
        verb: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        sent: Callable[[], None] | None = None,
        behind: bool = False,
    ) -> AsyncIterator[Reply]:
        """Raises BrokerUnreachable, and Trouble when the credential is refused."""
        common = {
            "User-Agent": f"haltline-stdio/{__version__}",
            "Authorization": f"Bearer {self._token}",
            "Accept": f"application/json, {EVENT_STREAM}" if verb == "POST" else EVENT_STREAM,
        }
        if body:
            common["Content-Type"] = "application/json"
        async with self._http.exchange(verb, {**common, **headers}, body, sent=sent, behind=behind) as reply:
            if reply.status == 401:
                with self.room() as room:
                    raise self._dead(await whole(reply.chunks(), room))
            yield reply

    async def ask(self, body: bytes, identifier: int | str, headers: Mapping[str, str]) -> Asked:
        """A question of the bridge itself. Raises BrokerUnreachable or Trouble."""
        try:
            async with (
                asyncio.timeout(OWN_TIMEOUT_S),
                self.exchange("POST", headers, body) as reply,
            ):
                with self.room() as room:
                    return Asked(reply.status, await _answer(reply, identifier, room), reply.headers)
        except TimeoutError as error:
            raise BrokerUnreachable(f"no answer within {OWN_TIMEOUT_S:g} s", sent=True) from error

    async def tell(self, body: bytes, headers: Mapping[str, str], *, verb: str = "POST", behind: bool = False) -> int:
        """The status that a message without an answer gets. Raises BrokerUnreachable or Trouble."""
        try:
            async with (
                asyncio.timeout(OWN_TIMEOUT_S),
                self.exchange(verb, headers, body, behind=behind) as reply,
            ):
                with self.room() as room:
                    await whole(reply.chunks(), room)
                return reply.status
        except TimeoutError as error:
            raise BrokerUnreachable(f"no answer within {OWN_TIMEOUT_S:g} s", sent=True) from error

    def close(self) -> None:
        self._http.close()

    def _dead(self, body: bytes) -> words.Trouble:
        try:
            said = parse(body)
        except ValueError:
            said = {}
        found = said if isinstance(said, dict) else {}
        code, text = found.get("error"), found.get("error_description")
        return words.dead(
            code if isinstance(code, str) else "", text if isinstance(text, str) else "", self._credential
        )


def answers(value: Any, identifier: int | str | None) -> bool:
    """Whether this is the response to that request. An id 1 is not an id "1"."""
    found = value.get("id") if isinstance(value, dict) else None
    matches = found == identifier and type(found) is type(identifier) and "method" not in value
    return matches and ("result" in value or "error" in value)


async def _answer(reply: Reply, identifier: int | str, room: Room) -> dict[str, Any] | None:
    if not reply.headers.get("content-type", "").startswith(EVENT_STREAM):
        return _response(await whole(reply.chunks(), room), identifier)
    async for event in events(reply.chunks(), room):
        found = _response(event.data, identifier)
        if found is not None:
            return found
    return None


def _response(text: bytes, identifier: int | str) -> dict[str, Any] | None:
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if answers(value, identifier) else None


def own_id(about: str) -> str:
    """An id that no host uses."""
    return f"haltline-stdio-{about}-{time.monotonic_ns()}"
