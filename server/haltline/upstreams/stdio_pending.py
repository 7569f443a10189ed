"""A request to a program that waits for its answer, and who hears what comes beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

__all__ = ["Ask", "Late", "Pending", "may_ask"]

_ASKING = frozenset({"tools/call", "prompts/get", "resources/read"})
Late = Callable[[dict[str, Any]], None]
Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = structlog.get_logger(__name__)


def may_ask(method: str) -> bool:
    """Whether what carries it out may ask its client something (2026-07-28 names these; no list or completion does)."""
    return method in _ASKING


class Pending:
    """`token`: the caller's own progress token. `ask`: how its client is asked something. `asking`: as `may_ask` says."""

    __slots__ = ("_on_notification", "answer", "ask", "asked", "asking", "token")

    def __init__(
        self,
        token: int | str | None = None,
        on_notification: Callable[[dict[str, Any]], None] | None = None,
        ask: Ask | None = None,
        *,
        asking: bool = False,
    ) -> None:
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.token = token
        self._on_notification = on_notification
        self.ask = ask
        self.asking = asking
        self.asked = 0
        """Questions that its client has not answered yet."""

    def tell(self, message: dict[str, Any]) -> None:
        if self._on_notification is None or self.answer.done():
            return
        try:
            self._on_notification(message)
        except Exception as error:  # its listener broke: this call ends with that, the others go on
            log.exception("notification_not_taken")
            self.fail(error)

    def settle(self, answer: dict[str, Any]) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever waited may have been cancelled in the same moment
