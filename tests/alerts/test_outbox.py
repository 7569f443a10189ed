"""The outbox over the real store: nothing lost, nothing out of order, nobody held up by somebody else's channel."""

from __future__ import annotations

import anyio
import pytest

from haltline.alerts.model import Delivery, Later, Never
from haltline.clock import iso
from haltline.store.writer import Tx
from support.post_office import START_US, ListChannel, PostOffice, an_alert


def numbers(deliveries: list[Delivery], agent: str | None = None) -> list[str]:
    chosen = [one.alert for one in deliveries if agent in {None, one.alert.agent}]
    return [one.text.rsplit(" ", 1)[1].rstrip(")") for one in chosen]


def standing(backlog: dict) -> tuple[int, str | None, int]:
    return backlog["backlog"], backlog["oldest_at"], backlog["failed"]


def fails(times: int, error: Exception, agent: str | None = None):
    """Fail the first so many attempts (of that agent's alerts)."""
    left = [times]

    def fail(delivery: Delivery) -> None:
        if left[0] and agent in {None, delivery.alert.agent}:
            left[0] -= 1
            raise error

    return fail


@pytest.mark.promise("P10")
async def test_an_alert_and_its_event_commit_together_or_not_at_all(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel())

    def broken(tx: Tx) -> None:
        office.halted(tx, outbox, an_alert())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await office.writer.run(broken)
    assert await outbox.overview.newest(10) == []
    await office.put(outbox, an_alert())
    events = await office.reader.rows("SELECT seq FROM events")
    rows = await office.reader.rows("SELECT event_seq FROM alerts")
    assert [row["seq"] for row in events] == [row["event_seq"] for row in rows]


@pytest.mark.promise("P10")
async def test_an_alert_wakes_the_channels_and_is_delivered(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel)) as outbox:
        (alert_id,) = await office.put(outbox, an_alert())
        assert await office.done(outbox)
    (delivery,) = channel.taken
    assert (delivery.id, delivery.alert_id, delivery.attempt) == (f"{alert_id}.list", alert_id, 1)
    assert delivery.at_us == START_US
    episode = delivery.alert.episode
    assert delivery.alert == an_alert(
        episode=episode, opened_us=START_US, commands=(*an_alert().commands, f"haltline alerts ack {episode}")
    )


@pytest.mark.promise("P10")
async def test_it_is_retried_until_taken_always_under_the_same_id(office: PostOffice) -> None:
    channel = ListChannel(fail=fails(3, Later("HTTP 503")))
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert())
        assert not await office.done(outbox)
        for waited_s, attempts in ((60, 1), (30, 2), (150, 2), (30, 3), (330, 3), (30, 4)):
            await office.advance(outbox, waited_s)
            assert len(channel.tried) == attempts, "full jitter at 0.9: after 90, 180 and 360 s"
        assert (await outbox.backlog())["backlog"] == 0
    assert len({one.id for one in channel.tried}) == 1
    assert [one.attempt for one in channel.tried] == [1, 2, 3, 4]


async def test_it_is_retried_by_itself_when_its_time_has_come(office: PostOffice) -> None:
    """Without being woken, and although the clock stands still."""
    channel = ListChannel(fail=fails(1, Later("HTTP 503")))
    outbox = office.outbox(channel)
    await office.put(outbox, an_alert())
    await office.writer.run(lambda tx: tx.execute("UPDATE deliveries SET next_us = ?", (START_US + 50_000,)))
    async with office.running(outbox):
        with anyio.fail_after(30):
            while not channel.tried:
                await outbox._recorded.wait()
    assert len(channel.tried) == 1


@pytest.mark.promise("P10")
async def test_a_later_alert_of_the_same_agent_waits_and_other_agents_do_not(office: PostOffice) -> None:
    channel = ListChannel(fail=fails(1, Later("HTTP 503"), agent="booking-7"))
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, *(an_alert("booking-7", number) for number in (1, 2, 3)))
        await office.put(outbox, *(an_alert("other", number) for number in (1, 2)))
        await office.done(outbox)
        assert numbers(channel.taken, "other") == ["1", "2"]
        assert numbers(channel.taken, "booking-7") == []
        await office.advance(outbox, 90)
    assert numbers(channel.taken, "booking-7") == ["1", "2", "3"]
    assert numbers(channel.tried, "booking-7") == ["1", "1", "2", "3"]


