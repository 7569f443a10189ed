"""Secrets leave before anything is stored, logged or sent in an alert (P9): by key name, and by the shape of known tokens.

Works on text, JSON or not, in time linear in its length whatever it holds. JSON stays JSON, and JSON inside the strings
of JSON (what a tool returns as text) is looked into as well, at any depth of quoting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from haltline.credentials import TOKEN_PATTERN

__all__ = ["MASK", "Redactor"]

MASK = "[redacted]"

_ANYWHERE_AT_END = (
    "password", "passwd", "passphrase", "secret", "secret[_-]?key", "api[_-]?key", "access[_-]?key", "private[_-]?key",
    "token", "authorization", "cookie", "credential", "credentials",
)  # fmt: skip
"""Names that are secret however they are led up to: `dbPassword`, `x-api-key`, `stripe_secret_key`."""
_WHOLE_WORDS = ("otp", "pin", "cvv", "cvc", "card[_-]?number", "pan", "passcode", "pwd")
"""Too short for that: `pin` is a secret, `mapping_spin` is not."""
_KEY_LENGTH_MAX = 64
_SHORTEST = 6
"""No shape is shorter."""
_LOOKED_INTO = 5
"""Levels of an event's own facts; what is deeper is read closely."""
_INNOCENT_CHARS = 200
_INNOCENT_MAX = 4096

_BEARER = r"((?i:bearer)\s{1,8})[0-9A-Za-z._~+/=-]{16,}"
_BASIC = r"((?i:basic)\s{1,8})[0-9A-Za-z+/]{16,}={0,2}"
_SHAPES: tuple[tuple[str, str], ...] = (
    ("hl_", rf"(){TOKEN_PATTERN}"),
    ("gh", r"()gh[pousr]_[0-9A-Za-z]{36,}"),  # GitHub
    ("github_pat_", r"()github_pat_[0-9A-Za-z_]{60,}"),
    ("glpat-", r"()glpat-[0-9A-Za-z_-]{20,}"),  # GitLab
    ("xox", r"()xox[abeposr]-[0-9A-Za-z-]{10,}"),  # Slack
    ("xapp-", r"()xapp-[0-9A-Za-z-]{10,}"),
    ("hooks.slack.com/", r"(hooks\.slack\.com/services/)[0-9A-Za-z/]{20,}"),
    ("sk-", r"((?<![0-9A-Za-z])sk-(?:ant-|proj-|svcacct-)?)[0-9A-Za-z_-]{20,}"),  # OpenAI, Anthropic
    ("k_", r"()(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,}"),  # Stripe
    ("whsec_", r"()whsec_[0-9A-Za-z+/=]{20,}"),
    ("AKIA", r"()AKIA[0-9A-Z]{16}"),  # AWS
    ("ASIA", r"()ASIA[0-9A-Z]{16}"),
    ("AIza", r"()AIza[0-9A-Za-z_-]{35}"),  # Google
    ("ya29.", r"()ya29\.[0-9A-Za-z_-]{20,}"),
    ("SG.", r"()(?<![0-9A-Za-z_-])SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}"),  # SendGrid
    ("npm_", r"()npm_[0-9A-Za-z]{36}"),
    ("pypi-", r"()pypi-[0-9A-Za-z_-]{50,}"),
    ("hf_", r"()(?<![0-9A-Za-z])hf_[0-9A-Za-z]{30,}"),
    # The look-behind leaves one start in a run of letters: without it, `eyJeyJeyJ…` costs the square of its length.
    ("eyJ", r"()(?<![0-9A-Za-z_-])eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}(?:\.[0-9A-Za-z_-]*)?"),  # JWT
    # Up to a quote at most, with the backslashes before it, so that a key without its end leaves the JSON around it.
    ("PRIVATE KEY", r'()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^"\\-]|-(?!----END)|\\+[nrtu/])*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?'),
    ("earer", _BEARER),
    ("EARER", _BEARER),
    ("asic", _BASIC),
    ("ASIC", _BASIC),
    ("://", r'(://)[^/\s:@"\\]{0,256}:[^/\s:@"\\]{1,256}(?=@)'),  # user:password in a URL
)  # fmt: skip
_ASSIGNED_NAMES = (
    "password", "passwd", "secret", "token", "apikey", "api_key", "api-key", "accesskey", "access_key", "privatekey",
    "private_key", "secretkey", "secret_key",
)  # fmt: skip
_ASSIGNED = "|".join(f"(?<={name}=)" for name in _ASSIGNED_NAMES)
"""`API_KEY=…` and `?token=…`. The name is looked back for from its sign, which is rarer than any letter."""


