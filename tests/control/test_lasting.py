"""What no change of a policy does: clear a halt, or give a window back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.desk import POLICY, Desk, desk


@pytest.mark.promise("P4", "R5")
@pytest.mark.parametrize("change", ["edited", "taken away and written again", "reloaded as it is"])
async def test_a_policy_that_is_changed_clears_no_halt_and_resets_no_window(at: Desk, change: str) -> None:
    await at.agent()
    opened = await at.session()
    for _ in range(11):
        await at.call(opened["token"])
    before = await at.ask("show_session", session=opened["session"])
    assert before["halt"]["code"] == "budget.task_exceeded"
    (file,) = at.parts.policies.folder.glob("*.yaml")
    if change == "edited":
        file.write_text(POLICY.replace('task: "0.50"', 'task: "9.00"'))
    if change == "taken away and written again":
        file.unlink()
        at.parts.policies.reload()
        file.write_text(POLICY)
    await at.ask("reload_policy")
    after = await at.ask("show_session", session=opened["session"])
    assert after["halt"] == before["halt"]
    assert after["spent"] == before["spent"] == {"micros": 500_000, "text": "0.50 USD"}
    assert "session.halted" in str(await at.call(opened["token"]))


@pytest.mark.promise("P4", "R1", "R5")
@pytest.mark.parametrize("change", ["edited", "taken away and written again", "reloaded as it is", "restarted"])
async def test_no_window_begins_anew_with_another_policy_nor_with_a_restart(tmp_path: Path, change: str) -> None:
    async with desk(tmp_path) as before:
        await before.agent(caps={"hour": "0.30", "rate": "9/hour"})
        opened = await before.session()
        for _ in range(4):
            await before.call(opened["token"])
        await before.ask("halt", target="everything", reason="incident")
        first = (await before.ask("show_agent", agent="booking-7"))["balances"]
        (file,) = before.parts.policies.folder.glob("*.yaml")
        if change == "edited":
            file.write_text(POLICY.replace('task: "0.50"', 'task: "9.00"'))
        if change == "taken away and written again":
            file.unlink()
            before.parts.policies.reload()
            file.write_text(POLICY)
        await before.ask("reload_policy")
        tokens, clock = (before.person, before.local), before.clock
        if change != "restarted":
            await _is_as_before(before, first, opened["token"])
    if change == "restarted":
        async with desk(tmp_path, clock=clock, tokens=tokens) as after:
            await _is_as_before(after, first, opened["token"])


async def _is_as_before(at: Desk, balances: Any, token: str) -> None:
    assert (await at.ask("show_agent", agent="booking-7"))["balances"] == balances
    assert {one["cap"]: one["settled"] for one in balances if one["cap"] in {"hour", "rate"}} == {
        "hour": {"micros": 200_000, "text": "0.20 USD"},
        "rate": 4,
    }
    assert not (await at.ask("status"))["ready"]
    assert "everything.halted" in str(await at.call(token))


@pytest.mark.promise("R16")
async def test_a_preview_of_a_resume_says_that_the_next_call_would_halt_again_and_lifts_nothing(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for _ in range(11):
        await at.call(session["token"])
    told = {"target": session["session"], "reason": "looked"}
    seen = await at.ask("resume", **told, preview=True)
    assert seen["preview"]
    assert seen["ahead"].endswith("would halt again: task spend 0.55 of 0.50 USD")
    assert (await at.ask("show_session", session=session["session"]))["halt"] is not None
