"""Units of work at the single writer: what a call's two transactions cost at 1, 16 and 64 waiters, `synchronous=FULL`.

Each waiter admits and settles a call and then does it again: a hold and an event, then its end and another event.
usage: python tests/bench/writer.py [FOLDER ON A REAL DISK]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import machine
import uvloop
from load import percentile

from haltline.audit import Audit, Event, Kind
from haltline.clock import Clock
from haltline.identity import Identity, new_id
from haltline.ledger import Hold, Ledger
from haltline.redact import Redactor
from haltline.store.database import connect_writer
from haltline.store.writer import Writer

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["main"]

WAITERS = (1, 16, 64)
SECONDS = 2.0
DAY_US = 86_400_000_000
ARGUMENTS = {"text": "hello, this is what an agent says"}
RESULT = {"result": {"content": [{"type": "text", "text": "hello, this is what an agent says"}], "isError": False}}


class Bench:
    """A store with one agent and one session, and the two units of a call."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(lambda: connect_writer(folder / "haltline.db"), Clock().now_us)
        self._identity = Identity(b"p" * 32)
        self._ledger = Ledger(lambda now_us: (now_us - now_us % DAY_US, now_us - now_us % DAY_US + DAY_US))
        self._audit = Audit(Redactor(()))
        self._agent = self._session = ""

    async def open(self) -> None:
        self.writer.start()
        await self.writer.run(self._set_up)

    def _set_up(self, tx: Tx) -> None:
        agent = self._identity.add_agent(tx, handle="bench", tier="production")
        session = self._identity.open_session(
            tx, agent, task="benchmark", expires_us=tx.now_us + DAY_US, opened_by="bench"
        )
        self._agent, self._session = agent.id, session.id

    def admit(self, tx: Tx, call: str) -> None:
        self._ledger.spent(tx, self._agent, self._session, ())
        hold = Hold(
            id=call,
            agent_id=self._agent,
            session_id=self._session,
            tool="shop__pay",
            upstream="shop",
            amount_micros=10,
            charged_micros=None,
            state="held",
            charge_on_error=True,
            read_only=False,
            admitted_us=tx.now_us,
            doubt_us=None,
            charges_at_us=None,
            why=None,
        )
        self._ledger.hold(tx, hold)
        self._audit.append(tx, self._event(Kind.CALL_ALLOWED, call, "arguments", ARGUMENTS))

    def settle(self, tx: Tx, call: str) -> None:
        self._ledger.settle(tx, call, 10)
        self._audit.append(tx, self._event(Kind.CALL_SUCCEEDED, call, "result", RESULT))

    def _event(self, kind: Kind, call: str, part: str, value: object) -> Event:
        return Event(
            kind,
            "agent:bench",
            agent="bench",
            agent_id=self._agent,
            session=self._session,
            call=call,
            tool="shop__pay",
            upstream="shop",
            body={"amount_micros": 10},
            payloads={part: value},
        )

    async def waiter(self, until: float, took: list[float]) -> None:
        while time.perf_counter() < until:
            call = new_id("call")
            for unit in (self.admit, self.settle):
                begun = time.perf_counter()
                await self.writer.run(lambda tx, unit=unit, call=call: unit(tx, call))  # type: ignore[misc]  # bound now
                took.append(time.perf_counter() - begun)


async def main(parent: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="haltline-bench-", dir=parent) as name:
        folder = Path(name)
        print(machine.described(folder))
        bench = Bench(folder)
        await bench.open()
        try:
            for waiters in WAITERS:
                took: list[float] = []
                begun = time.perf_counter()
                await asyncio.gather(*(bench.waiter(begun + SECONDS, took) for _ in range(waiters)))
                each = (time.perf_counter() - begun) / len(took) * 1e6
                p50, p99 = (percentile(took, share) * 1000 for share in (0.50, 0.99))
                print(
                    f"{waiters:3} waiters: {each:6.0f} µs a unit, {1e6 / each:7,.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms"
                )
        finally:
            await bench.writer.aclose()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
