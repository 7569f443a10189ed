"""Answers that came after their call was given up, until they are recorded (R10). Knows no store."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.calls.call import Admitted

__all__ = ["Late", "LateAnswers"]

WAITING_MAX = 1_000
WHOLE_MAX = 32
"""While more than these wait, further ones are recorded without what they said: an answer may be megabytes."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Late:
    call: str
    admitted: Admitted
    answer: Mapping[str, Any]
    whole: bool


class LateAnswers:
    """What waits to be recorded. On the event loop alone."""

    def __init__(self) -> None:
        self.waiting: deque[Late] = deque()
        self.came = anyio.Event()

    def add(self, call: str, admitted: Admitted, answer: Mapping[str, Any]) -> None:
        if len(self.waiting) >= WAITING_MAX:
            log.warning("late_answer_dropped", call=call, upstream=admitted.tool.upstream)
            return
        self.waiting.append(Late(call, admitted, answer, len(self.waiting) < WHOLE_MAX))
        self.came.set()
