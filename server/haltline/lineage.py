"""Who opened whom: the tree of sessions (R20), read where money, halts and stops follow it up or down.

A session's parent is written once, when it is opened. Knows the column and nothing else of sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["FAMILY", "family", "parents"]

FAMILY = (
    "WITH RECURSIVE family (id) AS (VALUES (?) UNION ALL"
    " SELECT sessions.id FROM sessions JOIN family ON sessions.parent_id = family.id) SELECT id FROM family"
)
"""A session and all below it, itself first; takes its id."""

_PARENTS = (
    "WITH RECURSIVE above (id, depth) AS (SELECT parent_id, 1 FROM sessions WHERE id = ? UNION ALL"
    " SELECT sessions.parent_id, depth + 1 FROM sessions JOIN above ON sessions.id = above.id)"
    " SELECT id FROM above WHERE id IS NOT NULL ORDER BY depth"
)


def parents(tx: Tx, session_id: str) -> tuple[str, ...]:
    """Its parent, that one's parent, and so on to the root; none for most."""
    return tuple(row[0] for row in tx.execute(_PARENTS, (session_id,)))


def family(tx: Tx, session_id: str) -> tuple[str, ...]:
    """The session itself, then every session that it or one below it opened."""
    return tuple(row[0] for row in tx.execute(FAMILY, (session_id,)))
