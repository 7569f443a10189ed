"""Rows kept in memory by the part that owns them, so that a call that meets them again asks nothing of SQLite.

They always say what the writer's connection sees now: dropped by whoever changes a row, once more if that unit rolls back,
and all together when a batch is lost. Touched by units alone. Bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from haltline.store.unit import Tx

__all__ = ["REMEMBERED_MAX", "Remembered"]

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

REMEMBERED_MAX = 20_000
"""More rows of one kind than this are all dropped, and read again when asked for."""


class Remembered(Generic[K, V]):
    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._most = most
        self._rows: dict[K, V] = {}
        self.get = self._rows.get

    def keep(self, key: K, row: V) -> V:
        if len(self._rows) >= self._most:
            self._rows.clear()
        self._rows[key] = row
        return row

    def changes(self, tx: Tx, *keys: K) -> None:
        """These rows are other ones from here on; all of them, where no key is named."""

        def drop() -> None:
            for key in keys:
                self._rows.pop(key, None)

        step = drop if keys else self.forget
        step()
        tx.on_rollback(step)

    def forget(self) -> None:
        self._rows.clear()
