"""Episodes: one for each subject and cause, told once, counted, in somebody's hand, over; and told so to the same channels."""

from __future__ import annotations

import pytest

from haltline.alerts.episodes import TRANSITIONS, Episode
from haltline.alerts.model import Alert, Delivery, Later
from haltline.alerts.outbox import Outbox
from haltline.errors import Conflict, NotFound
from support.post_office import ListChannel, PostOffice, an_alert

QUIET_S = 600.0


async def raised(office: PostOffice, outbox: Outbox, alert: Alert) -> Episode:
    told = await office.writer.run(lambda tx: outbox.enqueue(tx, office.event(tx), alert))
    assert told.episode is not None
    return told.episode


async def acknowledged(office: PostOffice, outbox: Outbox, episode: str, by: str = "operator:anna") -> Episode:
    return await office.writer.run(
        lambda tx: outbox.acknowledge(tx, office.event(tx), outbox.episodes.get(tx, episode), by)
    )


async def resolved(office: PostOffice, outbox: Outbox, episode: str, by: str = "operator:anna") -> list[str]:
    return await office.writer.run(
        lambda tx: outbox.resolve(tx, office.event(tx), [outbox.episodes.get(tx, episode)], by)
    )


def test_the_transitions_are_these_and_no_others() -> None:
    assert TRANSITIONS == {
        (None, "raise"): "open",
        ("open", "raise"): "open",
        ("acknowledged", "raise"): "acknowledged",
        ("open", "acknowledge"): "acknowledged",
        ("open", "resolve"): "resolved",
        ("acknowledged", "resolve"): "resolved",
    }


async def test_a_repeat_within_the_quiet_period_is_counted_and_not_told(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel, quiet_s=QUIET_S)) as outbox:
        first = await raised(office, outbox, an_alert())
        office.now_us += int((QUIET_S - 1) * 1_000_000)
        again = await raised(office, outbox, an_alert())
        await office.done(outbox)
        (shown,) = await outbox.overview.episodes(10, live_only=True)
    assert (again.public_id, again.count) == (first.public_id, 2)
    assert len(channel.taken) == 1
    assert (shown["count"], shown["state"]) == (2, "open")


async def test_after_the_quiet_period_it_is_told_again_with_its_count(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel, quiet_s=QUIET_S)) as outbox:
        for wait_s in (0, 1, QUIET_S):
            office.now_us += int(wait_s * 1_000_000)
            await raised(office, outbox, an_alert())
        await office.done(outbox)
    assert [one.alert.count for one in channel.taken] == [1, 3]
    assert "(×3)" in channel.taken[1].alert.summary


async def test_a_graver_repeat_is_told_at_once(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel, quiet_s=QUIET_S)) as outbox:
        for severity in ("warning", "info", "critical"):
            await raised(office, outbox, an_alert(severity=severity))
        await office.done(outbox)
    assert [one.alert.severity for one in channel.taken] == ["warning", "critical"]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"text": "other words"}, True),
        ({"session": "ses_other"}, False),
        ({"code": "calls.exceeded"}, False),
        ({"rule": "velocity"}, False),
        ({"kind": "agent.halted"}, False),
    ],
)
async def test_an_episode_is_one_for_each_subject_and_cause(office: PostOffice, other: dict, same: bool) -> None:
    outbox = office.outbox(ListChannel(), quiet_s=QUIET_S)
    one = await raised(office, outbox, an_alert())
    two = await raised(office, outbox, an_alert(**other))
    assert (one.public_id == two.public_id) is same


async def test_two_agents_with_one_cause_have_two_episodes(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel(), quiet_s=QUIET_S)
    ids = {(await raised(office, outbox, an_alert(agent, kind="agent.halted"))).public_id for agent in ("a", "b", "a")}
    assert len(ids) == 2


async def test_acknowledging_tells_whoever_was_told_under_the_same_episode(office: PostOffice) -> None:
    told, silent = ListChannel("told"), ListChannel("silent")
    silent.acts = frozenset({"trigger"})
    async with office.running(office.outbox(told, silent, quiet_s=QUIET_S)) as outbox:
        episode = await raised(office, outbox, an_alert())
        after = await acknowledged(office, outbox, episode.public_id)
        await office.done(outbox)
    assert (after.state, after.acknowledged_by) == ("acknowledged", "operator:anna")
    assert [one.alert.act for one in told.taken] == ["trigger", "acknowledge"]
    assert {one.alert.episode for one in told.taken} == {episode.public_id}
    assert told.taken[1].alert.headline == "acknowledged by operator:anna"
    assert [one.alert.act for one in silent.taken] == ["trigger"]


