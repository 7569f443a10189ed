"""Rounds of one call: an upstream asked for input, and the call goes on when its client brings it (R14).

All rounds are one call: one hold, one price, one id. What a client carries between them is sealed here: bound to the
agent, the session, the tool and the arguments, valid once and for a limited time. Owns the table rounds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haltline.stored_json import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from haltline.policy.model import Principal
    from haltline.store.writer import Tx

__all__ = ["ROUND_S", "BadState", "Round", "Rounds", "asks_for_input", "new_nonce"]

ROUND_S = 900.0
"""How long a client has for one round; then the call is in doubt."""
_NONCE_BYTES = 12
_LONGEST_CHARS = 512 * 1024


class BadState(Exception):
    """A `requestState` that is not ours, not this caller's, used already, or too late."""


@dataclass(frozen=True, slots=True)
class Round:
    """What was sealed: the call that goes on, and the upstream's own state, None where it gave none.

    `kept`: its upstream's call is still open (`calls.kept`), and is never sent again. `policy`: the version that admitted
    the call, under which it settles (R26).
    """

    call: str
    nonce: str
    state: str | None
    kept: bool = False
    policy: str = ""


class Rounds:
    """`key`: 32 secret bytes. The methods with a `tx` run inside the writer's transaction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher: AESGCM | None = None

    def begin(self, tx: Tx, call: str, nonce: str, who: Principal, what: str, arguments: Mapping[str, Any]) -> int:
        """The call waits for its client. `what`: its method and name. Returns when it waits no longer."""
        deadline_us = tx.now_us + int(ROUND_S * 1_000_000)
        tx.execute(
            "INSERT INTO rounds (call_id, nonce, digest, deadline_us) VALUES (?,?,?,?) ON CONFLICT (call_id) DO UPDATE SET"
            " nonce = excluded.nonce, digest = excluded.digest, deadline_us = excluded.deadline_us",
            (call, nonce, _digest(who, what, arguments), deadline_us),
        )
        return deadline_us

    def take(self, tx: Tx, one: Round, who: Principal, what: str, arguments: Mapping[str, Any]) -> None:
        """Use the state up. Raises BadState; then nothing is used up."""
        row = tx.execute("SELECT nonce, digest, deadline_us FROM rounds WHERE call_id = ?", (one.call,)).fetchone()
        if row is None or row[0] != one.nonce:
            raise BadState("it was used already, or its call has ended")
        if row[1] != _digest(who, what, arguments):
            raise BadState("it belongs to another agent, session, tool or other arguments")
        if row[2] <= tx.now_us:
            raise BadState("it came too late")
        tx.execute("DELETE FROM rounds WHERE call_id = ?", (one.call,))

    def waits(self, tx: Tx, call: str) -> bool:
        return tx.execute("SELECT 1 FROM rounds WHERE call_id = ?", (call,)).fetchone() is not None

    def waiting(self, tx: Tx) -> set[str]:
        """The calls that wait for their clients, within their time."""
        rows = tx.execute("SELECT call_id FROM rounds WHERE deadline_us > ?", (tx.now_us,))
        return {row[0] for row in rows}

    def abandoned(self, tx: Tx, most: int) -> list[str]:
        """The calls whose time is over, forgotten by this."""
        rows = tx.execute("SELECT call_id FROM rounds WHERE deadline_us <= ? LIMIT ?", (tx.now_us, most)).fetchall()
        tx.connection.executemany("DELETE FROM rounds WHERE call_id = ?", rows)
        return [row[0] for row in rows]

    # the seal

    def seal(self, one: Round) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        body = orjson.dumps([one.call, one.nonce, one.state, one.kept, one.policy])
        return base64.urlsafe_b64encode(nonce + self._aead().encrypt(nonce, body, None)).decode()

    def open(self, text: str) -> Round:
        """Raises BadState."""
        try:
            raw = _decoded(text)
            body = self._aead().decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None)
        except (ValueError, binascii.Error, self._invalid_tag()) as error:
            raise BadState("it is not what this broker gave out") from error
        return Round(*orjson.loads(body))

    def _aead(self) -> AESGCM:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 40 ms, and rarely used

            self._cipher = AESGCM(self._key)
        return self._cipher

    @staticmethod
    def _invalid_tag() -> type[Exception]:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see above

        return InvalidTag


def _decoded(text: str) -> bytes:
    """Raises ValueError for any spelling but its own: a decoder passes over stray characters and spare bits."""
    raw = base64.urlsafe_b64decode(text[:_LONGEST_CHARS].encode("ascii"))
    if base64.urlsafe_b64encode(raw).decode() != text:
        raise ValueError("not as it was written")
    return raw


def asks_for_input(answer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The result by which an upstream of 2026-07-28 asks for input instead of answering; None for any other."""
    result = (answer or {}).get("result")
    return result if isinstance(result, dict) and result.get("resultType") == "input_required" else None


def new_nonce() -> str:
    return secrets.token_hex(_NONCE_BYTES)


def _digest(who: Principal, what: str, arguments: Mapping[str, Any]) -> str:
    said = json_text([who.agent_id, who.session_id, what, arguments])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
