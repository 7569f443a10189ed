"""The numbers of every cap, the same on every surface and as reckoned from the events: refusals, explanations, records,
alerts in every channel's words, the status, the lists, a look before a resume, and the check of the ledger.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from haltline.alerts import alertmanager, pagerduty, slack
from haltline.alerts.model import Alert, Balance, Delivery
from haltline.alerts.sms import short_text
from haltline.alerts.text import balance_line, block
from haltline.calls.refusals import META_KEY
from haltline.children import Children
from haltline.upstreams.model import UpstreamCall
from haltline.upstreams.own import OwnUpstream
from haltline_client.commands import agents as agent_pages
from haltline_client.commands import sessions as session_pages
from haltline_client.commands.page import Page
from haltline_client.commands.status import print_status
from haltline_client.commands.words import moment
from support.desk import Desk, SetClock, desk
from support.reckoning import MONEY, Stand, micros, reckoned, stands_of

pytestmark = pytest.mark.promise("P2", "R1", "R2", "R3", "R20")

BERLIN = "Europe/Berlin"
LOOSE = {
    "per_call": "2.00",
    "task": "5.00",
    "hour": "5.00",
    "day": "9.00",
    "calls": 50,
    "rate": "90/hour",
    "concurrent": 5,
}
SLICE = "0.75"
POLICY = """
version: "1"
currency: USD
time_zone: Europe/Berlin
tiers:
  leading:
    tools: ["payments__*"]
    caps: {caps}
    children: {{most: 3, depth: 2}}
    session_expires: 12h
tools:
  payments__charge: {{price: "0.10"}}
  payments__slow: {{price: "0.20"}}
  payments__refund: {{price: {{result: structuredContent.cost, at_most: "0.40"}}}}