@pytest.mark.promise("P10")
async def test_a_channel_that_is_back_is_told_at_once_of_all_that_waits_for_it(office: PostOffice) -> None:
    away = [True]

    def fail(delivery: Delivery) -> None:
        if away[0]:
            raise Later("HTTP 503")

    channel = ListChannel(fail=fail)
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert("early"))
        for waited_s in (0, 90, 180):
            await office.advance(outbox, waited_s)
        await office.put(outbox, *(an_alert(f"late-{number}") for number in range(5)))
        await office.advance(outbox, 300)
        assert channel.taken == []
        away[0] = False
        await office.advance(outbox, 60)  # the fourth attempt of the early one is due, and no other
        assert {one.alert.agent for one in channel.taken} == {"early", *(f"late-{number}" for number in range(5))}
        assert (await outbox.backlog())["backlog"] == 0


@pytest.mark.promise("P10")
async def test_what_a_receiver_asked_to_wait_for_is_waited_for_also_when_it_takes_something_else(
    office: PostOffice,
) -> None:
    left = [3]

    def fail(delivery: Delivery) -> None:
        if delivery.alert.agent == "asked" and len(channel.taken) == 0:
            raise Later("HTTP 429", 2_000.0)
        if delivery.alert.agent == "early" and left[0]:
            left[0] -= 1
            raise Later("HTTP 503")

    channel = ListChannel(fail=fail)
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert("early"))
        for waited_s in (0, 90, 180):
            await office.advance(outbox, waited_s)
        await office.put(outbox, an_alert("asked"))
        await office.done(outbox)
        await office.advance(outbox, 360)
        assert {one.alert.agent for one in channel.taken} == {"early"}
        await office.advance(outbox, 1_700)
        assert {one.alert.agent for one in channel.taken} == {"early", "asked"}


async def test_alerts_about_everything_are_a_lane_of_their_own(office: PostOffice) -> None:
    channel = ListChannel()
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert(agent_id=None, agent=None, session=None, kind="everything.halted"))
        assert await office.done(outbox)
    assert channel.taken[0].alert.summary.startswith("everything: everything.halted")


@pytest.mark.promise("P10")
async def test_what_can_never_succeed_is_parked_and_shown_and_the_next_goes_on(office: PostOffice) -> None:
    channel = ListChannel(fail=fails(1, Never("HTTP 404: it will not take this")))
    async with office.running(office.outbox(channel)) as outbox:
        first, _ = await office.put(outbox, an_alert(number=1), an_alert(number=2))
        await office.done(outbox)
        await office.advance(outbox, 100_000)
        assert standing(await outbox.backlog()) == (0, None, 1)
        shown = {one["id"]: one["deliveries"] for one in await outbox.overview.newest(10)}
    assert numbers(channel.taken) == ["2"]
    assert shown[first] == [
        {"channel": "list", "state": "parked", "attempts": 1, "last_error": "HTTP 404: it will not take this"}
    ]


async def test_a_fault_inside_a_channel_is_retried_and_its_words_are_not_kept(office: PostOffice) -> None:
    channel = ListChannel(fail=fails(1, RuntimeError("https://user:hunter2@host/")))
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert())
        await office.done(outbox)
        ((delivery,),) = [one["deliveries"] for one in await outbox.overview.newest(10)]
        await office.advance(outbox, 90)
    assert delivery["last_error"] == "the channel failed (RuntimeError)"
    assert len(channel.taken) == 1


@pytest.mark.promise("P10")
async def test_a_channel_that_hangs_delays_no_other_channel(office: PostOffice) -> None:
    class Hanging(ListChannel):
        async def send(self, delivery: Delivery) -> None:
            self.tried.append(delivery)
            await anyio.sleep_forever()

    hanging, healthy = Hanging("hanging"), ListChannel("healthy")
    async with office.running(office.outbox(hanging, healthy)) as outbox:
        await office.put(outbox, *(an_alert(f"agent-{n % 20}", n) for n in range(60)))
        with anyio.fail_after(30):
            while len(healthy.taken) < 60:
                await outbox._recorded.wait()
        assert (await outbox.backlog())["backlog"] == 60
    assert len({one.id for one in healthy.tried}) == len(healthy.tried) == 60, "none was sent twice"
    assert len(hanging.tried) == 8, "no more at once than there are places"


