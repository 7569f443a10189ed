"""Text from outside that may stand in a line read by a person: every character that acts instead of showing is written out.

A task's or a tool's name must not be able to forge a line, turn one around (bidirectional controls) or move a cursor.
"""

from __future__ import annotations

import unicodedata

__all__ = ["clipped", "visible"]

_ACTING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, formats (bidirectional, zero width), lone surrogates, private and unassigned, line and paragraph separators."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""One line of characters that show; the rest as `\n`, `\u202e`. Applied twice it changes nothing more."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(char) if unicodedata.category(char) in _ACTING else char for char in text)


def clipped(text: str, longest: int) -> str:
    """At most `longest` characters, the last of them `…` where something was cut."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _written_out(char: str) -> str:
    code = ord(char)
    return _SHORT.get(char) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
