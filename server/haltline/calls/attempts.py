"""Attempts with no valid credential: one audit event for each source, reason and minute, with a count (R23).

So that a flood of bad tokens fills neither the log nor the disk. Counted on the event loop, written by `flush`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from haltline.audit import Event, Kind

if TYPE_CHECKING:
    from haltline.audit import Audit
    from haltline.store.writer import Tx, Writer

__all__ = ["FLUSH_EVERY_S", "Attempts"]

FLUSH_EVERY_S = 60.0
_SOURCES_MAX = 1_000
"""Beyond this many in a minute, the rest are counted together."""


class Attempts:
    def __init__(self, writer: Writer, audit: Audit) -> None:
        self._writer = writer
        self._audit = audit
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def note(self, listener: str, source: str, code: str) -> None:
        """One refused attempt on a listener (`agents` or `control`)."""
        key = (listener, source, code)
        if key not in self._counts and len(self._counts) >= _SOURCES_MAX:
            key = (listener, "others", code)
        self._counts[key] += 1

    async def flush(self) -> None:
        """Write what was counted; it is counted again where the write fails."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return

        def write(tx: Tx) -> None:
            for (listener, source, code), count in sorted(counts.items()):
                body = {"listener": listener, "code": code, "count": count}
                self._audit.append(tx, Event(Kind.CREDENTIAL_REFUSED, f"unknown:{source}", body=body))

        try:
            await self._writer.run(write)
        except BaseException:
            self._counts.update(counts)
            raise