"""
DAYS = ("2026-06-10", "2026-03-29", "2026-10-25")
"""Of 24, 23 and 25 hours."""


@dataclass(frozen=True)
class Case:
    """A cap that is made tight once the story is told, and what the next call of 0.10 then meets."""

    cap: str
    limit: str | int
    code: str
    by_child: bool = False
    of: str = "root"
    """Whose cap refuses."""

    @property
    def halts(self) -> bool:
        return self.code.endswith("_exceeded") or self.code == "calls.exceeded"


CASES = {
    "task": Case("task", "1.00", "budget.task_exceeded"),
    "task, on hold": Case("task", "1.30", "budget.cap_held"),
    "hour": Case("hour", "1.10", "budget.hour_exceeded"),
    "hour, on hold": Case("hour", "1.20", "budget.cap_held"),
    "day": Case("day", "0.80", "budget.day_exceeded"),
    "day, on hold": Case("day", "1.00", "budget.cap_held"),
    "calls": Case("calls", 8, "calls.exceeded"),
    "calls, on hold": Case("calls", 9, "calls.cap_held"),
    "rate": Case("rate", "7/hour", "rate.exceeded"),
    "concurrent": Case("concurrent", 1, "rate.concurrent"),
    "one call": Case("per_call", "0.05", "charge.too_large"),
    "a child's slice": Case("task", "5.00", "budget.cap_held", by_child=True, of="child"),
    "a child at its root's cap": Case("task", "1.00", "budget.task_exceeded", by_child=True),
}
TABLE = [(name, DAYS[number % 3]) for number, name in enumerate(CASES)] + [("hour", DAYS[1]), ("day", DAYS[2])]


@dataclass
class Told:
    """Where the story stands: everything but the last call has happened, and one call still runs."""

    at: Desk
    root: dict[str, Any]
    child: dict[str, Any]
    caps: dict[str, Any]

    async def expected(self, of: str) -> dict[str, Stand]:
        """By cap, from the events alone."""
        events, now_us = await self.at.events(), self.at.clock.now_us()
        if of == "child":
            caps = {**{cap: one for cap, one in self.caps.items() if cap not in {"task", "calls"}}, "task": SLICE}
            # What people added was added to the root's task and to the agent's day.
            events = [one for one in events if one["kind"] != "session.resumed"]
            return reckoned(events, caps, self.child["session"], now_us, BERLIN)
        return reckoned(events, self.caps, self.root["session"], now_us, BERLIN)


def written(caps: Mapping[str, Any]) -> str:
    return POLICY.format(caps=json.dumps(caps))


@asynccontextmanager
async def told(folder: Path, day: str, caps: dict[str, Any]) -> AsyncIterator[Told]:
    """Yesterday, last night, within the hour; by a session and one below it; settled, billed above its price, voided, in
    doubt, resolved, allowed on top, and one call that runs.
    """
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(BERLIN))
    clock = SetClock(int(midnight.timestamp() - 1_800) * 1_000_000)
    async with desk(folder, policy=written(LOOSE), clock=clock) as at:
        await at.parts.catalog.keep_own(OwnUpstream(Children(at.parts).open))
        await at.agent(tier="leading")
        root = await at.session()
        await at.call(root["token"])  # on the day before
        clock.forward(3_600)
        await at.call(root["token"])  # past midnight
        clock.forward(6_840)
        for _ in range(2):
            await at.call(root["token"])
        child = await opened_below(at, root)
        await at.call(child["token"])
        await spoil(at, root, child)
        (folder / "policies" / "policy.yaml").write_text(written(caps))
        at.upstream.script["slow"] = at.upstream.waiting
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(at.call, child["token"], "payments__slow")
                await at.upstream.started.wait()
                clock.forward(60)
                assert at.parts.policies.reload() or caps == LOOSE
                yield Told(at, root, child, caps)
                at.upstream.release.set()


async def opened_below(at: Desk, root: dict[str, Any]) -> dict[str, Any]:
    arguments = {"task": "look up prices", "budget": SLICE}
    opened = await at.call(root["token"], "haltline__open_session", **arguments)
    return opened["result"]["structuredContent"]


async def spoil(at: Desk, root: dict[str, Any], child: dict[str, Any]) -> None:
    """A call that never left, two in doubt of which one is settled, a bill above its price, and what people added."""
    at.upstream.script["charge"] = at.upstream.unsent
    await at.call(root["token"])
    del at.upstream.script["charge"]
    at.upstream.script["refund"] = at.upstream.unknown
    await at.call(child["token"], "payments__refund")
    await at.call(root["token"], "payments__refund")
    calls = (await at.ask("list_in_doubt"))["calls"]
    mine = next(one["call"] for one in calls if one["session"] == root["session"])
    await at.ask("resolve_in_doubt", call=mine, outcome="settle", amount="0.25", reason="the invoice")

    async def bills_more(call: UpstreamCall) -> dict[str, Any]:
        at.upstream.send(call)
        return {"result": {"content": [], "structuredContent": {"cost": "0.50"}}}

    at.upstream.script["refund"] = bills_more
    await at.call(root["token"], "payments__refund")
    await at.ask("resume", target=root["session"], reason="known", allow="task=0.30", allow_for="1h")
    await at.ask("halt", target="booking-7", reason="a look")
    await at.ask("resume", target="booking-7", reason="looked", allow="day=0.40")


@pytest.mark.parametrize(("name", "day"), TABLE, ids=[f"{name}, {day}" for name, day in TABLE])
async def test_every_surface_tells_the_numbers_that_the_events_give(tmp_path: Path, name: str, day: str) -> None:
    case = CASES[name]
    caps = {**LOOSE, case.cap: case.limit}
    async with told(tmp_path, day, caps) as story:
        at, who = story.at, story.child if case.by_child else story.root
        of = "child" if case.by_child else "root"
        expected, refusing = await story.expected(of), (await story.expected(case.of))[case.cap]
        explained = await at.ask("explain_decision", agent="booking-7", tool="payments__charge", session=who["session"])
        refused = (await at.call(who["token"]))["result"]["_meta"][META_KEY]["reasons"][0]
        assert refused["code"] == case.code
        assert of_facts(refused["facts"]) == refusing
        assert refused["facts"].get("session") == (
            story.root["session"] if case.by_child and case.of == "root" else None
        )
        assert explained["reasons"][0]["facts"] == refused["facts"]
        [denied] = [one for one in await at.events("call.denied") if one["reasons"][0]["code"] == case.code]
        assert denied["reasons"][0]["facts"] == refused["facts"]
        assert stands_of(explained["balances"], {None, who["session"]}) == expected
        await shown_alike(story)
        await looked_at_before_a_resume(story, halts=case.halts)
        await told_in_every_channel(story, case, refused["facts"])


def of_facts(facts: Mapping[str, Any]) -> Stand:
    unit = "_micros" if facts["cap"] in MONEY else ""
    numbers = [facts.get(f"{name}{unit}") for name in ("limit", "settled", "held", "in_doubt", "remaining")]
    return Stand(*numbers, facts.get("resets_at"))  # type: ignore[arg-type]


async def shown_alike(story: Told) -> None:
    """The status, both lists, both details, and the proof of the ledger."""
    at, root, child = story.at, story.root["session"], story.child["session"]
    of_root, of_child = await story.expected("root"), await story.expected("child")
    of_agent = {cap: one for cap, one in of_root.items() if cap not in {"task", "calls"}}
    status = await at.ask("status")
    [line] = status["agents"]
    detail = await at.ask("show_agent", agent="booking-7")
    for balances in (line["balances"], detail["balances"]):
        assert stands_of(balances, {None}) == of_agent
    [listed] = (await at.ask("list_agents"))["agents"]
    day = of_agent["day"]
    for one in (line, listed):
        assert day[:4] == tuple(one[name]["micros"] for name in ("cap_day", "spent_day", "held", "in_doubt"))
    mine, below = [await at.ask("show_session", session=one) for one in (root, child)]
    assert stands_of(mine["balances"], {None, root}) == of_root
    assert stands_of(below["balances"], {None, child}) == of_child
    assert stands_of(below["balances"], {root}) == {cap: of_root[cap] for cap in ("task", "calls")}
    lines = {one["session"]: one for one in (await at.ask("list_sessions"))["sessions"]}
    for one in (lines[root], mine, *(s for s in detail["sessions"] if s["session"] == root)):
        assert of_root["task"][:4] == tuple(one[name]["micros"] for name in ("cap", "spent", "held", "in_doubt"))
        assert (one["calls"], one["calls_cap"]) == (sum(of_root["calls"][1:4]), of_root["calls"].limit)
    for one in (lines[child], below, *mine["children"]):
        assert of_child["task"][:4] == tuple(one[name]["micros"] for name in ("cap", "spent", "held", "in_doubt"))
    assert (status["in_doubt"]["count"], status["in_doubt"]["amount"]["micros"]) == (1, of_root["task"].in_doubt)
    checked = await at.ask("check_ledger")
    assert checked["ok"], checked
    whole = {name: getattr(of_root["task"], name) for name in ("settled", "held", "in_doubt")}
    assert checked["rows"] == checked["events"] == whole, "all calls are of this one session and those below it"


async def looked_at_before_a_resume(story: Told, *, halts: bool) -> None:
    if not halts:
        return
    at = story.at
    [halt] = (await at.ask("status"))["halts"]
    looked = await at.ask("resume", target=halt["target"], reason="a look", preview=True)
    expected = await story.expected("root")
    if halt["scope"] == "agent":
        expected = {cap: one for cap, one in expected.items() if cap not in {"task", "calls"}}
    assert stands_of(looked["balances"], {None, story.root["session"]}) == expected


async def told_in_every_channel(story: Told, case: Case, facts: Mapping[str, Any]) -> None:
    """The alert of the halt that the refusal set; where it set none, that of an operator's halt of the session it met."""
    at, of = story.at, "root" if case.halts else "child" if case.by_child else "root"
    expected, above = await story.expected(of), await story.expected("root")
    if not case.halts:
        await at.ask("halt", target=(story.child if of == "child" else story.root)["session"], reason="enough")
    alert = await newest_alert(at)
    told = {one.cap: _of_words(one) for one in alert.balances if one.of_session == story.root["session"]}
    assert told == ({cap: above[cap] for cap in ("task", "calls")} if of == "child" else {})
    assert alert.code == (case.code if case.halts else "operator.halt")
    if case.halts:
        assert spoken(Stand(*of_facts(facts))) in alert.summary
    assert of_words(alert) == {cap: one for cap, one in expected.items() if cap != "per_call"}
    delivery = Delivery("dlv_1", "alt_1", 1, at.clock.now_us(), at.clock.now_us(), alert)
    bodies = {
        "standard error, desktop, apprise": block(delivery),
        "webhook": json.dumps(json.loads(alertmanager.body(delivery, "hook", ""))),
        "slack": json.dumps(slack.message(delivery)),
        "pagerduty": json.dumps(pagerduty.event(delivery, "trigger")),
    }
    for channel, body in bodies.items():
        for one in alert.balances:
            assert balance_line(one) in body, channel
    tightest = alert.tightest
    assert tightest is not None
    assert f"{tightest.cap} left {tightest.remaining} of {tightest.limit}" in short_text(alert)


