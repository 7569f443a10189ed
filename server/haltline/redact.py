"""Secrets leave before anything is stored, logged or sent in an alert (P9): by key name, and by the shape of known tokens.

Works on JSON text, so that what is capped in size is redacted first and a cut never leaves half a secret behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from haltline.credentials import TOKEN_PATTERN

__all__ = ["MASK", "Redactor"]

MASK = "[redacted]"

_KEY_NAMES = (
    "password", "passwd", "passphrase", "secret", "client_secret", "clientsecret", "secret_key", "secretkey", "token",
    "access_token", "accesstoken", "refresh_token", "refreshtoken", "id_token", "auth_token", "authtoken", "api_key",
    "apikey", "x-api-key", "authorization", "proxy-authorization", "cookie", "set-cookie", "private_key", "privatekey",
    "credential", "credentials", "session_token", "otp", "pin", "cvv", "cvc", "card_number", "cardnumber", "pan", "iban_pin",
)  # fmt: skip
_SHAPES = (
    TOKEN_PATTERN,
    r"gh[pousr]_[0-9A-Za-z]{36,}",  # GitHub
    r"github_pat_[0-9A-Za-z_]{60,}",
    r"glpat-[0-9A-Za-z_-]{20,}",  # GitLab
    r"xox[abposr]-[0-9A-Za-z-]{10,}",  # Slack
    r"sk-[0-9A-Za-z_-]{20,}",  # OpenAI, Anthropic
    r"[sr]k_(?:live|test)_[0-9A-Za-z]{16,}",  # Stripe
    r"whsec_[0-9A-Za-z+/=]{20,}",
    r"A(?:KIA|SIA)[0-9A-Z]{16}",  # AWS
    r"AIza[0-9A-Za-z_-]{35}",  # Google
    r"ya29\.[0-9A-Za-z_-]{20,}",
    r"SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}",  # SendGrid
    r"npm_[0-9A-Za-z]{36}",
    r"pypi-[0-9A-Za-z_-]{50,}",
    r"eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]+",  # JWT
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END).)*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    r"(?i:bearer\s+)[0-9A-Za-z._~+/=-]{16,}",
    r"(?<=://)[^/\s:@\"\\]{1,256}:[^/\s:@\"\\]{1,256}(?=@)",  # user:password in a URL
)


class Redactor:
    """Built once from the policy's extra key names; `text` is what everything stored goes through."""

    def __init__(self, extra_keys: Iterable[str] = ()) -> None:
        names = "|".join(re.escape(name) for name in (*_KEY_NAMES, *(key.lower() for key in extra_keys)))
        string = r'"(?:[^"\\]|\\.)*(?:"|\Z)'
        self._keys = re.compile(
            rf'("(?:[a-z0-9]+[_-])*(?:{names})"\s*:\s*)(?!"{re.escape(MASK)}")({string}|[^\s"{{\[,}}\]][^,}}\]]*|[{{\[])',
            re.IGNORECASE | re.DOTALL,
        )
        self._shapes = re.compile("|".join(_SHAPES), re.DOTALL)

    def text(self, text: str) -> str:
        """JSON (or plain) text with every secret value replaced; the JSON stays JSON."""
        if self._keys.search(text):
            text = self._by_key(text)
        return self._shapes.sub(MASK, text)

    def _by_key(self, text: str) -> str:
        parts: list[str] = []
        position = 0
        while match := self._keys.search(text, position):
            parts += (text[position : match.end(1)], f'"{MASK}"')
            value = match[2]
            position = _end_of_container(text, match.end() - 1) if value in "{[" else match.end()
        parts.append(text[position:])
        return "".join(parts)


_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[{}\[\]]', re.DOTALL)


def _end_of_container(text: str, start: int) -> int:
    """Index just past the object or array that opens at `start` (the end of the text if it was cut)."""
    depth = 0
    for token in _STRUCTURE.finditer(text, start):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
            if depth == 0:
                return token.end()
    return len(text)
