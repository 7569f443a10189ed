"""`Mcp-Session-Id` of the handshake era: signed and bound to the credential that asked for it, so none is kept.

A session id is not a credential: it says which conversation a request belongs to (request ids in flight, R24), never who
sends it. Since it is verified by its signature, it survives a restart of the broker.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict

from haltline.credentials import parse

__all__ = ["SessionIds", "owner_of"]

_RANDOM_BYTES = 18
_ENDED_MAX = 10_000
"""Ended ids remembered; an older one that comes back is a conversation without anything in it."""


class SessionIds:
    """Issues, verifies and ends session ids. `key`: 32 to 64 secret bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ended: OrderedDict[str, None] = OrderedDict()

    def issue(self, token: str | None) -> str:
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()
        return f"{nonce}.{self._mac(nonce, token)}"

    def valid(self, session_id: str, token: str | None) -> bool:
        """Whether this id was issued to this credential and has not ended."""
        nonce, _, mac = session_id.partition(".")
        if not session_id.isascii() or session_id in self._ended:
            return False
        return hmac.compare_digest(mac, self._mac(nonce, token))

    def end(self, session_id: str) -> None:
        self._ended[session_id] = None
        if len(self._ended) > _ENDED_MAX:
            self._ended.popitem(last=False)

    def _mac(self, nonce: str, token: str | None) -> str:
        owner = owner_of(token)
        # Keyed BLAKE2b: for input this short it keeps the interpreter's lock, which an HMAC would hand to another thread.
        digest = hashlib.blake2b(f"{nonce}.{owner}".encode(), key=self._key, digest_size=_RANDOM_BYTES).digest()
        return base64.urlsafe_b64encode(digest).decode()


def owner_of(token: str | None) -> str:
    """The id of the credential that a session belongs to; empty where none was presented."""
    presented = parse(token or "")
    return presented.id if presented else ""