async def newest_alert(at: Desk) -> Alert:
    [row] = await at.parts.reader.rows("SELECT body FROM alerts ORDER BY id DESC LIMIT 1")
    return Alert.from_stored(row["body"])


def of_words(alert: Alert) -> dict[str, Stand]:
    return {one.cap: _of_words(one) for one in alert.balances if one.of_session is None}


def _of_words(one: Balance) -> Stand:
    def number(text: str) -> int | None:
        if not text:
            return None
        bare = text.split(" ", maxsplit=1)[0]
        if one.cap not in MONEY:
            return int(bare.partition("/")[0])
        return -micros(bare[1:]) if bare.startswith("-") else micros(bare)

    words = (one.limit, one.spent, one.held, one.in_doubt, one.remaining)
    return Stand(*(number(text) for text in words), one.resets_at)  # type: ignore[arg-type]


def spoken(stand: Stand) -> str:
    """As the line of an alert says it, but for the currency."""
    return f"spent {stand.settled / 1e6:.2f}" if stand.limit >= 100_000 else f"spent {stand.settled}"


@dataclass
class _Printer:
    page: Page
    now: datetime


@pytest.mark.parametrize("width", [100, 80])
async def test_the_pages_that_people_read_show_each_cap_within_the_terminal(tmp_path: Path, width: int) -> None:
    async with told(tmp_path, DAYS[2], LOOSE) as story:
        at, out = story.at, StringIO()
        status = await at.ask("status")
        printer = _Printer(Page(out, width=width, colour=False), moment(status["now"]) or datetime.now(ZoneInfo("UTC")))
        print_status(printer.page, status, printer.now)
        agent_pages._print_detail(printer, await at.ask("show_agent", agent="booking-7"))  # type: ignore[arg-type]
        session_pages._print_detail(printer, await at.ask("show_session", session=story.child["session"]))  # type: ignore[arg-type]
        session_pages._print_detail(printer, await at.ask("show_session", session=story.root["session"]))  # type: ignore[arg-type]
        agent_pages._print_agents(printer, (await at.ask("list_agents"))["agents"])  # type: ignore[arg-type]
        session_pages.print_sessions(printer, (await at.ask("list_sessions"))["sessions"], with_agent=True)  # type: ignore[arg-type]
        shown = out.getvalue()
        too_wide = [line for line in shown.splitlines() if len(line) > width]
        assert too_wide == []
        expected = await story.expected("root")
        for cap in ("task", "hour", "day"):
            one = expected[cap]
            row = [f"{number / 1e6:.2f}" for number in (one.settled, one.held, one.in_doubt, one.remaining, one.limit)]
            assert any(
                line.split()[:6] == [cap, *row] or line.split()[-8:-2] == [cap, *row] for line in shown.splitlines()
            )
        print(shown)
