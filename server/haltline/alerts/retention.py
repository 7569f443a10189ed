"""Old alerts: which may go, and letting them go in bounded steps. Never one that is open, or not delivered everywhere.

Looks beside the writer, and asks everything again in the transaction that deletes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haltline.store.reader import Reader
    from haltline.store.writer import Tx

__all__ = ["AT_ONCE", "drop", "old"]

AT_ONCE = 200
"""Messages of one step, so that no call waits long for it."""


async def old(reader: Reader, before_us: int) -> list[int]:
    """Messages of before then that are done with: delivered everywhere, and of an episode that was resolved before then."""
    return [row["id"] for row in await reader.rows(f"{_OLD} ORDER BY a.id LIMIT ?", (before_us, before_us, AT_ONCE))]


def drop(tx: Tx, ids: Sequence[int], before_us: int) -> tuple[int, int]:
    """Those of these that may still go, and the episodes of which nothing is left; returns how many of each."""
    rows = tx.execute(
        f"{_OLD} AND a.id IN (SELECT value FROM json_each(?))",  # noqa: S608 - a constant
        (before_us, before_us, orjson.dumps(ids).decode()),
    ).fetchall()
    going = orjson.dumps([row[0] for row in rows]).decode()
    episodes = orjson.dumps(sorted({row[1] for row in rows if row[1] is not None})).decode()
    tx.execute("DELETE FROM deliveries WHERE alert_id IN (SELECT value FROM json_each(?))", (going,))
    tx.execute("DELETE FROM alerts WHERE id IN (SELECT value FROM json_each(?))", (going,))
    empty = tx.execute(
        "DELETE FROM episodes WHERE id IN (SELECT value FROM json_each(?))"
        " AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.episode_id = episodes.id)",
        (episodes,),
    )
    return len(rows), empty.rowcount


_OLD = """
    SELECT a.id, a.episode_id FROM alerts a LEFT JOIN episodes e ON e.id = a.episode_id
    WHERE a.at_us < ? AND (a.episode_id IS NULL OR (e.state = 'resolved' AND e.resolved_us < ?))
    AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.alert_id = a.id AND d.state <> 'delivered')
"""
