"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere. Values are redacted (P9)."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