async def test_a_slow_delivery_for_one_agent_holds_up_no_other_agent_on_that_channel(office: PostOffice) -> None:
    class HangsForOne(ListChannel):
        async def send(self, delivery: Delivery) -> None:
            if delivery.alert.agent == "stuck":
                await anyio.sleep_forever()
            await super().send(delivery)

    channel = HangsForOne()
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert("stuck"), *(an_alert("free", n) for n in range(20)))
        with anyio.fail_after(30):
            while len(channel.taken) < 20:
                await outbox._recorded.wait()
    assert numbers(channel.taken) == [str(n) for n in range(20)]


async def test_a_retry_after_is_honoured_up_to_an_hour(office: PostOffice) -> None:
    asked = iter((500.0, 1e12))

    def fail(delivery: Delivery) -> None:
        if delivery.attempt <= 2:
            raise Later("HTTP 429", next(asked))

    channel = ListChannel(fail=fail)
    async with office.running(office.outbox(channel)) as outbox:
        await office.put(outbox, an_alert())
        await office.done(outbox)
        for waited_s, attempts in ((450, 1), (50, 2), (3550, 2), (50, 3)):
            await office.advance(outbox, waited_s)
            assert len(channel.tried) == attempts


async def test_an_outcome_that_could_not_be_written_is_not_sent_again_meanwhile(office: PostOffice) -> None:
    """A store that fails must not become a flood of the same alert."""
    channel = ListChannel()
    outbox = office.outbox(channel)
    outbox._couriers[0]._backoff = outbox._couriers[0]._backoff.__class__(store_pause_s=0.01)
    await office.put(outbox, an_alert())
    run, failed, recovered = office.writer.run, anyio.Event(), anyio.Event()

    class FailingWriter:
        async def run(self, unit):
            if recovered.is_set():
                return await run(unit)
            failed.set()
            raise OSError("disk full")

    outbox._couriers[0]._writer = FailingWriter()
    async with office.running(outbox):
        with anyio.fail_after(30):
            await failed.wait()
            outbox.wake()
            recovered.set()
        assert await office.done(outbox)
    assert len(channel.tried) == 1


async def test_the_backlog_says_how_many_alerts_wait_and_since_when(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel("one"), ListChannel("two"))
    assert standing(await outbox.backlog()) == (0, None, 0)
    await office.put(outbox, an_alert())
    office.now_us += 7_000_000
    await office.put(outbox, an_alert(), an_alert("other"))
    told = await outbox.backlog()
    assert standing(told) == (3, iso(START_US), 0)
    assert told["oldest_age_s"] == 7.0
    assert told["open_episodes"] == 2
    assert [(one["channel"], one["backlog"], one["oldest_age_s"]) for one in told["channels"]] == [
        ("one", 3, 7.0),
        ("two", 3, 7.0),
    ]


async def test_the_newest_alerts_come_first_and_bounded(office: PostOffice) -> None:
    outbox = office.outbox(ListChannel())
    ids = await office.put(outbox, *(an_alert(number=n) for n in range(4)))
    shown = await outbox.overview.newest(2)
    assert [one["id"] for one in shown] == [ids[3], ids[2]]
    assert shown[0] == {
        "id": ids[3],
        "at": iso(START_US),
        "kind": "session.halted",
        "act": "trigger",
        "episode": shown[1]["episode"],
        "agent": "booking-7",
        "session": "ses_booking-7",
        "summary": an_alert(number=3, count=4).summary,
        "deliveries": [{"channel": "list", "state": "pending", "attempts": 0, "last_error": None}],
    }
    assert len(await outbox.overview.newest(-5)) == 1


async def test_what_waits_for_a_channel_that_is_gone_is_parked_and_shown(office: PostOffice) -> None:
    await office.put(office.outbox(ListChannel("old"), ListChannel("kept")), an_alert())
    kept = ListChannel("kept")
    async with office.running(office.outbox(kept)) as outbox:
        assert await office.done(outbox)
        ((old, _),) = [one["deliveries"] for one in await outbox.overview.newest(1)]
    assert old == {
        "channel": "old",
        "state": "parked",
        "attempts": 0,
        "last_error": "no channel of this name is configured any more",
    }
    assert len(kept.taken) == 1


async def test_flush_gives_up_on_what_cannot_come_in_time(office: PostOffice) -> None:
    async with office.running(office.outbox(ListChannel(fail=fails(99, Later("HTTP 503"))))) as outbox:
        await office.put(outbox, an_alert())
        with anyio.fail_after(30):
            assert await outbox.flush(80) is False
