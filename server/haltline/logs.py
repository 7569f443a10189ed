"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere. Values are redacted (P9)."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

import structlog

from haltline.redact import Redactor

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["configure"]


def configure(level: str = "info") -> None:
    """Once, at the start of a process that serves."""
    terminal = sys.stderr.isatty()
    redactor = Redactor()

    def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {key: redactor.text(value) if isinstance(value, str) else value for key, value in event.items()}

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Kept(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


class _Kept(io.TextIOBase):
    """A stream whose failing is nobody's failure: with a full disk or a closed pipe lines are lost, and nothing else is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
