"""What no change of a policy does: clear a halt, or give a window back."""

from __future__ import annotations

import pytest

from support.desk import POLICY, Desk


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
