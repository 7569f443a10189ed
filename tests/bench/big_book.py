"""A book of many calls, written by the ledger's and the log's own units: every ending, sub-agents, allowances, late answers.

    python tests/bench/big_book.py FOLDER --calls 1000000      writes FOLDER/haltline.db
    haltline ledger check --data FOLDER                        proves it

Without a policy and a wire between, so that a million takes minutes; nothing is written beside the units.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haltline.audit import Audit, Event, Kind
from haltline.halts import Halts
from haltline.identity import AgentRow, Identity, SessionRow
from haltline.ledger import Hold, Ledger
from haltline.policy.model import CapKind, Caps
from haltline.redact import Redactor
from haltline.store.writer import Tx
from support.records import HOUR, SECOND, Store, announce, utc_day

__all__ = ["write_book"]

AT_ONCE = 250
"""Calls in one transaction."""
GAP_US = 40_000
DOUBT_US = 24 * HOUR
FACTS = {
    "task": [1_200_000, 50_000], "hour": [900_000, 0], "day": [4_100_000, 50_000], "calls": [31, 1], "running": 1,
}  # fmt: skip
ENDINGS = ("settled",) * 88 + ("failed",) * 4 + ("voided",) * 2 + ("in_doubt",) * 3 + ("resolved",) * 2 + ("held",)


class _Book:
    def __init__(self, folder: Path, seed: int) -> None:
        self.store = Store(folder)
        self.store.connection.execute("PRAGMA synchronous = OFF")  # nothing here is about power
        self.audit, self.ledger = Audit(Redactor()), Ledger(utc_day)
        self.identity, self.halts = Identity(bytes(32)), Halts()
        self.dice = random.Random(seed)
        self.people: list[tuple[AgentRow, SessionRow]] = []

    def open(self, tx: Tx, sessions: int) -> None:
        """Agents with some sessions each; every fourth session has a child, and that one's budget is a slice."""
        for number in range(max(1, sessions // 8)):
            agent = self.identity.add_agent(
                tx, handle=f"agent-{number}", tier="wide", caps=Caps(day_micros=9_000_000 + number)
            )
            for which in range(6):
                more: dict[str, Any] = {
                    "task": f"run {which}",
                    "expires_us": tx.now_us + 400 * DOUBT_US,
                    "opened_by": "test",
                }
                session = self.identity.open_session(tx, agent, **more)
                self.people.append((agent, session))
                if which % 3 == 0:
                    child = self.identity.open_session(
                        tx, agent, caps=Caps(task_micros=500_000), parent=session.id, **more
                    )
                    self.people.append((agent, child))
        announce(tx, self.audit)

    def resumed(self, tx: Tx, number: int) -> None:
        """Somebody added to a cap."""
        agent, session = self.people[number % len(self.people)]
        of_session = bool(number % 2)
        cap, subject = (CapKind.TASK, session.id) if of_session else (CapKind.DAY, agent.id)
        until_us, scope = tx.now_us + DOUBT_US, "session" if of_session else "agent"
        self.halts.allow(tx, scope, subject, cap, 70_000 + number, until_us=until_us, by="operator:anna")
        body = {"allowance": 70_000 + number, "cap": cap.value, "until_us": until_us, "reason": "it needs more"}
        kind = Kind.SESSION_RESUMED if of_session else Kind.AGENT_RESUMED
        event = Event(
            kind,
            "operator:anna",
            agent=agent.handle,
            agent_id=agent.id,
            session=session.id if of_session else None,
            body=body,
        )
        self.audit.append(tx, event)

    def call(self, tx: Tx, number: int) -> None:
        agent, session = self.people[self.dice.randrange(len(self.people))]
        call, amount, free = f"call_{self.dice.getrandbits(96):024x}", 10_000 * (number % 12), number % 12 == 0
        hold = Hold(
            call, agent.id, session.id, "shop__pay", "shop", amount, None, "held", not free, free, 0, None, None, None
        )
        self.ledger.hold(tx, hold)
        terms = {"read_only": True, "charge_on_error": False} if free else {}
        body = {
            "decision": "allow",
            "amount_micros": amount,
            "price": "tools.yaml: shop__pay fixed 0.05",
            "facts": FACTS,
            "from": "127.0.0.1",
            **terms,
        }
        self._said(tx, Kind.CALL_ALLOWED, hold, agent, body, {"arguments": {"order": number, "note": "as agreed"}})
        tx.now_us += GAP_US // 2
        self._end(tx, hold, agent, self.dice.choice(ENDINGS))
        tx.now_us += GAP_US // 2

    def _end(self, tx: Tx, hold: Hold, agent: AgentRow, how: str) -> None:
        amount, body = (
            hold.amount_micros,
            {"outcome": {"transport": "ok"}, "duration_us": GAP_US // 2, "amount_micros": hold.amount_micros},
        )
        if how in {"settled", "failed"}:
            charged = amount + self.dice.choice((0, 0, 0, 1, 5_000))
            self.ledger.settle(tx, hold.id, charged)
            kind = Kind.CALL_SUCCEEDED if how == "settled" else Kind.CALL_FAILED
            self._said(
                tx,
                kind,
                hold,
                agent,
                {**body, "charged_micros": charged},
                {"result": {"content": [{"type": "text", "text": "done"}]}},
            )
        elif how == "voided":
            self.ledger.void(tx, hold.id, "nothing was sent")
            self._said(tx, Kind.CALL_VOIDED, hold, agent, {**body, "charged_micros": 0})
        elif how != "held":
            self.ledger.doubt(tx, hold.id, "the line broke", tx.now_us + DOUBT_US)
            self._said(tx, Kind.CALL_IN_DOUBT, hold, agent, {**body, "charges_at_us": tx.now_us + DOUBT_US})
            tx.now_us += 1
            if self.dice.random() < 0.3:
                self._said(tx, Kind.CALL_LATE_ANSWER, hold, agent, {"hold": "in_doubt", "would_charge_micros": amount})
            if how == "resolved":
                self._resolve(tx, hold, agent, body)

    def _resolve(self, tx: Tx, hold: Hold, agent: AgentRow, body: dict[str, Any]) -> None:
        tx.now_us += 1
        if self.dice.random() < 0.5:
            self.ledger.void(tx, hold.id, "operator:anna: it did not happen")
            more: dict[str, Any] = {"outcome": "void", "charged_micros": 0}
        else:
            self.ledger.settle(tx, hold.id, hold.amount_micros + 7, "operator:anna: the bank says so")
            more = {"outcome": "settle", "charged_micros": hold.amount_micros + 7}
        self._said(tx, Kind.CALL_RESOLVED, hold, agent, body | more)

    def _said(
        self,
        tx: Tx,
        kind: Kind,
        hold: Hold,
        agent: AgentRow,
        body: dict[str, Any],
        payloads: dict[str, Any] | None = None,
    ) -> None:
        event = Event(
            kind, f"agent:{agent.handle}", agent=agent.handle, agent_id=agent.id, session=hold.session_id, call=hold.id, tool=hold.tool,
            upstream=hold.upstream, policy="p_0123456789ab", body=body, payloads=payloads,
        )  # fmt: skip
        self.audit.append(tx, event)


def write_book(folder: Path, calls: int, *, seed: int = 4711) -> Path:
    """The database with so many calls. `folder` must be there."""
    book = _Book(folder, seed)
    book.store.run(lambda tx: book.open(tx, max(8, calls // 500)))
    for done, some in _pieces(calls):

        def unit(tx: Tx, some: range = some) -> None:
            for number in some:
                book.call(tx, number)
            book.resumed(tx, some.start // AT_ONCE)
            book.store.now_us = tx.now_us + SECOND

        book.store.run(unit)
        if sys.stderr.isatty():
            print(f"\r{done:,} calls", end="", file=sys.stderr)
    book.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    book.store.close()
    return book.store.path


def _pieces(calls: int) -> Iterator[tuple[int, range]]:
    at_once = min(AT_ONCE, max(1, calls // 10))
    for start in range(0, calls, at_once):
        yield start, range(start, min(start + at_once, calls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls", type=int, default=1_000_000)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    path = write_book(asked.folder, asked.calls)
    print(
        json.dumps({"calls": asked.calls, "bytes": path.stat().st_size, "seconds": round(time.monotonic() - began, 1)})
    )


if __name__ == "__main__":
    main()
