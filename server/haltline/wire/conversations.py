"""What is remembered of an MCP session of the handshake era while the broker runs: what its client said of itself, which
questions it was asked, and the stream on which it hears what belongs to no request.

Keyed by the verified session id. Forgotten at a restart or when too many are open: then what the id itself says of the client
is left (`sessions`), and what was set for the session is for the face to recall.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from haltline.wire.messages import Answer

__all__ = ["OF_ONE_OWNER_MAX", "Conversation", "Conversations", "Question"]

_REMEMBERED_MAX = 10_000
OF_ONE_OWNER_MAX = 64
UPDATED = "notifications/resources/updated"
_NUMBERS = itertools.count(1)


class Question:
    """A server-to-client request that waits for its answer."""

    def __init__(self) -> None:
        self.id = f"haltline-{next(_NUMBERS)}"
        self._done = anyio.Event()
        self._answer: Answer = {}

    def settle(self, answer: Answer) -> None:
        if not self._done.is_set():
            self._answer = answer
            self._done.set()

    async def answer(self) -> Answer:
        await self._done.wait()
        return self._answer


class Conversation:
    """One session. `standing` sends on its open GET stream; None while there is none."""

    __slots__ = (
        "capabilities",
        "ended",
        "info",
        "log_level",
        "on_end",
        "questions",
        "recalled",
        "reviving",
        "standing",
        "subscriptions",
    )

    def __init__(self) -> None:
        self.capabilities: Mapping[str, Any] = {}
        self.info: Mapping[str, Any] | None = None
        self.log_level: str | None = None
        self.questions: dict[str, Question] = {}
        self.standing: Callable[[dict[str, Any]], None] | None = None
        self.subscriptions: set[str] = set()
        """URIs of the resources it wants to hear about."""
        self.on_end: Callable[[], None] | None = None
        self.ended = False
        self.recalled = False
        """What was set for it before a restart is known, or it began after that."""
        self.reviving = False

    @property
    def in_use(self) -> bool:
        """A question of it is open, or its stream."""
        return bool(self.questions) or self.standing is not None

    def introduce(self, params: Mapping[str, Any]) -> None:
        """What `initialize` says of the client."""
        capabilities, info = params.get("capabilities"), params.get("clientInfo")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        self.info = info if isinstance(info, dict) else None

    def hears(self, message: Mapping[str, Any]) -> bool:
        """Whether a notification beside a call is for it: of resources only those that it subscribed to."""
        params = message.get("params")
        uri = params.get("uri") if isinstance(params, dict) else None
        return message.get("method") != UPDATED or uri in self.subscriptions

    def end(self) -> None:
        """It is over: nobody hears of it any more."""
        self.ended = True
        self.subscriptions.clear()
        if self.on_end is not None:
            self.on_end()

    def tell(self, message: dict[str, Any]) -> None:
        if self.standing is not None:
            self.standing(message)


class Conversations:
    """`told`: what the id of a session says of its client, where nothing else is remembered of it."""

    def __init__(self, told: Callable[[str], Mapping[str, Any]] = lambda _: {}) -> None:
        self._told = told
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self._owner_of: dict[str, str] = {}
        self._owned: dict[str, OrderedDict[str, None]] = {}

    def of(self, session_id: str, owner: str = "") -> Conversation:
        """`owner`: the id of the credential that the session belongs to, where it is known; one of many ends its own."""
        known = self._known.get(session_id)
        if known is None:
            known = self._known[session_id] = Conversation()
            known.introduce(self._told(session_id))
        self._known.move_to_end(session_id)
        if owner:
            self._belongs(session_id, owner)
        if len(self._known) > _REMEMBERED_MAX:
            self.end(self._least_missed(self._known))
        return known

    def _belongs(self, session_id: str, owner: str) -> None:
        self._owner_of.setdefault(session_id, owner)  # a session never changes hands
        mine = self._owned.setdefault(self._owner_of[session_id], OrderedDict())
        mine[session_id] = None
        mine.move_to_end(session_id)
        if len(mine) > OF_ONE_OWNER_MAX:
            self.end(self._least_missed(mine))

    def _least_missed(self, oldest_first: Iterable[str]) -> str:
        """The oldest that is not in use, else the oldest; never the newest, which was just asked for."""
        ids = list(oldest_first)[:-1]
        return next((one for one in ids if not self._known[one].in_use), ids[0])

    def end(self, session_id: str) -> None:
        known = self._known.pop(session_id, None)
        owner = self._owner_of.pop(session_id, None)
        if owner is not None:
            self._owned[owner].pop(session_id, None)
            if not self._owned[owner]:
                del self._owned[owner]
        if known is not None:
            known.end()

    def __iter__(self) -> Iterator[Conversation]:
        return iter(list(self._known.values()))
