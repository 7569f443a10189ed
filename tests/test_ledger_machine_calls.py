"""Any history of calls, retries, bills, sub-agents, resumes, crashes and clocks that are set: what the broker grants, refuses,
charges and halts is what the rules say of it.

The whole broker, one transaction at a time (`support.stepped_broker`), against a model that adds a list of calls up anew
(`support.money_model`). 10,000 runs: HYPOTHESIS_PROFILE=proofs. Each run of the tests says its seed at the top; `--hypothesis-seed=N` runs the same again.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from haltline.audit_check import LogWalk
from haltline.books import Books, check_books
from haltline.clock import STEP_MAX_US
from haltline.errors import Conflict
from haltline.policy.model import Caps
from support.money_model import DAY, HOUR, Call, Grant, Model, Person, Refusal
from support.stepped_broker import Fault, Made, SteppedBroker, Template, Times, template

SECOND, MINUTE = 1_000_000, 60_000_000
DOUBT_US = 2 * HOUR
POLICY = """
version: "1"
currency: USD
time_zone: {zone}
defaults: {{doubt_charges_after: 2h}}
tiers:
  spender:
    tools: ["*"]
    caps: {{task: "1.00", hour: "0.90", day: "1.20", calls: 9, rate: 7/minute, concurrent: 5}}
    children: {{most: 9, depth: 3}}
tools:
  shop__pay: {{price: {{argument: args.cents, each: "0.01", at_most: "0.40"}}}}
  shop__ask: {{price: {{result: structuredContent.cost, at_most: "0.30"}}}}
  shop__soft: {{price: "0.05", charge_on_error: false}}
  shop__run: {{price: {{per_second: "0.001"}}, timeout_s: 300}}
  shop__look: {{price: "0.00", read_only: true}}
