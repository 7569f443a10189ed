"""Whether two names read alike, by a skeleton that is equal for those which do.

Compatibility forms and case are folded, accents and separators dropped, and the commonest look-alikes among Latin, Cyrillic and
Greek letters and digits mapped to one of them. Small on purpose: it finds what deceives at a glance. Pure.
"""

from __future__ import annotations

import unicodedata

__all__ = ["skeleton"]

_ALIKE = {
    "a": "\u0430\u03b1\u0251",
    "b": "\u044c\u03b2\u0432\u0185",
    "c": "\u0441\u03f2",
    "d": "\u0501\u0257",
    "e": "\u0435\u0454\u03b5\u04bd",
    "g": "\u0261\u0581",
    "h": "\u04bb\u043d",
    "j": "\u0458\u03f3",
    "k": "\u043a\u03ba",
    "l": "\u04cf1i|\u0131\u0456\u03b9\u01c0!",
    "m": "\u043c\u03fb",
    "n": "\u0578\u043f\u0274\u03b7",
    "o": "\u043e\u03bf0\u03c3\u0585",
    "p": "\u0440\u03c1",
    "q": "\u051b\u0563",
    "r": "\u0433\u027e",
    "s": "\u0455\ua731",
    "t": "\u0442\u03c4",
    "u": "\u03c5\u057d\u0446\u03bc",
    "v": "\u03bd\u0475",
    "w": "\u0461\u03c9\u051d",
    "x": "\u0445\u03c7",
    "y": "\u0443\u03b3\u04af",
    "z": "\u1d22\u03b6",
}
_MAP = {ord(other): latin for latin, others in _ALIKE.items() for other in others}
_PAIRS = (("rn", "m"), ("vv", "w"))
_DROPPED = frozenset({"Pd", "Pc", "Po", "Ps", "Pe", "Zs", "Cf", "Cc", "Mn", "Me"})
"""Separators, format characters and marks; what the table maps was mapped before."""


def skeleton(name: str) -> str:
    """Equal for two names that look alike. Not a name itself."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold()).translate(_MAP)
    kept = "".join(char for char in folded if unicodedata.category(char) not in _DROPPED)
    for pair, one in _PAIRS:
        kept = kept.replace(pair, one)
    return kept
