"""The names under which agents see tools: `upstream__tool`, of `[A-Za-z0-9_-]`, at most 64 characters.

A name that does not fit is cut and mapped to these characters, and ends in the first eight hex digits of the SHA-256 of the
whole: the same tool always gets the same name, and two that look alike get two.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["MAX_NAME", "SEPARATOR", "tool_name"]

MAX_NAME = 64
SEPARATOR = "__"
_DIGEST = 8
_PLAIN = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}")
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def tool_name(prefix: str, own: str) -> str:
    """`prefix` may be empty; then the tool keeps its own name where that fits."""
    whole = f"{prefix}{SEPARATOR}{own}" if prefix else own
    if _PLAIN.fullmatch(whole):
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST]
    return f"{_OTHER.sub('_', whole)[: MAX_NAME - _DIGEST - 1]}_{digest}"