class Redactor:
    """Built once from the policy's extra key names; `text` is what everything stored goes through."""

    def __init__(self, extra_keys: Iterable[str] = ()) -> None:
        words = (*_WHOLE_WORDS, *(re.escape(key.lower()) for key in extra_keys))
        self._hints = _shortest({re.split(r"[\[\\]", name)[0] for name in (*_ANYWHERE_AT_END, *words)})
        key = rf'(?:(?P<word>{"|".join(words)})|{"|".join(_ANYWHERE_AT_END)})(?P<escapes>\\{{0,64}})"\s*:\s*'
        self._keys = re.compile(key)
        self._keys_any_case = re.compile(key, re.IGNORECASE)
        assigned = rf"""(=(?i:{_ASSIGNED}))[^\s"'&;,<>\\]{{6,}}"""
        self._shapes = tuple((marker, re.compile(pattern)) for marker, pattern in (*_SHAPES, ("=", assigned)))
        self._markers = _by_rarest(marker for marker, _ in self._shapes)
        self._innocent: set[str] = set()
        """Short texts that come again and again, such as names."""

    def text(self, text: str) -> str:
        """Every secret value replaced, by the name of its key and by its shape."""
        return self.shapes(self._by_key(text))

    def shapes(self, text: str) -> str:
        """Only what looks like a known token: for text whose key names are our own."""
        for marker, shape in self._shapes:
            if marker in text:
                text = shape.sub(rf"\1{MASK}", text)
        return text

    def leaves(self, text: str) -> bool:
        """Whether `text` certainly changes nothing in it, found without reading it closely."""
        return self._shapeless(text) and not any(map(text.lower().__contains__, self._hints))

    def leaves_shapes(self, value: Any, depth: int = _LOOKED_INTO) -> bool:
        """Whether `shapes` certainly changes no text within these values, whose keys are our own."""
        if isinstance(value, str):
            return len(value) < _SHORTEST or value in self._innocent or self._looked_at(value)
        if value is None or isinstance(value, int):
            return True
        if isinstance(value, dict):
            return depth > 0 and all(self.leaves_shapes(one, depth - 1) for one in value.values())
        if isinstance(value, list):
            return depth > 0 and all(self.leaves_shapes(one, depth - 1) for one in value)
        return False

    def _looked_at(self, text: str) -> bool:
        if text.isalnum() and text.islower():  # such as a digest: every shape has a sign or a capital letter
            return True
        if not self._shapeless(text):
            return False
        if len(text) <= _INNOCENT_CHARS:
            if len(self._innocent) >= _INNOCENT_MAX:
                self._innocent.clear()
            self._innocent.add(text)
        return True

    def _shapeless(self, text: str) -> bool:
        return not any(rare in text and any(map(text.__contains__, markers)) for rare, markers in self._markers)

    def _by_key(self, text: str) -> str:
        lower = text.lower()
        if not any(hint in lower for hint in self._hints):
            return text
        # On text made lower first a search is five times as fast; some letters change their length by it.
        same = len(lower) == len(text)
        parts: list[str] = []
        done = 0
        for match in self._keys.finditer(lower) if same else self._keys_any_case.finditer(text):
            if match.start() < done:
                continue
            escapes = len(match["escapes"])
            if not _opens_key(text, match.start(), escapes, whole=match["word"] is not None):
                continue
            end = _end_of_value(text, match.end(), escapes)
            if end is None:
                continue
            quote = "\\" * escapes + '"'
            parts += (text[done : match.end()], quote, MASK, quote)
            done = end
        return "".join((*parts, text[done:]))


def _by_rarest(markers: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Markers by a character that they all have: a single one is found, or not, twenty times as fast as a word."""
    groups: dict[str, dict[str, None]] = {}
    for marker in markers:
        rare = next((one for one in "=/_-.AJK" if one in marker), "")
        groups.setdefault(rare, {})[marker] = None
    return tuple((rare, tuple(group)) for rare, group in groups.items())


def _shortest(hints: set[str]) -> tuple[str, ...]:
    """Without those that hold another one."""
    return tuple(hint for hint in hints if not any(other in hint for other in hints - {hint}))


def _opens_key(text: str, position: int, escapes: int, *, whole: bool) -> bool:
    """Whether the name at `position` is the end of a quoted key; a `whole` word has nothing but words before it."""
    if whole and position and text[position - 1].isalnum():
        return False
    first = max(position - _KEY_LENGTH_MAX, 0)
    while position > first and (text[position - 1].isalnum() or text[position - 1] in "_.-$@"):
        position -= 1
    before = position - 1
    if before < 0 or text[before] != '"':
        return False
    lead = text[max(before - escapes - 1, 0) : before]
    return len(lead) - len(lead.rstrip("\\")) == escapes


_BITS = re.compile(r'\\+"?|"|[{}\[\]]')
_SCALAR = re.compile(r'[^\s"\\,{}\[\]]+')


def _end_of_value(text: str, start: int, escapes: int) -> int | None:
    """Just past the value that starts at `start`, in JSON whose quotes carry `escapes` backslashes; None: there is none.

    A quote with fewer of them ends the string that this JSON is in, and a value that was cut with it.
    """
    if scalar := _SCALAR.match(text, start):
        return scalar.end()
    depth, inside = 0, False
    if _BITS.match(text, start) is None:
        return None
    for bit in _BITS.finditer(text, start):
        mark, escaped = bit[0][-1], len(bit[0]) - 1
        if mark == "\\":  # backslashes before something else
            continue
        if mark != '"':
            depth += 0 if inside else (1 if mark in "{[" else -1)
            if depth < 0:
                return None
        elif _closes_outer(escaped, escapes):
            return bit.start() if bit.start() > start else None
        elif escaped & (2 * escapes + 1) == escapes:
            inside = not inside
        if depth == 0 and not inside:
            return bit.end()
    return len(text)


def _closes_outer(backslashes: int, escapes: int) -> bool:
    """Whether a quote after this many backslashes belongs to a level further out: those carry 0, 1, 3, 7 … of them."""
    outer = 0
    while outer < escapes:
        if backslashes & (2 * outer + 1) == outer:
            return True
        outer = 2 * outer + 1
    return False
