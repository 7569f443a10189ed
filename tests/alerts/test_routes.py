"""Where an alert goes, and where when nobody acknowledges it: deadlines that restarts keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from haltline.policy.policy import load_policy
from support.policy_texts import write_files
from support.post_office import ListChannel, PostOffice, an_alert, post_office

ROUTES = """
tiers: {}
alerts:
  routes:
    day: {when: {severity: [critical]}, channels: [pager], then: boss, after: 5m}
    boss: {channels: [phone], then: all, after: 10m}
    all: {channels: [pager, phone, mail]}
"""
NAMES = ("stderr", "pager", "phone", "mail")


@pytest.fixture
def routing(tmp_path: Path) -> Any:
    alerts = load_policy(write_files(tmp_path / "policy", a=ROUTES)).alerts
    return lambda: alerts


def channels() -> dict[str, ListChannel]:
    return {name: ListChannel(name) for name in NAMES}


def told(there: dict[str, ListChannel]) -> dict[str, int]:
    return {name: len(one.taken) for name, one in there.items()}


async def test_an_alert_goes_to_the_channels_of_its_route_and_to_standard_error(
    office: PostOffice, routing: Any
) -> None:
    there = channels()
    async with office.running(office.outbox(*there.values(), routing=routing)) as outbox:
        await office.put(outbox, an_alert())
        await office.done(outbox)
        assert told(there) == {"stderr": 1, "pager": 1, "phone": 0, "mail": 0}
        await office.put(outbox, an_alert("other", severity="warning"))
        await office.done(outbox)
    assert told(there) == {"stderr": 2, "pager": 2, "phone": 1, "mail": 1}, "no route takes it, so every channel does"


async def test_a_route_whose_channels_are_all_gone_tells_every_channel(office: PostOffice, routing: Any) -> None:
    there = {name: ListChannel(name) for name in ("stderr", "mail")}
    async with office.running(office.outbox(*there.values(), routing=routing)) as outbox:
        await office.put(outbox, an_alert())
        await office.done(outbox)
    assert told(there) == {"stderr": 1, "mail": 1}


@pytest.mark.promise("P10")
async def test_what_nobody_acknowledges_goes_from_route_to_route_and_says_why(office: PostOffice, routing: Any) -> None:
    there = channels()
    async with office.running(office.outbox(*there.values(), routing=routing)) as outbox:
        await office.put(outbox, an_alert())
        for wait_s, phone, mail in ((299, 0, 0), (1, 1, 0), (599, 1, 0), (1, 2, 1), (9999, 2, 1)):
            await office.advance(outbox, wait_s)
            await there["phone"].got(phone)
            await there["mail"].got(mail)
            await office.done(outbox)
            assert (told(there)["phone"], told(there)["mail"]) == (phone, mail), f"after {wait_s} more"
        (shown,) = await outbox.overview.episodes(1, live_only=True)
    assert (shown["escalations"], shown["escalates_at"]) == (2, None)
    assert there["phone"].taken[0].alert.step == "not acknowledged within 5 min, so it goes to boss"
    assert {one.alert.episode for one in there["phone"].taken} == {shown["id"]}


@pytest.mark.parametrize("act", ["acknowledge", "resolve"])
async def test_what_somebody_has_in_hand_goes_no_further(office: PostOffice, routing: Any, act: str) -> None:
    there = channels()
    async with office.running(office.outbox(*there.values(), routing=routing)) as outbox:
        episode = (
            await office.writer.run(lambda tx: outbox.enqueue(tx, office.event(tx), an_alert()))
        ).episode.public_id
        await office.advance(outbox, 200)
        await office.writer.run(
            lambda tx: (
                outbox.acknowledge(tx, office.event(tx), outbox.episodes.get(tx, episode), "operator:anna")
                if act == "acknowledge"
                else outbox.resolve(tx, office.event(tx), [outbox.episodes.get(tx, episode)], "operator:anna")
            )
        )
        await office.advance(outbox, 5000)
        await office.writer.run(lambda _: None)
        await office.done(outbox)
    assert told(there)["phone"] == 0


@pytest.mark.promise("P10")
async def test_a_deadline_that_passed_while_no_broker_ran_is_kept(
    office: PostOffice, tmp_path: Path, routing: Any
) -> None:
    before = channels()
    async with office.running(office.outbox(*before.values(), routing=routing)) as outbox:
        await office.put(outbox, an_alert())
        await office.done(outbox)
    after = channels()
    later_us = office.now_us + 400_000_000
    async with post_office(tmp_path / "haltline.db", later_us) as again:
        async with again.running(again.outbox(*after.values(), routing=routing)) as outbox:
            await after["phone"].got(1)
            assert await again.done(outbox)
    assert told(after) == {"stderr": 1, "pager": 0, "phone": 1, "mail": 0}


async def test_a_repeat_reaches_those_whom_the_episode_has_reached(office: PostOffice, routing: Any) -> None:
    there = channels()
    async with office.running(office.outbox(*there.values(), routing=routing)) as outbox:
        await office.put(outbox, an_alert())
        await office.advance(outbox, 301)
        await there["phone"].got(1)
        await office.put(outbox, an_alert())
        await office.done(outbox)
    assert told(there) == {"stderr": 3, "pager": 2, "phone": 2, "mail": 0}


async def test_a_next_route_that_the_policy_no_longer_has_is_every_channel(office: PostOffice, routing: Any) -> None:
    there, now = channels(), [routing()]
    async with office.running(office.outbox(*there.values(), routing=lambda: now[0])) as outbox:
        await office.put(outbox, an_alert())
        await office.done(outbox)
        now[0] = None
        await office.advance(outbox, 301)
        await there["mail"].got(1)
        await office.done(outbox)
    assert told(there) == {"stderr": 2, "pager": 2, "phone": 1, "mail": 1}
