"""What the rules say of money, added up anew each time from a list of calls: nothing is remembered, nothing is shared with
the code under test.

Amounts are micro-units, times the broker's own (what a clock may do to them is judged elsewhere). R-numbers are the rules'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

__all__ = ["Call", "Grant", "Model", "Person", "Refusal"]

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
KEPT_US = DAY
"""How long a first answer is kept (R13)."""
State = Literal["held", "settled", "voided", "in_doubt"]


@dataclass(frozen=True)
class Person:
    """One session: whose it is, which sessions are above it (its parent first), its caps, its end."""

    agent: str
    above: tuple[str, ...] = ()
    caps: dict[str, int] = field(default_factory=dict)
    expires_us: int | None = None


@dataclass
class Call:
    number: int
    session: str
    tool: str
    amount: int
    admitted_us: int
    arguments: str = ""
    key: str | None = None
    state: State = "held"
    charged: int = 0
    charges_at_us: int | None = None
    kept_us: int | None = None
    """When its first answer was kept; None: it is not."""
    recorded: bool = True
    """False: it ended, and that could not be written yet (R12)."""


@dataclass(frozen=True)
class Grant:
    """Somebody added to a cap: of a session or an agent, counted while `since_us` is in the window that it was given for."""

    subject: str
    cap: str
    amount: int
    since_us: int


@dataclass(frozen=True)
class Refusal:
    """The codes that may be given, one of them; whom it halts, by code."""

    codes: frozenset[str]
    halts: dict[str, tuple[str, str]] = field(default_factory=dict)
    owner: str = ""
    replay: Call | None = None


class Model:
    def __init__(self, people: dict[str, Person], agent_caps: dict[str, int], zone: str) -> None:
        self.people = people
        self.agent_caps = agent_caps
        self.zone = ZoneInfo(zone)
        self.calls: list[Call] = []
        self.grants: list[Grant] = []
        self.halts: set[tuple[str, str]] = set()
        self.keys: dict[tuple[str, str, str], Call] = {}

    # windows

    def date(self, at_us: int) -> str:
        """R2: a calendar day is a date where the policy lives, whatever number of hours it has."""
        return datetime.fromtimestamp(at_us // 1_000_000, self.zone).date().isoformat()

    def line(self, session: str) -> tuple[str, ...]:
        """The session and those above it (R20)."""
        return (session, *self.people[session].above)

    def of_task(self, session: str) -> list[Call]:
        return [one for one in self.calls if session in self.line(one.session)]

    def of_agent(self, agent: str) -> list[Call]:
        return [one for one in self.calls if self.people[one.session].agent == agent]

    def in_window(self, calls: list[Call], cap: str, now_us: int) -> list[Call]:
        """R1: by the time of admission."""
        if cap == "hour":
            return [one for one in calls if one.admitted_us > now_us - HOUR]
        if cap == "day":
            return [one for one in calls if self.date(one.admitted_us) == self.date(now_us)]
        return calls

    def usage(self, cap: str, session: str, now_us: int) -> tuple[int, int, int]:
        """(settled, on hold, in doubt) of a cap; what is in doubt counts in every window until it is resolved (R1)."""
        agent = self.people[session].agent
        calls = self.of_task(session) if cap in {"task", "calls"} else self.of_agent(agent)
        inside = self.in_window(calls, cap, now_us)
        if cap == "calls":
            return tuple(sum(one.state == state for one in calls) for state in ("settled", "held", "in_doubt"))  # type: ignore[return-value]
        return (
            sum(one.charged for one in inside if one.state == "settled"),
            sum(one.amount for one in inside if one.state == "held"),
            sum(one.amount for one in calls if one.state == "in_doubt"),
        )

    def limit(self, cap: str, session: str, now_us: int) -> int | None:
        """With what people added to it, for as long as that lasts."""
        person = self.people[session]
        most = person.caps.get(cap) if cap in {"task", "calls"} else self.agent_caps.get(cap)
        if most is None:
            return None
        added = [one for one in self.grants if one.cap == cap and one.subject in {session, person.agent}]
        return most + sum(one.amount for one in added if self.lasts(one, now_us))

    def lasts(self, one: Grant, now_us: int) -> bool:
        if one.cap == "hour":
            return now_us < one.since_us + HOUR
        if one.cap == "day":
            return self.date(one.since_us) == self.date(now_us)
        end_us = self.people[one.subject].expires_us
        return end_us is None or now_us < end_us

    # decisions

    def decide(
        self, session: str, tool: str, amount: int, arguments: str, key: str | None, now_us: int
    ) -> Refusal | None:
        """None: it is granted."""
        refusal = self.stopped(session) or self.over(session, amount, now_us)
        if key is not None and not (refusal is not None and refusal.codes & {"session.halted", "agent.halted"}):
            again = self.again(session, tool, arguments, key, now_us)
            if again is not None:
                return again
        return refusal

    def stopped(self, session: str) -> Refusal | None:
        agent = ("agent", self.people[session].agent)
        codes = {"session.halted"} if any(("session", one) in self.halts for one in self.line(session)) else set()
        codes |= {"agent.halted"} if agent in self.halts else set()
        return Refusal(frozenset(codes)) if codes else None

    def over(self, session: str, amount: int, now_us: int) -> Refusal | None:
        """R3: a cap halts when what is settled breaks it; where only holds do, it may be tried again. The root is asked first."""
        for one in reversed(self.line(session)):
            agent = self.people[one].agent
            halting: dict[str, tuple[str, str]] = {}
            held: set[str] = set()
            for cap in ("task", "hour", "day", "calls"):
                limit = self.limit(cap, one, now_us)
                settled, on_hold, in_doubt = self.usage(cap, one, now_us)
                more = 1 if cap == "calls" else amount
                if limit is None or settled + on_hold + in_doubt + more <= limit:
                    continue
                if settled + more > limit:
                    code = "calls.exceeded" if cap == "calls" else f"budget.{cap}_exceeded"
                    halting[code] = ("session", one) if cap in {"task", "calls"} else ("agent", agent)
                else:
                    held.add("calls.cap_held" if cap == "calls" else "budget.cap_held")
            if halting:
                return Refusal(frozenset(halting), halting, one)
            if held:
                return Refusal(frozenset(held), owner=one)
            often = self.too_often(agent, now_us)
            if often:
                return Refusal(frozenset(often), owner=one)
        return None

    def too_often(self, agent: str, now_us: int) -> set[str]:
        mine = self.of_agent(agent)
        lately = sum(one.admitted_us > now_us - MINUTE for one in mine)
        running = sum(one.state == "held" for one in mine)
        return {code for code, most, made in (("rate.exceeded", self.agent_caps["rate"], lately), ("rate.concurrent", self.agent_caps["concurrent"], running)) if made + 1 > most}  # fmt: skip

    def again(self, session: str, tool: str, arguments: str, key: str, now_us: int) -> Refusal | None:
        """R13: what a key says that was used before; None: it is free."""
        first = self.keys.get((self.people[session].agent, tool, key))
        if first is None or first.state == "voided":
            return None
        if first.arguments != arguments:
            return Refusal(frozenset({"args.idempotency_mismatch"}))
        if first.state == "in_doubt":
            return Refusal(frozenset({"call.in_doubt"}))
        if first.state == "held":
            return Refusal(frozenset({"call.running"}))
        if first.kept_us is None or now_us >= first.kept_us + KEPT_US:
            return Refusal(frozenset({"call.result_gone"}))
        return Refusal(frozenset({"result"}), replay=first)

    # what happens

    def admit(self, call: Call) -> None:
        self.calls.append(call)
        if call.key is not None:
            self.keys[self.people[call.session].agent, call.tool, call.key] = call

    def settle(self, call: Call, charged: int, now_us: int) -> None:
        """R8: it corrects the windows of its admission. An upstream that bills above the hold halts (P2)."""
        call.state, call.charged, call.charges_at_us = "settled", charged, None
        if charged <= call.amount:
            return
        agent = self.people[call.session].agent
        broken = [("session", call.session)]
        broken += [("session", one) for one in self.people[call.session].above if self.broken("task", one, now_us)]
        broken += [("agent", agent)] if any(self.broken(cap, call.session, now_us) for cap in ("hour", "day")) else []
        self.halts |= set(broken)

    def broken(self, cap: str, session: str, now_us: int) -> bool:
        limit = self.limit(cap, session, now_us)
        return limit is not None and self.usage(cap, session, now_us)[0] > limit

    def doubt(self, call: Call, charges_at_us: int) -> None:
        call.state, call.charges_at_us = "in_doubt", charges_at_us
