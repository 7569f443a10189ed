"""Characters that a reader does not see or that change what is seen, in texts that an upstream wrote.

Zero width, bidirectional, tag, control and other format characters, fillers that look like nothing, variation selectors and
private use. What an emoji is made of stays allowed where it makes one. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["found_in", "hidden", "shown"]

_MOST_NAMED = 8
_MOST_LOOKED_AT = 10_000
"""A text with more of them is flagged whatever they are."""
_HIDDEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u200b-\u200f\u2060-\u206f\ufeff\ufff9-\ufffb"  # formats
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\u2028-\u202e"  # line and paragraph separators, directions
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufff0-\ufff8"  # letters and symbols that show nothing
    "\u180b-\u180f\ufe00-\ufe0f\U000e0000-\U000e0fff"  # variation selectors, tags
    "\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff"  # half pairs, private use
    "]"
)
"""Written out, so that another version of Unicode changes no verdict."""
_HIDDEN_OR_FOREIGN = re.compile(f"{_HIDDEN.pattern}|[^\x00-\x7f]")
_HIDDEN_IN_LINES = re.compile(f"(?![\n\r\t]){_HIDDEN.pattern}")
_JOINER, _EMOJI_STYLE, _TEXT_STYLE = "\u200d", "\ufe0f", "\ufe0e"
_SKIN = frozenset(chr(code) for code in range(0x1F3FB, 0x1F400))
_KEYCAPS = frozenset("0123456789#*")


def hidden(text: str, *, one_line: bool = False) -> tuple[str, ...]:
    """The distinct hidden characters of a text. `one_line`: also those that end a line or jump in it."""
    if text.isascii() and text.isprintable():
        return ()
    found: dict[str, None] = {}
    for count, match in enumerate((_HIDDEN if one_line else _HIDDEN_IN_LINES).finditer(text)):
        if count == _MOST_LOOKED_AT or not _of_an_emoji(text, match.start()):
            found[match[0]] = None
        if count == _MOST_LOOKED_AT or len(found) > _MOST_NAMED:
            break
    return tuple(found)


def shown(text: str, *, all_foreign: bool = False) -> str:
    """The text with each hidden character written out, such as `[U+200B ZERO WIDTH SPACE]`; line feeds stay.

    `all_foreign`: every character beyond ASCII, for two texts that look alike.
    """
    if text.isascii() and text.isprintable():
        return text
    pattern = _HIDDEN_OR_FOREIGN if all_foreign else _HIDDEN
    return pattern.sub(lambda match: match[0] if match[0] == "\n" else _named(match[0]), text)


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


def _of_an_emoji(text: str, at: int) -> bool:
    """A style selector right after what it styles, or a joiner between two symbols."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at] in {_EMOJI_STYLE, _TEXT_STYLE}:
        return bool(before) and (_symbol(before) or before in _KEYCAPS or before in _SKIN)
    if text[at] == _JOINER:
        return bool(before) and bool(after) and (before in {_EMOJI_STYLE, *_SKIN} or _symbol(before)) and _symbol(after)
    return False


def _symbol(char: str) -> bool:
    return unicodedata.category(char) in {"So", "Sm"} and not _HIDDEN.match(char)


def _named(char: str) -> str:
    name = unicodedata.name(char, "")
    return f"[U+{ord(char):04X}{' ' + name if name else ''}]"
