"""Idempotency keys: a retry of a call gets the first answer again, and nothing is ever sent twice (R13).

A client puts the key into `_meta` under `io.haltline/idempotency-key`. It belongs to one agent and one tool, and to the
arguments it was first used with; it is used up by being admitted, and free again once its call provably never left. Owns
the table replays: keyed hashes of keys and arguments, and the first answers, sealed, for a day.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from haltline.calls.rounds import BadState, asks_for_input
from haltline.credentials import TOKEN_PATTERN
from haltline.policy.model import Reason
from haltline.policy.money import format_amount
from haltline.wire.eras import IDEMPOTENCY_KEY, KEYED_METHODS
from haltline.wire.strict_json import dumps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from haltline.calls.call import CallRequest
    from haltline.ledger import Hold
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.store.writer import Tx

__all__ = ["ANSWER_MAX_BYTES", "KEPT_S", "KEY_MAX_CHARS", "Again", "First", "Keyed", "Replays", "used_before"]

KEY_MAX_CHARS = 255
KEPT_S = 86_400.0
"""How long a first answer is kept. Its key stays used for good."""
ANSWER_MAX_BYTES = 1024 * 1024
_NONCE_BYTES = 12
_TOKEN = re.compile(TOKEN_PATTERN.encode())


@dataclass(frozen=True, slots=True)
class Keyed:
    """A key as it is stored: which one, of whom and for which tool; and with which arguments."""

    mark: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class First:
    """The call that a key was first used for. `sealed` is None where its answer is not kept (any more)."""

    call: str
    digest: bytes
    sealed: bytes | None


@dataclass(frozen=True, slots=True)
class Again:
    """The first answer is to be given again."""

    call: str
    mark: bytes
    sealed: bytes
    ended: bool
    """Whether its call has ended: then a question is no answer to it."""
    gone: Reason
    """What is said where it cannot be opened."""


class Replays:
    """`key`: 32 secret bytes. The methods with a `tx` run inside the writer's transaction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher: AESGCM | None = None

    def keyed(self, who: Principal, request: CallRequest) -> Keyed | Reason | None:
        """The key of a request; a reason where it is not a valid one, None where it has none."""
        meta = request.params.get("_meta")
        if not isinstance(meta, dict) or IDEMPOTENCY_KEY not in meta or request.method not in KEYED_METHODS:
            return None
        key = meta[IDEMPOTENCY_KEY]
        if not isinstance(key, str) or not 0 < len(key) <= KEY_MAX_CHARS or not key.isprintable():
            text = f"{IDEMPOTENCY_KEY} must be a text of 1 to {KEY_MAX_CHARS} printable characters; send the call with such a key"
            return Reason("args.idempotency_key", text)
        mark = self._hash(["key", who.agent_id, request.method, request.tool, key])
        return Keyed(mark, self._hash(["arguments", request.arguments, request.params.get("task")]))

    def find(self, tx: Tx, keyed: Keyed) -> First | None:
        row = tx.execute(
            "SELECT call_id, digest, CASE WHEN kept_until > ? THEN answer END FROM replays WHERE mark = ?",
            (tx.now_us, keyed.mark),
        ).fetchone()
        return None if row is None else First(*row)

    def begin(self, tx: Tx, keyed: Keyed, call: str) -> None:
        """The key is used for this call from now on. Only where it is free: after `find`, in the same unit."""
        tx.execute(
            "INSERT INTO replays (mark, digest, call_id) VALUES (?,?,?) ON CONFLICT (mark) DO UPDATE SET"
            " digest = excluded.digest, call_id = excluded.call_id, answer = NULL, kept_until = NULL",
            (keyed.mark, keyed.digest, call),
        )

    def free_for(self, tx: Tx, keyed: Keyed, call: str) -> bool:
        """Whether a round of this call is the first to come with the key. Raises BadState where it is another call's."""
        first = self.find(tx, keyed)
        if first is not None and first.call != call:
            raise BadState("its idempotency key was used for another call")
        return first is None

    def keep(self, tx: Tx, keyed: Keyed, call: str, sealed: bytes | None) -> None:
        """The answer to give again, in place of one that was kept before; None: there is none to give."""
        until_us = None if sealed is None else tx.now_us + int(KEPT_S * 1_000_000)
        tx.execute(
            "UPDATE replays SET answer = ?, kept_until = ? WHERE mark = ? AND call_id = ?",
            (sealed, until_us, keyed.mark, call),
        )

    def purge(self, tx: Tx, most: int) -> int:
        """Forget answers whose time is over. Returns how many."""
        cursor = tx.execute(
            "UPDATE replays SET answer = NULL, kept_until = NULL WHERE mark IN"
            " (SELECT mark FROM replays WHERE kept_until <= ? LIMIT ?)",
            (tx.now_us, most),
        )
        return cursor.rowcount

    # the seal

    def seal(self, keyed: Keyed, call: str, answer: Mapping[str, Any]) -> bytes | None:
        """None for what is too large to keep, and for what holds a credential, which no answer gives twice (R20)."""
        body = dumps(answer)
        if len(body) > ANSWER_MAX_BYTES or _TOKEN.search(body) is not None:
            return None
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead().encrypt(nonce, body, keyed.mark + call.encode())

    def open(self, again: Again) -> dict[str, Any] | None:
        """None where it is not what was sealed, or is only a question of a call that has ended."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see `_aead`

        nonce, sealed = again.sealed[:_NONCE_BYTES], again.sealed[_NONCE_BYTES:]
        try:
            body = self._aead().decrypt(nonce, sealed, again.mark + again.call.encode())
        except (InvalidTag, ValueError):
            return None
        answer: dict[str, Any] = json.loads(body)
        return None if again.ended and asks_for_input(answer) is not None else answer

    def _aead(self) -> AESGCM:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 40 ms, and rarely used

            self._cipher = AESGCM(self._key)
        return self._cipher

    def _hash(self, value: Any) -> bytes:
        """Keyed, so that nobody who reads the table can try out what it was made from."""
        try:
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except (TypeError, ValueError, RecursionError):  # integers beyond 64 bits, lone surrogates: exact all the same
            text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return hmac.digest(self._key, text, hashlib.sha256)


def used_before(tx: Tx, parts: Parts, keyed: Keyed, currency: str) -> Again | Reason | None:
    """What the call says that a key was used for before. None: the key is free, or free again."""
    first = parts.replays.find(tx, keyed)
    if first is None:
        return None
    hold = parts.ledger.get(tx, first.call)
    waits = hold.state == "held" and parts.rounds.waits(tx, first.call)
    return _again(first, keyed, hold, waits=waits, currency=currency)


def _again(first: First, keyed: Keyed, hold: Hold, *, waits: bool, currency: str) -> Again | Reason | None:
    """`waits`: whether the call waits for its client's input."""
    if hold.state == "voided":
        return None
    facts: dict[str, int | str | None] = {"call": first.call, "amount_micros": hold.amount_micros}
    if first.digest != keyed.digest:
        text = (
            f"this idempotency key was used for other arguments, in call {first.call}; do not retry with it: "
            "a new call needs a new key"
        )
        return Reason("args.idempotency_mismatch", text, facts)
    if hold.state == "in_doubt":
        text = f"call {first.call} with this idempotency key was sent and nobody knows what became of it; it is not sent again"
        return Reason("call.in_doubt", text, facts)
    if hold.state == "held" and not (waits and first.sealed is not None):
        text = f"call {first.call} with this idempotency key still runs, so it is not sent again; ask later with the same key"
        return Reason("call.running", text, facts, retryable=True)
    charged = format_amount(hold.charged_micros or 0, currency).strip()
    text = f"call {first.call} with this idempotency key ran and {charged} was charged, but its result is gone; do not retry"
    gone = Reason("call.result_gone", text, {**facts, "charged_micros": hold.charged_micros})
    if first.sealed is None:
        return gone
    return Again(first.call, keyed.mark, first.sealed, hold.state == "settled", gone)