async def test_what_is_illegal_is_a_conflict_that_names_who_was_first_and_changes_nothing(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel(), quiet_s=QUIET_S)
    episode = (await raised(office, outbox, an_alert())).public_id
    await acknowledged(office, outbox, episode)
    with pytest.raises(Conflict, match=f"{episode} is acknowledged already \\(by operator:anna\\)"):
        await acknowledged(office, outbox, episode, "operator:ben")
    await resolved(office, outbox, episode)
    for again in (acknowledged, resolved):
        with pytest.raises(Conflict, match="is resolved already"):
            await again(office, outbox, episode, "operator:ben")
    (shown,) = await outbox.overview.episodes(10, live_only=False)
    assert (shown["acknowledged_by"], shown["resolved_by"]) == ("operator:anna", "operator:anna")
    with pytest.raises(NotFound, match="haltline alerts list"):
        await acknowledged(office, outbox, "epi_none")


async def test_after_it_is_resolved_the_same_cause_opens_another(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel(), quiet_s=QUIET_S)
    first = await raised(office, outbox, an_alert())
    await resolved(office, outbox, first.public_id)
    second = await raised(office, outbox, an_alert())
    assert first.public_id != second.public_id
    assert [one["id"] for one in await outbox.overview.episodes(10, live_only=True)] == [second.public_id]


async def test_an_acknowledged_one_that_went_quiet_does_not_hide_the_next(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel, quiet_s=QUIET_S)) as outbox:
        first = await raised(office, outbox, an_alert())
        await acknowledged(office, outbox, first.public_id)
        office.now_us += int(QUIET_S * 1_000_000)
        second = await raised(office, outbox, an_alert())
        await office.done(outbox)
    assert (second.state, second.count) == ("open", 1)
    assert second.public_id != first.public_id
    told = [(one.alert.episode, one.alert.act) for one in channel.taken]
    assert [act for episode, act in told if episode == first.public_id] == ["trigger", "acknowledge"]
    assert (second.public_id, "trigger") in told


@pytest.mark.promise("P10")
async def test_the_end_never_overtakes_the_beginning(office: PostOffice) -> None:
    """Also while the channel takes nothing."""
    left = [2]

    def fail(_: Delivery) -> None:
        if left[0]:
            left[0] -= 1
            raise Later("HTTP 503")

    channel = ListChannel(fail=fail)
    async with office.running(office.outbox(channel)) as outbox:
        episode = await raised(office, outbox, an_alert())
        await acknowledged(office, outbox, episode.public_id)
        await resolved(office, outbox, episode.public_id)
        await office.done(outbox)
        for _ in range(2):
            await office.advance(outbox, 200)
    assert [one.alert.act for one in channel.taken] == ["trigger", "acknowledge", "resolve"]


async def test_what_an_operator_has_in_hand_from_the_start_is_told_once(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel)) as outbox:
        episode = await raised(office, outbox, an_alert(by="operator:anna", acted_by="operator:anna"))
        await office.done(outbox)
    assert (episode.state, episode.acknowledged_by) == ("acknowledged", "operator:anna")
    assert [one.alert.act for one in channel.taken] == ["trigger"]
    assert not [one for one in channel.taken[0].alert.commands if "alerts ack" in one]


async def test_a_notice_is_told_and_opens_no_episode(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert(kind="agent.revoked", act="notice"))
        await office.done(outbox)
        assert await outbox.overview.episodes(10, live_only=False) == []
    assert len(channel.taken) == 1


async def test_how_long_people_took_is_kept_and_summed_up(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel())
    begun_us = office.now_us
    quick, slow = [await raised(office, outbox, an_alert(name)) for name in ("quick", "slow")]
    await raised(office, outbox, an_alert("never"))
    office.now_us += 30_000_000
    await acknowledged(office, outbox, quick.public_id)
    office.now_us += 370_000_000
    await office.writer.run(lambda tx: outbox.episodes.acted(tx, slow.about, None, "operator:ben"))
    await resolved(office, outbox, slow.public_id)
    stats = await outbox.overview.stats(begun_us)
    assert {key: stats[key] for key in ("episodes", "acknowledged", "acknowledged_in_time", "unseen", "resolved")} == {
        "episodes": 3,
        "acknowledged": 2,
        "acknowledged_in_time": 1,
        "unseen": 1,
        "resolved": 1,
    }
    assert stats["to_acknowledge_s"] == {"p50": 400.0, "p95": 400.0, "max": 400.0}
    assert stats["to_act_s"] == {"p50": 400.0, "p95": 400.0, "max": 400.0}
    assert (await outbox.overview.stats(office.now_us))["to_act_s"] is None


async def test_what_was_given_up_can_be_sent_again(office: PostOffice) -> None:
    from haltline.alerts.model import Never

    broken = [True]

    def fail(_: Delivery) -> None:
        if broken[0]:
            raise Never("HTTP 404")

    channel = ListChannel(fail=fail)
    async with office.running(office.outbox(channel)) as outbox:
        episode = await raised(office, outbox, an_alert())
        await office.done(outbox)
        assert (await outbox.backlog())["failed"] == 1
        broken[0] = False
        count = await office.writer.run(lambda tx: outbox.retry(tx, episode.public_id, of_episode=True))
        await office.done(outbox)
        assert (await outbox.backlog())["failed"] == 0
        with pytest.raises(NotFound, match="nothing of"):
            await office.writer.run(lambda tx: outbox.retry(tx, episode.public_id, of_episode=True))
    assert count == len(channel.taken) == 1
