"""What sessions of the handshake era set for themselves, kept through a restart of the broker: log level and subscriptions.

A session id outlives a restart (`wire.sessions`), and no client sets again what it has set in a session that goes on. Owns
the table conversations; of each credential the newest are kept, and none that was not touched for a month.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from haltline.errors import StoreError, StoreUnavailable
from haltline.stored_json import json_text
from haltline.wire.conversations import OF_ONE_OWNER_MAX
from haltline.wire.sessions import owner_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.parts import Parts
    from haltline.store.writer import Tx

__all__ = ["Remembered", "Set", "Wish"]

log = structlog.get_logger(__name__)
KEPT_US = 30 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Wish:
    """One resource that was subscribed to: at which upstream, and the name that policies grant it by."""

    upstream: str
    subject: str


@dataclass(frozen=True, slots=True)
class Set:
    """What one session set. `wishes`: by URI. `at_us`: when it last did so, where it was read."""

    log_level: str | None = None
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    at_us: int = field(default=0, compare=False)


class Remembered:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def keep(self, session_key: str, token: str | None, what: Set) -> None:
        """Durable when it returns. A store that cannot write loses this alone: what was set holds until a restart."""
        row = [[uri, wish.upstream, wish.subject] for uri, wish in what.wishes.items()]

        def unit(tx: Tx) -> None:
            if not row and what.log_level is None:
                tx.execute("DELETE FROM conversations WHERE id = ?", (_digest(session_key),))
                return
            tx.execute(
                "INSERT INTO conversations (id, credential, log_level, wishes, changed_us) VALUES (?,?,?,?,?)"
                " ON CONFLICT (id) DO UPDATE SET log_level = excluded.log_level, wishes = excluded.wishes,"
                " changed_us = excluded.changed_us",
                (_digest(session_key), owner_of(token), what.log_level, json_text(row), tx.now_us),
            )
            _prune(tx, owner_of(token))

        try:
            await self._parts.writer.run(unit)
        except StoreUnavailable as error:
            log.warning("session_settings_not_kept", error=str(error))

    async def recall(self, session_key: str) -> Set | None:
        """What the session had set; None: it cannot be read now."""
        try:
            row = await self._parts.reader.row(
                "SELECT log_level, wishes, changed_us FROM conversations WHERE id = ?", (_digest(session_key),)
            )
        except (StoreError, TimeoutError) as error:
            log.warning("session_settings_not_read", error=str(error))
            return None
        if row is None:
            return Set()
        return Set(row[0], {uri: Wish(upstream, subject) for uri, upstream, subject in json.loads(row[1])}, row[2])

    async def forget(self, session_key: str) -> None:
        """It has ended."""
        await self.keep(session_key, None, Set())


def _digest(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()


def _prune(tx: Tx, owner: str) -> None:
    tx.execute(
        "DELETE FROM conversations WHERE credential = ? AND id NOT IN"
        " (SELECT id FROM conversations WHERE credential = ? ORDER BY changed_us DESC LIMIT ?)",
        (owner, owner, OF_ONE_OWNER_MAX),
    )
    tx.execute("DELETE FROM conversations WHERE changed_us < ?", (tx.now_us - KEPT_US,))
