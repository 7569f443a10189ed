"""The pins: what of each tool's definition was approved, and what its upstream shows now.

Owns the table pins. What it remembers is read from the rows at first use, changes with them inside the writer's units and is
dropped when one fails (R15); what the event loop may read of it is handed over by commits alone. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import orjson

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["TEXT_MAX_CHARS", "Key", "Pin", "Pins", "Texts"]

Key = tuple[str, str]
"""(upstream, its own name of the tool)."""
TEXT_MAX_CHARS = 262_144
"""A longer definition is compared by its digest alone."""


@dataclass(frozen=True, slots=True)
class Pin:
    """`pinned` is the digest that was approved, `seen` the one shown last; `why` says what about it must be looked at."""

    upstream: str
    tool: str
    name: str
    state: Literal["pinned", "quarantined"]
    pinned: str | None
    seen: str
    why: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return (self.upstream, self.tool)

    def serves(self, digest: str) -> bool:
        """Whether a tool with this definition may be listed and called."""
        return self.state == "pinned" and digest == self.seen == self.pinned


@dataclass(frozen=True, slots=True)
class Texts:
    """The definitions behind a pin's digests, canonical JSON; None where there is none, or it is too long to keep."""

    pinned: str | None
    seen: str | None
    seen_us: int
    pinned_us: int | None
    pinned_by: str | None


class Pins:
    """Methods with a `tx` run in the writer; `shown` and `generation` belong to the event loop."""

    def __init__(self) -> None:
        self._known: Mapping[Key, Pin] | None = None
        self._shown: Mapping[Key, Pin] = MappingProxyType({})
        self._listeners: list[Callable[[], None]] = []
        self.generation = 0
        """Another number whenever what is shown changed."""

    # in the writer

    def forget(self) -> None:
        """Read the rows again; when a unit or a commit failed."""
        self._known = None

    def known(self, tx: Tx) -> Mapping[Key, Pin]:
        """All pins, with what this batch of units has changed."""
        if self._known is None:
            rows = tx.execute("SELECT upstream, tool, name, state, pinned, seen, why FROM pins").fetchall()
            self._remember(tx, {(row[0], row[1]): _pin(row) for row in rows})
        assert self._known is not None
        return self._known

    def get(self, tx: Tx, upstream: str, tool: str) -> Pin | None:
        return self.known(tx).get((upstream, tool))

    def show(self, tx: Tx, changes: Iterable[tuple[Pin, str]]) -> None:
        """What an upstream shows now: each pin as it is from now on, with the text of the definition `seen`."""
        known = dict(self.known(tx))
        for pin, text in changes:
            kept = text if len(text) <= TEXT_MAX_CHARS else None
            approved = pin.state == "pinned"
            tx.execute(
                _SHOW,
                (
                    *pin.key, pin.name, pin.state, pin.pinned, kept if approved else None, pin.seen, kept,
                    orjson.dumps(pin.why).decode(), tx.now_us, tx.now_us,
                    tx.now_us if approved else None, "first sight" if approved else None,
                ),
            )  # fmt: skip
            known[pin.key] = pin
        self._remember(tx, known)

    def approve(self, tx: Tx, pin: Pin, by: str) -> Pin:
        """What it shows now is what is approved from now on."""
        tx.execute(
            "UPDATE pins SET state = 'pinned', pinned = seen, pinned_text = seen_text, pinned_us = ?, pinned_by = ?"
            " WHERE upstream = ? AND tool = ?",
            (tx.now_us, by, *pin.key),
        )
        approved = replace(pin, state="pinned", pinned=pin.seen)
        self._remember(tx, {**self.known(tx), pin.key: approved})
        return approved

    def texts(self, tx: Tx, pin: Pin) -> Texts:
        row = tx.execute(
            "SELECT pinned_text, seen_text, seen_us, pinned_us, pinned_by FROM pins WHERE upstream = ? AND tool = ?",
            pin.key,
        ).fetchone()
        return Texts(*row)

    def _remember(self, tx: Tx, known: Mapping[Key, Pin]) -> None:
        self._known = known  # never changed in place: the event loop may hold it
        tx.on_rollback(self.forget)
        tx.after_commit(partial(self._publish, known))

    # on the event loop

    def shown(self, upstream: str, tool: str) -> Pin | None:
        """As of the last commit. None: never seen, so not to be listed."""
        return self._shown.get((upstream, tool))

    def quarantined(self, upstream: str) -> list[Pin]:
        return [pin for pin in self._shown.values() if pin.upstream == upstream and pin.state == "quarantined"]

    def on_change(self, listener: Callable[[], None]) -> None:
        """Called after another set of pins is shown."""
        self._listeners.append(listener)

    def _publish(self, known: Mapping[Key, Pin]) -> None:
        if known is self._shown:
            return
        self._shown = known
        self.generation += 1
        for listener in self._listeners:
            listener()


_SHOW = """
INSERT INTO pins (upstream, tool, name, state, pinned, pinned_text, seen, seen_text, why, first_us, seen_us, pinned_us, pinned_by)
VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT (upstream, tool) DO UPDATE SET name = excluded.name, state = excluded.state, seen = excluded.seen,
    seen_text = excluded.seen_text, why = excluded.why, seen_us = excluded.seen_us
"""
"""A row that is there keeps what was approved: only `approve` changes that."""


def _pin(row: tuple[str, str, str, Literal["pinned", "quarantined"], str | None, str, str]) -> Pin:
    upstream, tool, name, state, pinned, seen, why = row
    return Pin(upstream, tool, name, state, pinned, seen, tuple(orjson.loads(why)))
