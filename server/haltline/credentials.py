"""The form of a credential: `hl_<class>_<id>_<secret><checksum>`, made once, shown once, kept as a keyed hash (P9).

The checksum lets a scanner tell a real token from noise without asking us; it protects nothing. Knows no tables.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Literal

__all__ = ["TOKEN_PATTERN", "CredentialClass", "Presented", "issue", "keyed_hash", "parse"]

CredentialClass = Literal["s", "a", "o"]
"""Session, agent, operator."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 43
"""43 characters of base 62 hold 256 bits."""
_CHECKSUM_LENGTH = 6
_LONGEST = 200

TOKEN_PATTERN = rf"hl_[sao]_[0-9A-Za-z]{{{_ID_LENGTH}}}_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
_SHAPE = re.compile(
    rf"hl_([sao])_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed token as a caller presented it; whether it is anybody's is for `identity` to say."""

    cls: CredentialClass
    id: str
    token: str


def _base62(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), _CHECKSUM_LENGTH)


def issue(cls: CredentialClass) -> Presented:
    """A new token with 256 bits of secret."""
    identifier = _base62(secrets.randbits(71), _ID_LENGTH)
    secret = _base62(secrets.randbits(256), _SECRET_LENGTH)
    body = f"hl_{cls}_{identifier}_{secret}"
    return Presented(cls, identifier, body + _checksum(body))


def parse(token: str) -> Presented | None:
    """The parts of a well-formed token, or None (wrong shape or checksum)."""
    if len(token) > _LONGEST:
        return None
    match = _SHAPE.fullmatch(token)
    if match is None or _checksum(token[:-_CHECKSUM_LENGTH]) != match[4]:
        return None
    cls: CredentialClass = match[1]  # type: ignore[assignment]  # the pattern admits these three letters only
    return Presented(cls, match[2], token)


def keyed_hash(pepper: bytes, token: str) -> bytes:
    """HMAC-SHA-256: 256 bits of secret need no slow hash, and the database alone does not verify a guess."""
    return hmac.digest(pepper, token.encode("ascii"), hashlib.sha256)
