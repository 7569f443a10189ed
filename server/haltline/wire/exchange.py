"""One request on its way: what was asked, by which token, and every way to answer it or to ask its client something back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from haltline.wire import messages
from haltline.wire.conversations import Question
from haltline.wire.eras import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    IDEMPOTENCY_KEY,
    KEYED_METHODS,
    LISTEN_STREAM_METHODS,
    LOG_LEVEL,
    LOG_LEVELS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.wire.conversations import Conversation
    from haltline.wire.messages import Answer, Message
    from haltline.wire.reply import Reply

__all__ = ["Exchange"]


class Exchange:
    """`conversation` is the handshake-era session it belongs to; None at 2026-07-28 and without a session."""

    def __init__(
        self,
        message: Message,
        reply: Reply,
        *,
        headers: dict[str, str],
        modern: bool,
        token: str | None,
        source: str,
    ) -> None:
        assert message.id is not None
        assert message.method is not None
        self.id = message.id
        self.method = message.method
        self.params = message.params
        self.reply = reply
        self.headers = headers
        self.modern = modern
        self.token = token
        self.source = source
        """The peer's address."""
        self.session_key = "" if modern else headers.get("mcp-session-id", "")
        """The MCP session of the handshake era, verified; empty at 2026-07-28."""
        self.conversation: Conversation | None = None
        self.on_cancel: Callable[[], None] | None = None
        """Set by the face: called when the caller cancels, or, at 2026-07-28 and without an idempotency key, goes away."""
        self._questions: list[Question] = []

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What its client said it can do."""
        if self.modern:
            return _mapping(self._meta.get(CLIENT_CAPABILITIES)) or {}
        return {} if self.conversation is None else self.conversation.capabilities

    @property
    def client_info(self) -> Mapping[str, Any] | None:
        if self.modern:
            return _mapping(self._meta.get(CLIENT_INFO))
        return None if self.conversation is None else self.conversation.info

    @property
    def log_level(self) -> str | None:
        """From which level on its client wants to hear: as set for the session, at 2026-07-28 as this request says."""
        if self.modern:
            level = self._meta.get(LOG_LEVEL)
            return level if level in LOG_LEVELS else None
        return None if self.conversation is None else self.conversation.log_level

    @property
    def _meta(self) -> Mapping[str, Any]:
        return _mapping(self.params.get("_meta")) or {}

    @property
    def idempotency_key(self) -> str | None:
        key = self._meta.get(IDEMPOTENCY_KEY) if self.method in KEYED_METHODS else None
        return key if isinstance(key, str) else None

    def notify(self, message: dict[str, Any]) -> None:
        if self._hears(message):
            self.reply.notify(message)

    def _hears(self, message: Mapping[str, Any]) -> bool:
        """At 2026-07-28 what changed is told on subscription streams and nowhere else, and logs to who asked for them."""
        if self.modern:
            method = message.get("method")
            return method not in LISTEN_STREAM_METHODS and (method != "notifications/message" or self._logs(message))
        return self.conversation is None or self.conversation.hears(message)

    def _logs(self, message: Mapping[str, Any]) -> bool:
        """An upstream of the other era knows one level for a session, or none."""
        wanted, said = self.log_level, (_mapping(message.get("params")) or {}).get("level")
        if wanted is None:
            return LOG_LEVEL in self._meta  # a level that only the upstream knows
        return said not in LOG_LEVELS or LOG_LEVELS.index(said) >= LOG_LEVELS.index(wanted)

    async def ask(self, message: dict[str, Any]) -> Answer:
        """Ask its client something on its own stream (elicitation, sampling, roots), and wait for the answer.

        Returns an error where its client cannot be asked, and when this request ends first.
        """
        if self.conversation is None:
            return messages.error(messages.METHOD_NOT_FOUND, "the client of this call cannot be asked anything")
        question = Question()
        self.conversation.questions[question.id] = question
        self._questions.append(question)
        if not self.reply.notify({**message, "id": question.id}):
            question.settle(messages.error(messages.METHOD_NOT_FOUND, "the client of this call takes no event stream"))
        try:
            return await question.answer()
        finally:
            self.conversation.questions.pop(question.id, None)

    def gone(self) -> None:
        """Its client has closed the connection: that cancels, unless it can come back for the answer with its key (R13)."""
        if self.idempotency_key is None:
            self.cancel()

    def cancel(self) -> None:
        if self.on_cancel is not None:
            self.on_cancel()

    def end(self) -> None:
        """It is answered, or never will be: nobody waits for its client any more, and nothing more is carried to it."""
        self.reply.end()
        for question in self._questions:
            question.settle(messages.error(messages.INTERNAL_ERROR, "the call ended before its client answered"))


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None
