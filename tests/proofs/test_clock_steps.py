"""The machine's clock set back and forth by an hour, through the days of 23 and 25 hours: no grant too many, nothing that is
dead lives again (R1, R2, R9).

A broker's own parts on a real database, with a wall clock that a test sets and time that passes beside it. What was granted
is judged by the time that really passed, on a calendar that a test computes for itself.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from haltline.calls.refusals import META_KEY
from haltline.clockwatch import ClockWatch
from haltline.identity import Unknown
from support.figures import Figures
from support.world import StepClock, World, world

HOUR_S, MINUTE_S = 3_600, 60
AN_HOUR, A_DAY = 4, 20
STEPS = 200
MOVE_S = 10 * MINUTE_S
POLICY = """
version: "1"
currency: USD
time_zone: {zone}
tiers:
  capped: {{tools: ["*"], caps: {{hour: "0.20", day: "1.00"}}}}
tools:
  payments__charge: {{price: "0.05"}}
"""
ODD = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),  # of 23.5 and 24.5 hours
    "Africa/Cairo": ("2026-04-24", "2026-10-29"),  # at midnight
    "America/St_Johns": ("2026-03-08", "2026-11-01"),
}


@dataclass
class Seen:
    granted_us: list[int] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    revived: list[str] = field(default_factory=list)
    expected_dead: int = 0


class Run:
    """Three days around an odd one, in moves of ten minutes."""

    def __init__(self, w: World, clock: StepClock, dice: random.Random) -> None:
        self.w, self.clock, self.dice = w, clock, dice
        self.seen = Seen()

    async def go(self, moves: int) -> Seen:
        agent = await self.w.agent("booking-7", "capped")
        token = (await self.w.session(agent, lasts_s=30 * 24 * HOUR_S))[1]
        expires_s = 6 * HOUR_S
        dying = (await self.w.session(agent, lasts_s=expires_s))[1]
        session, revoked = await self.w.session(agent, lasts_s=30 * 24 * HOUR_S)
        await self.w.run(lambda tx: self.w.parts.identity.revoke_session(tx, session))
        begun_us, watch = self.clock.at_us, ClockWatch(self.w.parts)
        steps = set(self.dice.sample(range(moves), STEPS))
        for move in range(moves):
            if move in steps:
                to = self.dice.choice([one for one in (-HOUR_S, 0, HOUR_S) if one * 1_000_000 != self.clock.wrong_us])
                self.clock.step(to - self.clock.wrong_us / 1_000_000)
                await watch.look()
            await self._ask(token)
            await self._dead(revoked)
            if self.clock.at_us >= begun_us + expires_s * 1_000_000:
                await self._dead(dying)
            self.clock.forward(self.dice.choice((1, MOVE_S, 2 * MOVE_S - 1)))
        return self.seen

    async def _ask(self, token: str) -> None:
        """As often as it is granted, and a person lifts the halt that a cap set."""
        while True:
            answer = await self.w.call(token)
            code = _code(answer)
            self.seen.said[code] += 1
            if code != "granted":
                break
            self.seen.granted_us.append(self.clock.at_us)
        for halt in await self.w.halts():
            await self.w.run(lambda tx, halt=halt: self.w.parts.halts.lift(tx, halt, by="anna", reason="go on"))

    async def _dead(self, token: str) -> None:
        self.seen.expected_dead += 1
        answer = await self.w.call(token)
        if not isinstance(answer, Unknown) and _code(answer) not in {"session.revoked", "session.expired"}:
            self.seen.revived.append(_code(answer))


def _code(answer: Any) -> str:
    if isinstance(answer, Unknown):
        return answer.code
    refused = (answer["result"].get("_meta") or {}).get(META_KEY)
    return "granted" if refused is None else refused["reasons"][0]["code"]


def _over_an_hour(times_us: list[int]) -> int:
    """Grants beyond the cap in any rolling hour of the time that passed."""
    return sum(
        times_us[index] - times_us[index - AN_HOUR] < HOUR_S * 1_000_000 for index in range(AN_HOUR, len(times_us))
    )


def _of_days(times_us: list[int], zone: str) -> Counter[str]:
    return Counter(datetime.fromtimestamp(at_us / 1_000_000, ZoneInfo(zone)).date().isoformat() for at_us in times_us)


@pytest.mark.promise("R1", "R2", "R9", "P2", "P4")
async def test_steps_of_an_hour_through_odd_days_grant_nothing_extra_and_revive_nobody(tmp_path: Path, long: bool):
    seed = time.time_ns()
    zones = ODD if long else {"Europe/Berlin": ODD["Europe/Berlin"]}
    figures = Figures(f"clock ± 1 h, {STEPS} times in each of {2 * len(zones)} runs of three days (seed {seed})")
    for zone, days in zones.items():
        for day in days:
            middle = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
            hours = ((middle + timedelta(days=1)).timestamp() - middle.timestamp()) / HOUR_S
            clock = StepClock(int((middle - timedelta(days=1)).timestamp()) * 1_000_000)
            folder = tmp_path / f"{zone.replace('/', '-')}-{day}"
            async with world(folder, policy=POLICY.format(zone=zone), clock=clock) as w:
                run = Run(w, clock, random.Random(f"{seed} {zone} {day}"))
                seen = await run.go(3 * 24 * HOUR_S // MOVE_S)
                told = Counter(event["kind"] for event in await w.events("clock."))
                alerts = len(
                    await w.parts.reader.rows("SELECT DISTINCT episode_id FROM alerts WHERE kind = 'clock.stepped'")
                )
            of_days, name = _of_days(seen.granted_us, zone), f"{zone} {day}, {hours:g} h"
            figures.note(f"{name}: answers", dict(seen.said.most_common()))
            figures.zero(f"{name}: grants over the hour's cap", _over_an_hour(seen.granted_us))
            figures.equal(f"{name}: grants on the odd day", of_days[day], A_DAY)
            figures.zero(f"{name}: days over their cap", [one for one, count in of_days.items() if count > A_DAY])
            figures.zero(f"{name}: dead credentials revived, of {seen.expected_dead} calls", seen.revived)
            figures.must(f"{name}: steps forward told", told["clock.stepped"], told["clock.stepped"] > 20, "> 20")
            figures.equal(f"{name}: alerts of them", alerts, told["clock.stepped"])
    figures.show()
