"""What is done without being asked: episodes of sessions that ended, and alerts that are old, let go in bounded steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from haltline.alerts.model import Alert
from haltline.alerts.retention import AT_ONCE
from haltline.audit import Event, Kind
from haltline.store.writer import Tx
from haltline.upkeep import ENDED, Upkeep
from support.desk import Desk, desk

DAY_S = 86_400.0


@pytest.fixture
async def at(tmp_path: Path):
    async with desk(tmp_path) as found:
        yield found


async def counts(at: Desk) -> tuple[int, ...]:
    rows = [
        await at.parts.reader.row(f"SELECT count(*) AS n FROM {table}")
        for table in ("episodes", "alerts", "deliveries")
    ]
    return tuple(row["n"] for row in rows if row is not None)


async def taken(at: Desk) -> None:
    """All that waits is delivered."""
    await at.run(
        lambda tx: tx.execute("UPDATE deliveries SET state = 'delivered', ended_us = 1 WHERE state = 'pending'")
    )


# episodes of sessions that have ended


@pytest.mark.promise("P4", "P10")
async def test_what_somebody_has_seen_is_over_once_its_session_has_ended(at: Desk) -> None:
    await at.agent()
    session = await at.session(expires_in="1h")
    for _ in range(11):
        await at.call(session["token"])
    (episode,) = (await at.ask("list_alerts", live=True))["episodes"]
    upkeep = Upkeep(at.parts, 90 * DAY_S)
    await at.ask("acknowledge_alert", episode=episode["id"])
    assert await upkeep.end_episodes() == 0, "a session that can be resumed keeps it open"
    at.clock.forward(3_601)
    assert await upkeep.end_episodes() == 1
    assert await upkeep.end_episodes() == 0
    (after,) = (await at.ask("list_alerts"))["episodes"]
    assert (after["state"], after["resolved_by"]) == ("resolved", ENDED)
    (event,) = await at.events("alert.resolved")
    assert (event["actor"], event["target"]) == ("broker", episode["id"])
    assert "no resume can come" in event["reason"]
    assert (await at.ask("list_alerts"))["alerts"][0]["act"] == "resolve", "and so it is told, wherever it was told"
    halt = await at.run(lambda tx: at.parts.halts.get(tx, "session", session["session"]))
    assert halt is not None, "nothing is lifted by it"


@pytest.mark.promise("P10")
async def test_what_nobody_has_seen_stays_open_also_when_its_session_has_ended(at: Desk) -> None:
    await at.agent()
    session = await at.session(expires_in="1h")
    for _ in range(11):
        await at.call(session["token"])
    at.clock.forward(3_601)
    assert await Upkeep(at.parts, 90 * DAY_S).end_episodes() == 0
    (episode,) = (await at.ask("list_alerts", live=True))["episodes"]
    assert episode["state"] == "open"
    await at.ask("acknowledge_alert", episode=episode["id"])
    assert await Upkeep(at.parts, 90 * DAY_S).end_episodes() == 1


# alerts that are old


async def told(at: Desk, times: int, *, resolved: bool = True) -> None:
    def unit(tx: Tx) -> None:
        seq = at.parts.audit.append(tx, Event(Kind.TOOL_CHANGED, "broker"))
        for number in range(times):
            alert = Alert("tool.changed", "upstream.definition_changed", "it changed", tool=f"tool-{number}-{resolved}")
            one = at.parts.outbox.enqueue(tx, seq, alert)
            assert one.episode is not None
            if resolved:
                at.parts.outbox.resolve(tx, seq, [one.episode], "operator:anna")

    await at.run(unit)


async def test_old_alerts_go_once_they_are_resolved_and_delivered_and_it_is_recorded(at: Desk) -> None:
    await told(at, AT_ONCE // 2 + 10)
    await taken(at)
    assert (await counts(at))[:2] == (110, 220)
    upkeep = Upkeep(at.parts, DAY_S)
    at.clock.forward(DAY_S - 1)
    assert await upkeep.prune() == (0, 0)
    assert await at.events("alert.pruned") == []
    at.clock.forward(2)
    assert await upkeep.prune() == (220, 110)
    assert await counts(at) == (0, 0, 0)
    (event,) = await at.events("alert.pruned")
    assert (event["actor"], event["alerts"], event["episodes"]) == ("broker", 220, 110)


@pytest.mark.promise("P10")
@pytest.mark.parametrize("kept", ["open", "waiting", "given up"])
async def test_what_is_open_or_not_delivered_is_never_let_go(at: Desk, kept: str) -> None:
    await told(at, 1, resolved=kept != "open")
    if kept == "open":
        await taken(at)
    if kept == "given up":
        await at.run(lambda tx: tx.execute("UPDATE deliveries SET state = 'parked', ended_us = 1"))
    before = await counts(at)
    at.clock.forward(1_000 * DAY_S)
    assert await Upkeep(at.parts, DAY_S).prune() == (0, 0)
    assert await counts(at) == before


async def test_a_notice_that_belongs_to_no_episode_goes_by_its_own_age(at: Desk) -> None:
    await at.agent()
    await at.ask("revoke", target="booking-7", reason="over")
    await taken(at)
    assert (await counts(at))[:2] == (0, 1)
    at.clock.forward(2 * DAY_S)
    assert await Upkeep(at.parts, DAY_S).prune() == (1, 0)
    assert await counts(at) == (0, 0, 0)


async def test_an_episode_whose_end_is_young_keeps_all_of_its_messages(at: Desk) -> None:
    await told(at, 1, resolved=False)
    at.clock.forward(2 * DAY_S)
    (episode,) = (await at.ask("list_alerts"))["episodes"]
    await at.ask("resolve_alert", episode=episode["id"], reason="expected")
    await taken(at)
    assert await Upkeep(at.parts, DAY_S).prune() == (0, 0)
    shown: list[Any] = (await at.ask("list_alerts"))["episodes"]
    assert [one["id"] for one in shown] == [episode["id"]]
