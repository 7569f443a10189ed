"""Episodes over the control tools: what halts opens them, who acts has them in hand, what ends the halt ends them."""

from __future__ import annotations

from typing import Any

import pytest

from support.desk import Desk, Failed


async def halted(at: Desk) -> dict[str, Any]:
    """A session that ran into its cap."""
    await at.agent()
    opened = await at.session()
    for _ in range(11):
        await at.call(opened["token"])
    return opened


async def episodes(at: Desk, **more: Any) -> list[dict[str, Any]]:
    return (await at.ask("list_alerts", **more))["episodes"]


async def acts(at: Desk) -> list[str]:
    return [one["act"] for one in reversed((await at.ask("list_alerts"))["alerts"])]


async def test_a_cap_opens_an_episode_with_all_that_somebody_needs_who_must_act(at: Desk) -> None:
    opened = await halted(at)
    (one,) = await episodes(at)
    assert (one["state"], one["count"], one["code"]) == ("open", 1, "budget.task_exceeded")
    assert (one["agent"], one["session"]) == ("booking-7", opened["session"])
    assert len(one["last_actions"]) == 5
    assert f"haltline alerts ack {one['id']}" in one["commands"]
    assert any(command.startswith(f"haltline resume {opened['session']}") for command in one["commands"])
    assert "remaining 0.00 USD of 0.50 USD" in one["summary"]


async def test_acknowledge_then_resume_is_recorded_with_how_long_it_took(at: Desk) -> None:
    opened = await halted(at)
    (one,) = await episodes(at)
    at.clock.forward(40)
    done = await at.ask("acknowledge_alert", episode=one["id"], reason="looking")
    assert (done["state"], done["by"], done["to_acknowledge_s"], done["to_act_s"]) == (
        "acknowledged", "operator:anna", 40.0, None,
    )  # fmt: skip
    at.clock.forward(60)
    await at.ask("resume", target=opened["session"], reason="looked")
    (one,) = await episodes(at)
    assert (one["state"], one["resolved_by"], one["acted_by"]) == ("resolved", "operator:anna", "operator:anna")
    assert await episodes(at, live=True) == []
    assert await acts(at) == ["trigger", "acknowledge", "resolve"]
    stats = await at.ask("alert_stats", since="1h")
    assert (stats["to_acknowledge_s"]["p50"], stats["to_act_s"]["p50"]) == (40.0, 100.0)


@pytest.mark.promise("R16")
async def test_resuming_the_agent_ends_nothing_of_its_session_that_is_still_halted(at: Desk) -> None:
    opened = await halted(at)
    await at.ask("halt", target="booking-7", reason="why")
    await at.ask("resume", target="booking-7", reason="why")
    live = await episodes(at, live=True)
    assert [(one["kind"], one["session"]) for one in live] == [("session.halted", opened["session"])]


async def test_a_revoke_of_the_agent_ends_all_of_its_episodes_and_is_told_as_a_notice(at: Desk) -> None:
    await halted(at)
    await at.ask("halt", target="booking-7", reason="why")
    await at.ask("revoke", target="booking-7", reason="why")
    assert await episodes(at, live=True) == []
    assert await acts(at) == ["trigger", "acknowledge", "trigger", "resolve", "resolve", "notice"]


async def test_what_an_operator_halts_is_in_their_hands_and_counts_as_acting(at: Desk) -> None:
    await halted(at)
    at.clock.forward(25)
    await at.ask("halt", target="booking-7", reason="why")
    own, cap = await episodes(at)
    assert (own["state"], own["acknowledged_by"]) == ("acknowledged", "operator:anna")
    assert (cap["state"], cap["acknowledged_by"], cap["acted_by"]) == ("acknowledged", *["operator:anna"] * 2)
    assert (await at.ask("alert_stats"))["to_act_s"]["max"] == 25.0


@pytest.mark.promise("P4")
async def test_what_is_halted_is_resolved_by_its_resume_alone(at: Desk) -> None:
    opened = await halted(at)
    (one,) = await episodes(at)
    with pytest.raises(
        Failed, match=r"is halted \(budget.task_exceeded\): a resume or a revoke resolves it"
    ) as refused:
        await at.ask("resolve_alert", episode=one["id"], reason="why")
    assert refused.value.code == "request.conflict"
    await at.ask("revoke", target=opened["session"], reason="why")
    assert [each["state"] for each in await episodes(at)] == ["resolved"]


async def test_an_episode_that_nobody_has_is_said_to_be_unknown(at: Desk) -> None:
    for tool in ("acknowledge_alert", "resolve_alert"):
        with pytest.raises(Failed, match="haltline alerts list"):
            await at.ask(tool, episode="epi_0", reason="why")
    with pytest.raises(Failed, match="nothing of alt_0"):
        await at.ask("retry_alert", id="alt_0")
