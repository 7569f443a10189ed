"""`Mcp-Session-Id` of the handshake era: signed and bound to the credential that asked for it, so none is kept.

A session id is not a credential: it says which conversation a request belongs to (request ids in flight, R24), never who
sends it. Since it is verified by its signature, it survives a restart of the broker, and what the client said of itself at
`initialize` survives in it, where that is short.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SessionIds", "owner_of"]

_RANDOM_BYTES = 18
_ENDED_MAX = 10_000
"""Ended ids remembered; an older one that comes back is a conversation without anything in it."""
_CARRIED_MAX_BYTES = 1_024
_CARRIED = ("capabilities", "clientInfo")
_NAMED = ("name", "version")
_BETWEEN = "~"


class SessionIds:
    """Issues, verifies and ends session ids. `key`: 32 to 64 secret bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ended: OrderedDict[str, None] = OrderedDict()

    def issue(self, token: str | None, told: Mapping[str, Any] | None = None) -> str:
        """`told`: the params of `initialize`."""
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()
        carried = _carried(told or {})
        if carried:
            nonce += _BETWEEN + base64.urlsafe_b64encode(carried).decode()
        return f"{nonce}.{self._mac(nonce, token)}"

    @staticmethod
    def told(session_id: str) -> dict[str, Any]:
        """What a valid id carries of the params of `initialize`."""
        _, _, carried = session_id.partition(".")[0].partition(_BETWEEN)
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(carried)) if carried else {}
        return found

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


def _carried(told: Mapping[str, Any]) -> bytes:
    """What is kept of it: all, else without what only shows the client, else nothing."""
    whole = {key: told[key] for key in _CARRIED if isinstance(told.get(key), dict)}
    info = whole.get("clientInfo", {})
    short = {**whole, "clientInfo": {key: info[key] for key in _NAMED if key in info}}
    for one in (whole, short):
        text = json.dumps(one, separators=(",", ":")).encode() if one else b""
        if len(text) <= _CARRIED_MAX_BYTES:
            return text
    return b""


def owner_of(token: str | None) -> str:
    """The id of the credential that a session belongs to; empty where none was presented. It proves nothing about who sends."""
    parts = (token or "").split("_", 3)
    return parts[2] if len(parts) == 4 and parts[0] == "hl" else ""
