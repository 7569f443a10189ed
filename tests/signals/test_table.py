"""Whatever becomes of units, commits, memory, snapshots, starts and zones: what is remembered is what the log says (R8, R15, P12)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.audit import Audit, Event, Kind
from haltline.redact import Redactor
from haltline.signals.state import AgentSignals
from haltline.signals.table import Signals, folded
from haltline.store.database import migrations
from haltline.store.unit import Batch, Tx

AGENTS = ("a", "b", "c")
ZONES = ("UTC", "America/St_Johns", "Asia/Kathmandu")
START_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "end", "end", "refuse", "resume", "fail", "lose", "save", "start"])
        | st.sampled_from(["zone", "count", "damage", "older", "look"]),
        st.sampled_from(AGENTS),
        st.sampled_from([1, 1_000_000, 900_000_000, 5 * HOUR_US, 200 * HOUR_US]),
        st.integers(0, 6),
    ),
    min_size=40,
    max_size=80,
)


class Told(Exception):
    """A unit that fails."""


class Story:
    """A broker's log and signals over a real store; of all agents fewer are remembered than there are."""

    def __init__(self, store: sqlite3.Connection) -> None:
        self.store = store
        self.now_us = START_US
        self.zone = ZONES[0]
        self.open: dict[str, list[tuple[str, int, int]]] = {agent: [] for agent in AGENTS}
        self.calls = 0
        for sql in migrations().values():
            store.executescript(sql)
        for agent in AGENTS:
            store.execute("INSERT INTO agents (id, handle, tier, created_us) VALUES (?,?,'t',0)", (agent, agent))
        self.begin()

    def begin(self) -> None:
        self.audit, self.signals = Audit(Redactor()), Signals(lambda: self.zone, bytes(32), remembered_max=2)
        self.audit.listener = self.signals.heard

    def unit(self, work: Callable[[Tx], object], *, lost: bool = False) -> None:
        self.store.execute("BEGIN")
        batch = Batch(self.store, self.now_us)
        tx = Tx(batch)
        try:
            work(tx)
        except Told as error:
            tx.undo(error)
        else:
            tx.end()
        if lost:
            self.store.execute("ROLLBACK")
            self.audit.forget()
            self.signals.forget()
        else:
            batch.write()
            self.store.execute("COMMIT")

    def step(self, act: str, agent: str, which: int) -> None:
        match act:
            case "save" | "look":
                self.unit(self.signals.save if act == "save" else lambda tx: self.signals.agent(tx, agent))
            case "start":
                self.begin()
                self.unit(lambda tx: [None for _ in iter(lambda: self.signals.catch_up(tx), False)])
            case "zone":
                self.zone = ZONES[which % len(ZONES)]
            case "count":
                self.unit(lambda tx: self._count(tx, agent))
            case "damage":
                self.unit(lambda tx: tx.execute("UPDATE signals SET state = x'7b7d' WHERE agent_id = ?", (agent,)))
                self.begin()
            case "older":
                self.unit(lambda tx: tx.execute("UPDATE signals SET form = '0' WHERE agent_id = ?", (agent,)))
                self.begin()
            case _:
                self._event(act, agent, which)

    def _event(self, act: str, agent: str, which: int) -> None:
        kind, call = Kind.CALL_ALLOWED, f"{self.calls}"
        body = {"amount_micros": which * 1_000, "same": f"{which}", "destination": f"d{which}", "facts": None}
        if act == "end":
            if not self.open[agent]:
                return
            call, at_us, amount = self.open[agent].pop(which % len(self.open[agent]))
            kind = (Kind.CALL_SUCCEEDED, Kind.CALL_FAILED, Kind.CALL_IN_DOUBT)[which % 3]
            body = {"amount_micros": amount, "charged_micros": which * 900, "admitted_us": at_us}
        elif act in {"refuse", "resume"}:
            kind, body = (Kind.CALL_DENIED, {}) if act == "refuse" else (Kind.AGENT_RESUMED, {})
        elif act == "call":
            self.calls += 1
            self.open[agent].append((call, self.now_us, which * 1_000))
        session = None if act == "resume" else f"s{which % 2}"
        event = Event(kind, "t", agent_id=agent, session=session, call=call, tool="t", upstream="u", body=body)

        def work(tx: Tx) -> None:
            self.audit.append(tx, event)
            if act == "fail":
                raise Told

        self.unit(work, lost=act == "lose")

    def _count(self, tx: Tx, agent: str) -> None:
        up_to = self.signals.agent(tx, agent).week_after
        past = folded(self._bodies(agent, up_to), AgentSignals(), self.zone)
        self.signals.counted(tx, agent, self.zone, up_to, past.week)

    def _bodies(self, agent: str, up_to: int) -> list[bytes]:
        rows = self.store.execute(
            "SELECT body FROM events WHERE agent_id = ? AND seq <= ? ORDER BY seq", (agent, up_to)
        )
        return [row[0] for row in rows]

    def compare(self) -> None:
        for agent in AGENTS:
            self.unit(lambda tx, agent=agent: self._count(tx, agent))
            live: list[AgentSignals] = []
            self.unit(lambda tx, agent=agent: live.append(self.signals.agent(tx, agent)))
            said = folded(self._bodies(agent, 1 << 60), AgentSignals(zone=self.zone), self.zone).stored()
            assert {**live[0].stored(), "seq": 0} == {**said, "seq": 0}


@pytest.mark.promise("R8", "R15", "P12")
@given(STEPS)
def test_what_is_remembered_is_what_the_log_says_whatever_became_of_it(steps):
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as store:
        story = Story(store)
        for act, agent, later_us, which in steps:
            story.now_us += later_us
            story.step(act, agent, which)
        story.compare()
