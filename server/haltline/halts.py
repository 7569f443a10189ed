"""Halts: durable stops of a session, an agent or everything, each lifted by a person alone (P4, R16).

Owns the tables halts and allowances. A halt is set and lifted once; a second halt of a halted subject changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.errors import Conflict
from haltline.policy.model import CapKind, HaltFact
from haltline.store.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haltline.store.reader import Reader
    from haltline.store.writer import Tx

__all__ = ["EVERYTHING", "Allowance", "HaltRow", "HaltScope", "Halts"]

HaltScope = Literal["session", "agent", "everything"]
EVERYTHING = "everything"
"""The subject of a halt of everything."""


@dataclass(frozen=True, slots=True)
class HaltRow:
    id: int
    scope: HaltScope
    subject_id: str
    code: str
    text: str
    cap: CapKind | None
    by: str
    set_us: int

    def fact(self) -> HaltFact:
        return HaltFact(self.scope, self.code, self.text, self.by, self.set_us)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a person added to a cap until a time: micro-units, or calls for the cap on calls."""

    scope: HaltScope
    subject_id: str
    cap: CapKind
    amount: int
    until_us: int
    by: str


class Halts:
    """Every method takes the transaction of its caller. What stops whom, or adds to whose caps, is remembered."""

    def __init__(self) -> None:
        self._set: Remembered[tuple[str, str], tuple[HaltFact, ...]] = Remembered()
        self._granted: Remembered[str, tuple[Allowance, ...]] = Remembered()
        self.of_everything: HaltRow | None = None
        """As committed, for whoever asks whether calls would be admitted. No decision reads it."""

    def known(self, tx: Tx) -> None:
        """Once, at start: what earlier runs left."""
        self.of_everything = self.get(tx, "everything", EVERYTHING)

    def forget(self) -> None:
        """Read the rows again; when a commit failed."""
        self._set.forget()
        self._granted.forget()

    def on(self, tx: Tx, session_id: str, agent_id: str, above: Sequence[str] = ()) -> tuple[HaltFact, ...]:
        """What stops a call of this session and agent now: a call needs none of the three to be set, nor one of a session
        `above` it (R20).
        """
        found = self._facts(tx, "session", session_id)
        for one in above:
            found += self._facts(tx, "session", one)
        return found + self._facts(tx, "agent", agent_id) + self._facts(tx, "everything", EVERYTHING)

    def _facts(self, tx: Tx, scope: HaltScope, subject_id: str) -> tuple[HaltFact, ...]:
        """The halt of one subject, or none."""
        known = self._set.get((scope, subject_id))
        if known is None:
            halt = self.get(tx, scope, subject_id)
            known = self._set.keep((scope, subject_id), () if halt is None else (halt.fact(),))
        return known

    def of_credential(self, tx: Tx, credential_id: str) -> str | None:
        """An unended session that this agent credential opened and that is halted (R24); None: there is none."""
        row = tx.execute(
            "SELECT id FROM sessions WHERE auto_credential = ? AND state = 'open' AND expires_us > ? AND EXISTS (SELECT 1"
            " FROM halts WHERE lifted_us IS NULL AND scope = 'session' AND subject_id = sessions.id) LIMIT 1",
            (credential_id, tx.now_us),
        ).fetchone()
        return None if row is None else str(row[0])

    def all_set(self, tx: Tx) -> list[HaltRow]:
        return [_halt(row) for row in tx.execute(f"{_HALT} WHERE lifted_us IS NULL ORDER BY set_us")]

    async def standing(self, reader: Reader, now_us: int, most: int) -> list[HaltRow]:
        """Every halt that stops somebody now, the oldest first; those of sessions that have ended are left out."""
        rows = await reader.rows(
            f"{_HALT} WHERE lifted_us IS NULL AND (scope <> 'session' OR EXISTS (SELECT 1 FROM sessions"  # noqa: S608 - a constant
            " WHERE sessions.id = subject_id AND state = 'open' AND expires_us > ?)) ORDER BY set_us, id LIMIT ?",
            (now_us, most),
        )
        return [_halt(tuple(row)) for row in rows]

    def get(self, tx: Tx, scope: HaltScope, subject_id: str) -> HaltRow | None:
        row = tx.execute(
            f"{_HALT} WHERE lifted_us IS NULL AND scope = ? AND subject_id = ?", (scope, subject_id)
        ).fetchone()
        return None if row is None else _halt(row)

    def set(
        self, tx: Tx, scope: HaltScope, subject_id: str, *, code: str, text: str, by: str, cap: str | None = None
    ) -> bool:
        """Returns False when it was halted already (the first cause stays)."""
        self._set.changes(tx, (scope, subject_id))
        cursor = tx.execute(
            "INSERT INTO halts (scope, subject_id, code, text, cap, by, set_us) VALUES (?,?,?,?,?,?,?)"
            " ON CONFLICT DO NOTHING",
            (scope, subject_id, code, text, cap, by, tx.now_us),
        )
        if cursor.rowcount == 1 and scope == "everything":
            self._remember(tx, self.get(tx, scope, subject_id))
        return cursor.rowcount == 1

    def lift(self, tx: Tx, halt: HaltRow, *, by: str, reason: str) -> None:
        """Lift exactly this one. Raises Conflict if it is not set any more."""
        self._set.changes(tx, (halt.scope, halt.subject_id))
        cursor = tx.execute(
            "UPDATE halts SET lifted_us = ?, lifted_by = ?, lift_reason = ? WHERE id = ? AND lifted_us IS NULL",
            (tx.now_us, by, reason, halt.id),
        )
        if cursor.rowcount != 1:
            raise Conflict("that halt was lifted already")
        if halt.scope == "everything":
            self._remember(tx, None)

    def _remember(self, tx: Tx, halt: HaltRow | None) -> None:
        def committed() -> None:
            self.of_everything = halt

        tx.after_commit(committed)

    def allow(
        self, tx: Tx, scope: HaltScope, subject_id: str, cap: CapKind, amount: int, *, until_us: int, by: str
    ) -> None:
        """Add to a cap for a limited time: micro-units, or calls for the cap on calls."""
        self._granted.changes(tx, subject_id)
        tx.execute(
            "INSERT INTO allowances (scope, subject_id, cap, amount, until_us, by, granted_us) VALUES (?,?,?,?,?,?,?)",
            (scope, subject_id, cap, amount, until_us, by, tx.now_us),
        )

    def granted(self, tx: Tx, subject_ids: Iterable[str]) -> list[Allowance]:
        """Each of what people added to the caps of these subjects and is still in force."""
        return [
            one for subject_id in subject_ids for one in self._granted_to(tx, subject_id) if one.until_us > tx.now_us
        ]

    def _granted_to(self, tx: Tx, subject_id: str) -> tuple[Allowance, ...]:
        """Those in force, and some that were when they were read."""
        known = self._granted.get(subject_id)
        if known is None:
            rows = tx.execute(f"{_ALLOWANCE} WHERE subject_id = ? AND until_us > ?", (subject_id, tx.now_us))
            known = self._granted.keep(subject_id, tuple(_allowance(row) for row in rows))
        return known

    def differing(self, tx: Tx, scope: HaltScope, subject_id: str) -> list[tuple[str, int, int]]:
        """What is remembered of a subject otherwise than the rows say it: `halted` or `added_to_<cap>`, remembered, rows."""
        fresh = Halts()
        pairs = [("halted", len(self._facts(tx, scope, subject_id)), len(fresh._facts(tx, scope, subject_id)))]
        mine, rows = self.allowances(tx, (subject_id,)), fresh.allowances(tx, (subject_id,))
        pairs += [(f"added_to_{cap.value}", mine.get(cap, 0), rows.get(cap, 0)) for cap in {**mine, **rows}]
        return [pair for pair in pairs if pair[1] != pair[2]]

    async def granted_to_all(self, reader: Reader, now_us: int, most: int) -> list[Allowance]:
        """Of sessions that have not ended, and of agents; those that end first come first."""
        rows = await reader.rows(
            f"{_ALLOWANCE} WHERE until_us > ? AND (scope <> 'session' OR EXISTS (SELECT 1 FROM sessions"  # noqa: S608 - a constant
            " WHERE sessions.id = subject_id AND state = 'open' AND expires_us > ?)) ORDER BY until_us, id LIMIT ?",
            (now_us, now_us, most),
        )
        return [_allowance(tuple(row)) for row in rows]

    def allowances(self, tx: Tx, subject_ids: Iterable[str]) -> dict[CapKind, int]:
        """What people added to the caps of these subjects and is still in force."""
        totals: dict[CapKind, int] = {}
        for one in self.granted(tx, subject_ids):
            totals[one.cap] = totals.get(one.cap, 0) + one.amount
        return totals


_HALT = "SELECT id, scope, subject_id, code, text, cap, by, set_us FROM halts"


def _halt(row: tuple[object, ...]) -> HaltRow:
    identifier, scope, subject_id, code, text, cap, by, set_us = row
    return HaltRow(identifier, scope, subject_id, code, text, None if cap is None else CapKind(cap), by, set_us)  # type: ignore[arg-type]


_ALLOWANCE = "SELECT scope, subject_id, cap, amount, until_us, by FROM allowances"


def _allowance(row: tuple[object, ...]) -> Allowance:
    scope, subject_id, cap, *rest = row
    return Allowance(scope, subject_id, CapKind(cap), *rest)  # type: ignore[arg-type]  # the columns of _ALLOWANCE