"""
HOLDS = {"ask": 300_000, "soft": 50_000, "run": 300_000, "look": 0}
TOOLS = ["pay", *HOLDS]
AGENT_CAPS = {"hour": 900_000, "day": 1_200_000, "rate": 7, "concurrent": 5}
ROOT = {"task": 1_000_000, "calls": 9}
SHORT_US = 20 * HOUR
FIRST_US = 1_767_000_000_000_000
"""When everybody was added: before any day that a run is about."""
PEOPLE = {
    "root": Person("one", caps=ROOT),
    "child": Person("one", ("root",), {"task": 500_000, "calls": 4}),
    "grandchild": Person("one", ("child", "root"), {"task": 300_000}),
    "other": Person("one", caps=ROOT | {"task": 600_000}),
    "lone": Person("two", caps=ROOT),
    "short": Person("two", caps=ROOT),
}
DAYS = {
    "UTC": (1_774_700_000, 1_792_800_000),
    "Europe/Berlin": (1_774_738_800, 1_792_879_200),  # 2026-03-29 has 23 hours, 2026-10-25 has 25
    "Australia/Lord_Howe": (1_775_307_600, 1_791_036_000),  # 2026-04-05: 24.5, 2026-10-04: 23.5
    "Africa/Cairo": (1_776_981_600, 1_793_221_200),  # both at midnight
}
"""Zones, each with days on which its clocks are changed."""


def add_people(made: Template, parts: Any, tx: Any) -> None:
    made.tokens["anna"] = parts.identity.add_operator(tx, "anna", "person")
    agents = {name: parts.identity.add_agent(tx, handle=name, tier="spender") for name in ("one", "two")}
    made.ids |= {name: agent.id for name, agent in agents.items()}
    for name, person in PEOPLE.items():
        caps = Caps(task_micros=person.caps["task"], calls=person.caps.get("calls"))
        session = parts.identity.open_session(
            tx, agents[person.agent], task="t", expires_us=FIRST_US + 5_000 * DAY, opened_by="test", caps=caps,
            parent=made.ids[person.above[0]] if person.above else None,
        )  # fmt: skip
        made.ids[name] = session.id
        made.tokens[name] = parts.identity.issue_session_credential(tx, session)


@functools.cache
def people_in(zone: str) -> Template:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return template(folder, POLICY.format(zone=zone), TOOLS, FIRST_US, add_people)


def said_by(number: int, how: str, cost: int | None) -> dict[str, Any] | None:
    """What the upstream answers; None: the line broke."""
    if how in {"line", "protocol"}:
        return None if how == "line" else {"error": {"code": -32000, "message": f"no {number}"}}
    said: dict[str, Any] = {"content": [{"type": "text", "text": str(number)}], "isError": how == "error"}
    if cost is not None:
        said["structuredContent"] = {"cost": f"{cost // SECOND}.{cost % SECOND:06d}"}
    return {"result": said}


sessions = st.sampled_from([*PEOPLE, "root", "child"])
tools = st.sampled_from(["pay", *TOOLS])
cents = st.sampled_from([0, 5, 5, 30, 40])
faults: st.SearchStrategy[Fault | None] = st.sampled_from(
    [None] * 12 + ["lost", "stood", "killed before", "killed after"]
)
endings = st.sampled_from(["answer"] * 5 + ["error", "protocol", "line", "cancel"])
costs = st.sampled_from([0, 1, 120_000, 300_000, 300_001, 450_000, None])
fates = st.one_of(endings, st.sampled_from(["wait", "wait", "unsent"]))
keys = st.sampled_from([None, None, "k1", "k2", "k3"])
edges = st.sampled_from(["day", "hour", "hour", "doubt", "kept"])
pauses = st.sampled_from([0, 0, 0, 20 * SECOND, MINUTE, 61 * MINUTE])
Burst = list[tuple[str, str, int, str | None, str, int | None, Fault | None, bool, int]]
bursts: st.SearchStrategy[Burst] = st.lists(
    st.tuples(sessions, tools, cents, keys, fates, costs, faults, st.sampled_from([True, True, True, False]), pauses),
    min_size=1,
    max_size=6,
)
wrongs = st.sampled_from([-DAY, -HOUR, -HOUR, -301 * SECOND, 0, 0, 2 * MINUTE, HOUR])
moments = st.sampled_from([1, SECOND, MINUTE, 30 * MINUTE, HOUR - 1, HOUR, 12 * HOUR, DAY - HOUR, DAY, DAY + HOUR])


class CallsMachine(RuleBasedStateMachine):
    @initialize(zone=st.sampled_from(sorted(DAYS)), day=st.booleans(), hours=st.integers(-30, 30))
    def open(self, zone: str, day: bool, hours: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.times = Times(DAYS[zone][day] * SECOND + hours * HOUR)
        self.template = people_in(zone)
        people = dict(PEOPLE) | {"short": Person("two", caps=ROOT, expires_us=self.times.true_us + SHORT_US)}
        self.model = Model(people, AGENT_CAPS, zone)
        self.broker = SteppedBroker(self.folder, self.template, self.times, DOUBT_US / SECOND)
        self.broker.rows.execute(
            "UPDATE sessions SET expires_us = ? WHERE id = ?", (people["short"].expires_us, self.template.ids["short"])
        )
        self.broker.parts.identity.forget()
        self.names = {identifier: name for name, identifier in self.template.ids.items()}
        self.made: dict[int, Made] = {}
        self.said: dict[int, dict[str, Any] | None] = {}
        self.unrecorded: list[Callable[[int], None]] = []
        self.believed_us = self.times.wrong_us
        self.seen = (self.broker.clock.now_us(), self.times.true_us)

    def teardown(self) -> None:
        if not hasattr(self, "broker"):
            return
        try:
            self.all_sums_agree()
            self.the_log_says_the_same()
        finally:
            self.broker.close()
            shutil.rmtree(self.folder)

    @property
    def now_us(self) -> int:
        return self.broker.clock.now_us()

    # calls

    @rule(some=bursts)
    def calls_are_made(self, some: Burst) -> None:
        self.burst(some)

    @rule(session=sessions, some=bursts)
    def calls_of_one_session(self, session: str, some: Burst) -> None:
        self.burst([(session, *one[1:]) for one in some])

    @rule(tool=tools, key=st.sampled_from(["k1", "k2"]), some=bursts)
    def calls_with_one_key(self, tool: str, key: str, some: Burst) -> None:
        self.burst([(session, tool, cents, key, *rest) for session, _, cents, _, *rest in some])

    def burst(self, some: Burst) -> None:
        for *one, back, pause_us in some:
            self.times.true_us += pause_us
            self.clock_is_right()
            if back:
                self.the_store_is_back()
            self.call(*one)
            self.the_rows_are_the_model()

    def call(
        self, session: str, tool: str, cents: int, key: str | None, fate: str, cost: int | None, fault: Fault | None
    ) -> None:
        amount = cents * 10_000 if tool == "pay" else HOLDS[tool]
        one = Call(len(self.made) + 1, session, tool, amount, self.now_us, str(cents), key)
        refusal = self.expected(one)
        self.broker.writer.fault = fault if self.decides() else None
        made = self.made[one.number] = self.broker.call(
            self.template.tokens[session], tool, {"cents": cents}, number=one.number, key=key, sends=fate != "unsent"
        )
        fault = fault if self.decides() else None
        if fault in {None, "stood", "killed after"}:
            self.stands(one, refusal, made, said=fault is None)
        if fault is None and refusal is None:
            self.goes_on(one, fate, cost)
        elif fault in {"lost", "stood"}:
            assert made.code() == "store.unavailable"
            self.unrecorded.append(lambda _: self.undone(one))
        elif fault is not None:
            assert made.code() == "killed"
            self.start_again()

    def decides(self) -> bool:
        return not self.unrecorded

    def expected(self, one: Call) -> Refusal | None:
        if self.unrecorded:
            return Refusal(frozenset({"store.unavailable"}))  # R12
        expires_us = self.model.people[one.session].expires_us
        if expires_us is not None and self.now_us >= expires_us:
            return Refusal(frozenset({"session.expired", "credential.expired"}))
        if self.stepped_us():
            return Refusal(frozenset({"clock.stepped"}))  # R9
        return self.model.decide(one.session, one.tool, one.amount, one.arguments, one.key, one.admitted_us)

    def stands(self, one: Call, refusal: Refusal | None, made: Made, *, said: bool) -> None:
        """The transaction that decided was committed; `said`: its caller was told."""
        if refusal is None:
            self.within_every_cap(one)
            self.model.admit(one)
            return
        if said:
            assert made.code() in refusal.codes, (made.code(), refusal)
        halted = self.halts() - self.model.halts
        wanted = {refusal.halts[made.code()]} if said and refusal.halts else set()
        assert halted == wanted if said else halted <= set(refusal.halts.values()), refusal
        assert bool(halted) == bool(refusal.halts)
        self.model.halts |= halted
        if said and refusal.replay is not None:
            assert made.answer() == self.said[refusal.replay.number]
        if said and refusal.owner and "rate" not in made.code():
            self.numbers_agree(made, refusal.owner, one.admitted_us)

    def within_every_cap(self, one: Call) -> None:
        """P2, judged at admission: of the session and of each above it."""
        for session in self.model.line(one.session):
            for cap in ("task", "hour", "day", "calls"):
                limit = self.model.limit(cap, session, one.admitted_us)
                used = sum(self.model.usage(cap, session, one.admitted_us))
                assert limit is None or used + (1 if cap == "calls" else one.amount) <= limit, (session, cap)

    def numbers_agree(self, made: Made, owner: str, now_us: int) -> None:
        """What a refusal says is what the model adds up."""
        facts = made.facts()
        unit = "" if facts["cap"] == "calls" else "_micros"
        found = tuple(facts[f"{name}{unit}"] for name in ("limit", "settled", "held", "in_doubt", "remaining"))
        limit, used = self.model.limit(facts["cap"], owner, now_us), self.model.usage(facts["cap"], owner, now_us)
        assert limit is not None
        assert found == (limit, *used, limit - sum(used))

    def undone(self, one: Call) -> None:
        """Nothing was sent for it (R11)."""
        if one in self.model.calls and one.state == "held":
            one.state = "voided"

    def goes_on(self, one: Call, fate: str, cost: int | None) -> None:
        if fate == "unsent":
            assert self.made[one.number].code() == "upstream.unreachable"
            one.state = "voided"
            return
        assert self.broker.shop.sent[-1] == one.number
        assert self.made[one.number].waits
        if fate != "wait":
            self.end(one, fate, cost, None)

    @precondition(lambda self: any(one.waits for one in self.made.values()))
    @rule(which=st.integers(0, 9), how=endings, cost=costs, fault=faults)
    def an_answer_comes(self, which: int, how: str, cost: int | None, fault: Fault | None) -> None:
        waiting = [one for one in self.model.calls if self.made[one.number].waits]
        self.end(waiting[which % len(waiting)], how, cost, fault)

    def end(self, one: Call, how: str, cost: int | None, fault: Fault | None) -> None:
        """The second transaction of a call."""
        made = self.made[one.number]
        self.broker.writer.fault = fault
        if how == "cancel":
            self.broker.cancel(made)
        else:
            self.said[one.number] = said = said_by(one.number, how, cost)
            self.broker.answer(one.number, said)
        assert not made.waits

        def recorded(now_us: int) -> None:
            if how in {"cancel", "line"}:
                self.model.doubt(one, now_us + DOUBT_US)
            else:
                one.kept_us = now_us if one.key is not None else None
                self.model.settle(one, bill(one, how, cost, now_us - one.admitted_us), now_us)

        if fault in {None, "stood", "killed after"}:
            recorded(self.now_us)
        if fault in {"lost", "stood"}:
            assert how == "cancel" or made.code() == "store.unavailable"  # R12
            self.unrecorded.append(recorded if fault == "lost" else lambda _: None)
        elif fault is not None:
            self.start_again()

    def the_store_is_back(self) -> None:
        assert self.broker.do(self.broker.unrecorded.write())
        for recorded in self.unrecorded:
            recorded(self.now_us)
        self.unrecorded.clear()

    # crashes and clocks

    @rule(wrong_us=wrongs, crash=st.sampled_from([False, False, True]))
    def the_clock_is_set(self, wrong_us: int, crash: bool) -> None:
        """While it runs, or while it is down after a crash."""
        self.times.wrong_us = wrong_us
        if crash:
            self.start_again()
        self.clock_is_right()

    def start_again(self) -> None:
        """R10: what was held is in doubt, received or not."""
        self.broker.kill()
        self.broker.start()
        self.believed_us = self.times.wrong_us
        [recorded_us] = self.broker.rows.execute("SELECT max(at_us) FROM events").fetchone()
        assert self.now_us == max(
            recorded_us, self.times.true_us + self.times.wrong_us
        )  # R9: no way back behind a record
        self.seen = (self.now_us, self.times.true_us)
        self.unrecorded.clear()
        for one in self.model.calls:
            if one.state == "held":
                self.model.doubt(one, self.now_us + DOUBT_US)

    @rule(us=st.one_of(moments, st.tuples(edges, st.sampled_from([-1, 0, 1]))))
    def time_passes(self, us: int | tuple[str, int]) -> None:
        """A while, or until just before, at or just after something ends."""
        self.times.true_us += us if isinstance(us, int) else self.until(*us)
        self.clock_is_right()

    def until(self, edge: str, off: int) -> int:
        now_us, calls = self.now_us, self.model.calls
        ends = {
            "day": lambda: [self.day_end(now_us)],
            "hour": lambda: [one.admitted_us + HOUR for one in calls],
            "doubt": lambda: [one.charges_at_us for one in calls if one.charges_at_us],
            "kept": lambda: [one.kept_us + DAY for one in calls if one.kept_us],
        }[edge]()
        return min((at_us + off - now_us for at_us in ends if at_us + off > now_us), default=0)

    def day_end(self, now_us: int) -> int:
        """The first moment of another date."""
        low, high = now_us, now_us + 26 * HOUR
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.model.date(middle) == self.model.date(now_us) else (low, middle)
        return high

    def clock_is_right(self) -> None:
        """R9: never backward, and never further ahead of the time that passed than is believed of a clock."""
        now_us = self.now_us
        if 0 < self.times.wrong_us - self.believed_us <= STEP_MAX_US:
            self.believed_us = self.times.wrong_us
        before_us, true_us = self.seen
        assert 0 <= now_us - before_us <= self.times.true_us - true_us + STEP_MAX_US
        self.seen = (now_us, self.times.true_us)

    def stepped_us(self) -> int:
        return max(0, self.times.wrong_us - self.believed_us)

    # people

    @rule(add=st.sampled_from([None, 100_000, 250_000]), but=st.sampled_from([None, *PEOPLE]))
    def a_person_resumes(self, add: int | None, but: str | None) -> None:
        """Whoever is halted, or all but one."""
        for _, to in sorted(self.model.halts):
            if to != but:
                self.resume(to, add)

    def resume(self, to: str, add: int | None) -> None:
        halt = ("session" if to in PEOPLE else "agent", to)
        expires_us = self.model.people[to].expires_us if to in PEOPLE else None
        if expires_us is not None and self.now_us >= expires_us:
            return
        [cap] = self.broker.rows.execute(
            "SELECT cap FROM halts WHERE lifted_us IS NULL AND subject_id = ?", (self.template.ids[to],)
        ).fetchone()
        target = self.template.ids[to] if to in PEOPLE else to
        if add is None or cap is None:
            self.broker.act("resume", target=target, reason="looked at it")
        else:
            added = 2 if cap == "calls" else add
            said = "2" if cap == "calls" else f"0.{add:06d}"
            self.broker.act("resume", target=target, reason="it needs more", allow=said)
            self.model.grants.append(Grant(to, cap, added, self.now_us))
        self.model.halts.discard(halt)

    @rule(to=st.sampled_from([None, None, None, *PEOPLE, "one"]), void=st.booleans(), add=st.sampled_from([None, 0, 400_000]))  # fmt: skip
    def a_person_acts(self, to: str | None, void: bool, add: int | None) -> None:
        if to is None:
            self.decide(void, add)
        else:
            self.halt(to)

    def halt(self, to: str) -> None:
        """R18, R20: what runs there and below is cancelled."""
        running = [
            one
            for one in self.model.calls
            if self.made[one.number].waits
            and to in {*self.model.line(one.session), self.model.people[one.session].agent}
        ]
        self.broker.act("halt", target=self.template.ids[to] if to in PEOPLE else to, reason="enough")
        self.model.halts.add(("session" if to in PEOPLE else "agent", to))
        for one in running:
            self.model.doubt(one, self.now_us + DOUBT_US)

    def decide(self, void: bool, add: int | None) -> None:
        """On a call in doubt, once; on any other there is nothing to decide."""
        if not self.model.calls:
            return
        doubtful = [one for one in self.model.calls if one.state == "in_doubt"]
        one = (doubtful or self.model.calls)[0]
        running = self.made[one.number].request.running
        assert running is not None
        amount = None if void or add is None else f"0.{add:06d}"
        asked = {"call": running.id, "outcome": "void" if void else "settle", "reason": "asked them", "amount": amount}
        if one.state != "in_doubt":
            with pytest.raises(Conflict):
                self.broker.act("resolve_in_doubt", **asked)
            return
        self.broker.act("resolve_in_doubt", **asked)
        if void:
            one.state, one.charges_at_us = "voided", None
        else:
            self.model.settle(one, one.amount if add is None else add, self.now_us)

    @rule()
    def deadlines_are_looked_at(self) -> None:
        """R10: in doubt is charged in full at its own deadline, and not before; what is read-only is voided."""
        self.broker.charge_due()
        for one in self.model.calls:
            if one.state == "in_doubt" and one.charges_at_us is not None and one.charges_at_us <= self.now_us:
                one.state, one.charges_at_us = "voided" if one.tool == "look" else "settled", None
                one.charged = one.amount if one.state == "settled" else 0

    # what must hold

    def halts(self) -> set[tuple[str, str]]:
        rows = self.broker.rows.execute("SELECT scope, subject_id FROM halts WHERE lifted_us IS NULL")
        return {(scope, self.names[subject]) for scope, subject in rows}

    @invariant()
    def the_rows_are_the_model(self) -> None:
        if not hasattr(self, "broker"):
            return
        rows = self.broker.rows.execute(
            "SELECT id, session_id, amount_micros, admitted_us, state, charged_micros, charges_at_us FROM holds ORDER BY rowid"
        ).fetchall()
        found = [(row[0], self.names[row[1]], *row[2:5], row[5] or 0, row[6]) for row in rows]
        wanted = [
            (self.made[one.number].request.running.id, one.session, one.amount, one.admitted_us, one.state, one.charged, one.charges_at_us)
            for one in self.model.calls
        ]  # fmt: skip
        assert found == wanted
        assert self.halts() == self.model.halts
        self.the_sums_are_whole()

    def the_sums_are_whole(self) -> None:
        """What all tasks have, all agents have, and all calls."""
        for state, money in (("settled", "charged"), ("held", "amount"), ("in_doubt", "amount")):
            index = ("settled", "held", "in_doubt").index(state)
            whole = sum(getattr(one, money) for one in self.model.calls if one.state == state)
            roots = [name for name, person in self.model.people.items() if not person.above]
            assert sum(self.model.usage("task", name, 0)[index] for name in roots) == whole
            row = self.broker.rows.execute(
                f"SELECT coalesce(sum({money}_micros), 0) FROM holds WHERE state = ?", (state,)
            )
            assert row.fetchone() == (whole,)

    @invariant()
    def nothing_was_sent_twice(self) -> None:
        if not hasattr(self, "broker"):
            return
        sent = Counter(self.broker.shop.sent)
        assert not [number for number, times in sent.items() if times > 1]
        keyed = Counter(  # what a person says did not happen may happen now
            (self.model.people[one.session].agent, one.tool, one.key)
            for one in self.model.calls
            if one.key is not None and one.state != "voided"
        )
        assert not [key for key, times in keyed.items() if times > 1]

    @rule()
    def all_sums_agree(self) -> None:
        """What decisions remember is what the model adds up, and what the rows say."""
        now_us, ids, ledger = self.now_us, self.template.ids, self.broker.parts.ledger
        resets_at_us = self.day_end(now_us)
        all_spent = self.broker.run(
            lambda tx: {
                name: ledger.spent(tx, ids[one.agent], ids[name], (60,)) for name, one in self.model.people.items()
            }
        )
        for name, person in self.model.people.items():
            spent = all_spent[name]
            for cap, said in (("task", spent.task), ("hour", spent.hour), ("day", spent.day)):
                settled, held, in_doubt = self.model.usage(cap, name, now_us)
                assert (said.settled_micros, said.held_micros, said.in_doubt_micros) == (
                    settled,
                    held + in_doubt,
                    in_doubt,
                )
            settled, held, in_doubt = self.model.usage("calls", name, now_us)
            assert (spent.calls_settled, spent.calls_open, spent.calls_in_doubt) == (settled, held + in_doubt, in_doubt)
            mine = self.model.of_agent(person.agent)
            assert spent.rate_counts == {60: sum(one.admitted_us > now_us - MINUTE for one in mine)}
            assert spent.agent_running == sum(one.state == "held" for one in mine)
            assert spent.day_resets_at_us == resets_at_us
        assert self.broker.run(lambda tx: ledger.differing(tx, *ledger.remembered())) == []

    def the_log_says_the_same(self) -> None:
        """P7, P8: each hold ended as its events say, once, and the chain holds."""
        self.broker.rows.execute("PRAGMA query_only = ON")
        faults = [one.what for one in check_books(self.broker.rows, Books())]
        assert [one for one in faults if self.template.ids["short"] not in one] == []  # whose end the run has moved
        assert list(LogWalk(self.broker.rows).faults()) == []


def bill(one: Call, how: str, cost: int | None, ran_us: int) -> int:
    """R6, R7: what an answered call costs."""
    if one.tool == "soft" and how != "answer":
        return 0
    if one.tool == "run":
        return min(one.amount, -(-1_000 * ran_us // SECOND))
    if one.tool == "ask" and how != "protocol" and cost is not None:
        return cost if how == "answer" else max(cost, one.amount)
    return one.amount


CallsMachine.TestCase.settings = settings(settings.default, stateful_step_count=30)
test_any_history_of_calls = pytest.mark.promise("P2", "P7", "R1", "R2", "R3", "R8", "R9", "R10", "R13", "R20")(
    CallsMachine.TestCase
)


@pytest.mark.promise("P12")
def test_the_same_seed_makes_the_same_histories_to_the_last_row():
    """So that a run that failed fails again in the same step, although ids and secrets are others."""

    def trace() -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []

        class Traced(CallsMachine):
            def the_rows_are_the_model(self) -> None:
                super().the_rows_are_the_model()
                seen.append((self.now_us, *(astuple(one) for one in self.model.calls), *sorted(self.model.halts)))

        only = settings(
            settings.default, max_examples=8, stateful_step_count=20, database=None, phases=[Phase.generate]
        )
        run_state_machine_as_test(seed(4711)(Traced), settings=only)
        return seen

    first = trace()
    assert len(first) > 10
    assert trace() == first
