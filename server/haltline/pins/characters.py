"""Characters that a reader does not see or that change what is seen, in texts that an upstream wrote.

Zero width, bidirectional, tag, control and other format characters, fillers that look like nothing, variation selectors and
private use. What an emoji is made of stays allowed where it makes one. Pure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["found_in", "hidden", "shown"]

_MOST_NAMED = 8
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_BLANK = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0, *range(0xFFF0, 0xFFF9)})
"""Letters, marks and symbols that show nothing."""
_SELECTORS = frozenset({*range(0xFE00, 0xFE10), *range(0x180B, 0x1810)})
_TAGS = range(0xE0000, 0xE1000)
"""Tags and the supplementary variation selectors, assigned or not."""
_LINE = frozenset("\n\r\t")
_JOINER, _EMOJI_STYLE, _TEXT_STYLE = "\u200d", "\ufe0f", "\ufe0e"
_SKIN = frozenset(chr(code) for code in range(0x1F3FB, 0x1F400))
_KEYCAPS = frozenset("0123456789#*")


def hidden(text: str, *, one_line: bool = False) -> tuple[str, ...]:
    """The distinct hidden characters of a text. `one_line`: also those that end a line or jump in it."""
    if text.isascii() and text.isprintable():
        return ()
    found = dict.fromkeys(
        char
        for at, char in enumerate(text)
        if _acts(char) and (one_line or char not in _LINE) and not _of_an_emoji(text, at)
    )
    return tuple(found)


def shown(text: str, *, all_foreign: bool = False) -> str:
    """The text with each hidden character written out, such as `[U+200B ZERO WIDTH SPACE]`; line feeds stay.

    `all_foreign`: every character beyond ASCII, for two texts that look alike.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _named(char) if (_acts(char) and char != "\n") or (all_foreign and not char.isascii()) else char
        for char in text
    )


def found_in(part: Mapping[str, Any]) -> tuple[str, ...]:
    """What is hidden in the texts and keys of a definition: `description: U+200B ZERO WIDTH SPACE`."""
    said: list[str] = []
    for path, text in _texts(part, ""):
        characters = hidden(text, one_line=path in {"name", "title"} or path.endswith(" (key)"))
        if characters:
            said.append(f"{shown(path)}: {', '.join(_named(char)[1:-1] for char in characters[:_MOST_NAMED])}")
    return tuple(said)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            here = f"{path}.{key}" if path else key
            yield f"{here} (key)", key
            yield from _texts(inside, here)
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from _texts(inside, f"{path}[{index}]")


def _acts(char: str) -> bool:
    code = ord(char)
    return unicodedata.category(char) in _CATEGORIES or code in _BLANK or code in _SELECTORS or code in _TAGS


def _of_an_emoji(text: str, at: int) -> bool:
    """A style selector right after what it styles, or a joiner between two symbols."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at] in {_EMOJI_STYLE, _TEXT_STYLE}:
        return bool(before) and (_symbol(before) or before in _KEYCAPS or before in _SKIN)
    if text[at] == _JOINER:
        return bool(before) and bool(after) and (before in {_EMOJI_STYLE, *_SKIN} or _symbol(before)) and _symbol(after)
    return False


def _symbol(char: str) -> bool:
    return unicodedata.category(char) in {"So", "Sm"} and ord(char) not in _BLANK


def _named(char: str) -> str:
    name = unicodedata.name(char, "")
    return f"[U+{ord(char):04X}{' ' + name if name else ''}]"
