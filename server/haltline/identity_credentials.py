"""Credentials as they are stored and recognised: whose token this is, and which have ended.

Owns the table credentials. Knows nothing of what their owners may do.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from haltline.credentials import keyed_hash, parse
from haltline.store.remembered import Remembered

if TYPE_CHECKING:
    from haltline.credentials import CredentialClass, Presented
    from haltline.store.writer import Tx

__all__ = ["Credential", "Credentials", "Unknown"]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a token is nobody's: `credential.missing | malformed | unknown | wrong_class` (HTTP 401)."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A token that is somebody's, whatever state they are in."""

    id: str
    cls: CredentialClass
    agent_id: str | None
    session_id: str | None
    operator: str | None
    revoked_us: int | None


_MISSING = Unknown("credential.missing", "Send the credential as: Authorization: Bearer hl_…")
_MALFORMED = Unknown("credential.malformed", "This is not a Haltline credential, or it was cut short or mistyped.")
_UNKNOWN = Unknown("credential.unknown", "No such credential; ask an operator for a new one.")


class Credentials:
    """Every method takes the transaction of its caller. What was recognised once is remembered until a credential ends."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._key = secrets.token_bytes(32)
        self._known: Remembered[bytes, Credential] = Remembered()
        """By a keyed hash of the token: no token stays in memory, and nobody can aim at one."""
        self.forget = self._known.forget

    def verify(self, tx: Tx, token: str | None, accepted: frozenset[CredentialClass]) -> Credential | Unknown:
        """Whose token this is. Constant-time compare on the keyed hash; the class decides before anything is read."""
        if not token:
            return _MISSING
        mark = blake2b(token.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()
        known = self._known.get(mark)
        if known is not None and known.cls in accepted:
            return known
        presented = parse(token)
        if presented is None:
            return _MALFORMED
        if presented.cls not in accepted:
            kind = {"s": "a session's", "a": "an agent's", "o": "an operator's"}[presented.cls]
            return Unknown("credential.wrong_class", f"This is {kind} credential; it is not valid on this listener.")
        row = tx.execute(
            "SELECT id, class, hash, agent_id, session_id, operator, revoked_us FROM credentials WHERE id = ?",
            (presented.id,),
        ).fetchone()
        if row is None or not hmac.compare_digest(row[2], keyed_hash(self._pepper, token)):
            return _UNKNOWN
        return self._known.keep(mark, Credential(row[0], row[1], row[3], row[4], row[5], row[6]))

    def store(self, tx: Tx, made: Presented, *, agent: str | None, session: str | None, operator: str | None) -> str:
        """Returns the token, which is kept nowhere."""
        tx.execute(
            "INSERT INTO credentials (id, class, hash, agent_id, session_id, operator, created_us) VALUES (?,?,?,?,?,?,?)",
            (made.id, made.cls, keyed_hash(self._pepper, made.token), agent, session, operator, tx.now_us),
        )
        return made.token

    def revoke(self, tx: Tx, whose: Literal["agent_id", "session_id", "operator"], subject: str) -> None:
        """End all that this agent, session or operator has."""
        self._known.changes(tx)
        tx.execute(
            f"UPDATE credentials SET revoked_us = ? WHERE {whose} = ? AND revoked_us IS NULL",  # noqa: S608 - one of three names
            (tx.now_us, subject),
        )

    def replace(self, tx: Tx, agent_id: str) -> None:
        """End the agent's own, before it is given another."""
        self._known.changes(tx)
        tx.execute(
            "UPDATE credentials SET revoked_us = ? WHERE agent_id = ? AND class = 'a' AND revoked_us IS NULL",
            (tx.now_us, agent_id),
        )
