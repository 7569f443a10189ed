"""What counts when: amounts through midnight, through the rolling hour, in doubt, and under a cap that was lowered (R1, R2, R5)."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import anyio
import pytest

from haltline.calls.refusals import META_KEY
from support.world import SetClock, world

POLICY = """
version: "1"
currency: USD
time_zone: Europe/Berlin
tiers:
  capped: {{tools: ["*"], caps: {{hour: "{hour}", day: "{day}"}}}}
tools:
  payments__charge: {{price: "0.10"}}
  payments__slow: {{price: "0.10"}}
"""
HOUR_S = 3_600


def at(text: str) -> SetClock:
    return SetClock(int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 1_000_000)


def policy(*, hour: str = "100.00", day: str = "100.00") -> str:
    return POLICY.format(hour=hour, day=day)


async def opened(w) -> str:
    return (await w.session(await w.agent("booking-7", "capped"), lasts_s=100 * HOUR_S))[1]


async def granted(w, token: str) -> tuple[int, str]:
    """How many calls are let through, and the code of the first that is not; a person lifts the halt it causes."""
    for count in range(1_000):
        meta = (await w.call(token))["result"].get("_meta", {})
        if META_KEY in meta:
            for halt in await w.halts():
                await w.run(lambda tx, halt=halt: w.parts.halts.lift(tx, halt, by="anna", reason="go on"))
            return count, meta[META_KEY]["reasons"][0]["code"]
    raise AssertionError("no cap")


@pytest.mark.promise("R1", "R2")
async def test_a_call_that_runs_through_midnight_counts_on_the_day_of_its_admission(tmp_path):
    clock = at("2026-06-01T23:59")
    async with world(tmp_path, policy=policy(day="0.50"), clock=clock) as w:
        token = await opened(w)
        w.upstream.script["slow"] = w.upstream.waiting
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(w.call, token, "payments__slow")
            await w.upstream.started.wait()
            assert await granted(w, token) == (4, "budget.cap_held")
            clock.forward(120)
            assert await granted(w, token) == (5, "budget.day_exceeded")
            w.upstream.release.set()
        assert await granted(w, token) == (0, "budget.day_exceeded")
        spent = await w.run(lambda tx: w.parts.ledger.spent(tx, w.parts.identity.agent(tx, "booking-7").id, "", ()))
        assert (spent.day.settled_micros, spent.day.held_micros) == (500_000, 0)


@pytest.mark.promise("R1")
async def test_what_is_in_doubt_counts_today_too_until_somebody_says_what_became_of_it(tmp_path):
    clock = at("2026-06-01T23:59")
    async with world(tmp_path, policy=policy(day="0.50"), clock=clock) as w:
        token = await opened(w)
        w.upstream.script["slow"] = w.upstream.unknown
        for _ in range(2):
            await w.call(token, "payments__slow")
        clock.forward(120)
        assert await granted(w, token) == (3, "budget.cap_held")
        first, second = [event["call"] for event in await w.events("call.in_doubt")]
        await w.run(lambda tx: w.parts.ledger.settle(tx, first, 100_000, "it ran"))
        assert await granted(w, token) == (1, "budget.cap_held")
        await w.run(lambda tx: w.parts.ledger.void(tx, second, "it did not"))
        assert await granted(w, token) == (1, "budget.day_exceeded")


@pytest.mark.promise("R2", "P2")
@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
async def test_a_day_cap_lasts_from_midnight_to_midnight_and_says_when_it_is_over(tmp_path, day, hours):
    clock = at(f"{day}T00:00")
    async with world(tmp_path, policy=policy(day="0.30"), clock=clock) as w:
        token = await opened(w)
        for hour in range(hours):
            assert (await granted(w, token))[0] == (3 if hour == 0 else 0), f"hour {hour}"
            clock.forward(HOUR_S)
        clock.forward(-0.000001)
        refused = (await w.call(token))["result"]["_meta"][META_KEY]["reasons"][0]
        over = datetime.fromtimestamp((clock.at_us + 1) / 1e6, ZoneInfo("UTC"))
        assert refused["facts"]["resets_at"] == f"{over:%Y-%m-%dT%H:%M:%SZ}"
        for halt in await w.halts():
            await w.run(lambda tx, halt=halt: w.parts.halts.lift(tx, halt, by="anna", reason="go on"))
        clock.forward(0.000001)
        assert await granted(w, token) == (3, "budget.day_exceeded")


@pytest.mark.promise("R2")
@pytest.mark.parametrize("begin", ["2026-10-25T02:10", "2026-03-29T01:40"], ids=["comes twice", "is left out"])
async def test_the_hour_rolls_call_by_call_and_the_odd_hour_of_the_year_is_one_too(tmp_path, begin):
    clock = at(begin)
    async with world(tmp_path, policy=policy(hour="0.30"), clock=clock) as w:
        token = await opened(w)
        await w.call(token)
        clock.forward(HOUR_S / 2)
        assert await granted(w, token) == (2, "budget.hour_exceeded")
        clock.forward(HOUR_S / 2 - 0.000001)
        assert await granted(w, token) == (0, "budget.hour_exceeded")
        clock.forward(0.000001)
        assert await granted(w, token) == (1, "budget.hour_exceeded")
        clock.forward(HOUR_S / 2)
        assert await granted(w, token) == (2, "budget.hour_exceeded")


@pytest.mark.promise("R5", "P2")
async def test_a_lowered_cap_stops_admission_until_usage_fits_and_changes_nothing_that_was(tmp_path):
    clock = at("2026-06-01T12:00")
    async with world(tmp_path, policy=policy(day="1.00"), clock=clock) as w:
        token = await opened(w)
        for _ in range(6):
            await w.call(token)
        before = await w.holds()
        (tmp_path / "policies" / "policy.yaml").write_text(policy(day="0.50"))
        assert w.parts.policies.reload()
        assert await granted(w, token) == (0, "budget.day_exceeded")
        assert await w.holds() == before
        clock.forward(12 * HOUR_S)
        assert await granted(w, token) == (5, "budget.day_exceeded")
        (tmp_path / "policies" / "policy.yaml").write_text(policy(day="0.70"))
        assert w.parts.policies.reload()
        assert await granted(w, token) == (2, "budget.day_exceeded")
