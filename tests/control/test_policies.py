from __future__ import annotations

import pytest

from support.desk import Desk, Failed


async def test_an_explanation_gives_the_decision_its_amount_and_every_rule_that_spoke(at: Desk) -> None:
    await at.agent()
    said = await at.ask("explain_decision", agent="booking-7", tool="payments__charge", arguments={"amount": 5})
    assert said["decision"] == "allow"
    assert said["amount"] == {"micros": 50_000, "text": "0.05 USD"}
    assert said["reasons"] == []
    assert any(rule["where"].startswith("policy.yaml:") and rule["spoke"] == "allow" for rule in said["rules"])


@pytest.mark.promise("R3")
async def test_it_reads_the_real_facts_and_holds_nothing(at: Desk) -> None:
    await at.agent()
    session = await at.session()
    for _ in range(10):
        await at.call(session["token"])
    holds = len(await at.parts.reader.rows("SELECT id FROM holds"))
    said = await at.ask("explain_decision", agent="booking-7", tool="payments__charge", session=session["session"])
    assert said["decision"] == "halt"
    assert said["reasons"][0]["code"] == "budget.task_exceeded"
    assert said["reasons"][0]["facts"]["limit_micros"] == 500_000
    assert len(await at.parts.reader.rows("SELECT id FROM holds")) == holds
    assert (await at.ask("status"))["halts"] == []
    fresh = await at.ask("explain_decision", agent="booking-7", tool="payments__charge")
    assert fresh["decision"] == "allow", "a new session would start its task anew"


async def test_it_says_what_the_broker_says_by_itself(at: Desk) -> None:
    gone = 'version: "1"\ntools:\n  payments__priced_but_gone: {price: "0.01"}\n'
    (at.parts.policies.folder / "gone.yaml").write_text(gone)
    at.parts.policies.reload()
    await at.agent()
    await at.agent("other", tier="roomy")
    session, other = await at.session(), await at.session("other")

    async def code(tool: str = "payments__charge", agent: str = "booking-7", **more: str) -> str:
        said = await at.ask("explain_decision", agent=agent, tool=tool, **more)
        return "allow" if said["decision"] == "allow" else said["reasons"][0]["code"]

    assert await code("git__log", agent="other") == "tool.unknown"
    assert await code("payments__unpriced") == "charge.unpriced"
    assert await code("payments__charge", arguments={"amount": "much"}) == "args.schema"
    assert await code("payments__later") == "charge.unpriced", "not listed and not priced: the policy says so"
    assert await code("payments__priced_but_gone", agent="other") == "upstream.unavailable"
    await at.ask("halt", target="booking-7", reason="stop")
    assert await code() == "agent.halted"
    await at.ask("revoke", target=session["session"], reason="stop")
    assert await code(session=session["session"]) == "session.revoked"
    await at.ask("revoke", target="booking-7", reason="stop")
    assert await code() == "agent.revoked"
    with pytest.raises(Failed, match="is not one of booking-7") as refused:
        await code(session=other["session"])
    assert refused.value.code == "request.invalid"


@pytest.mark.promise("R26")
async def test_a_reload_takes_up_what_is_good_and_answers_what_is_broken(at: Desk) -> None:
    folder = at.parts.policies.folder
    before = at.parts.policies.current.version
    assert await at.ask("reload_policy") == {"version": before, "changed": False}
    [unchanged] = await at.events("policy.loaded")
    assert (unchanged["actor"], unchanged["changed"]) == ("operator:anna", False)
    (folder / "more.yaml").write_text('version: "1"\ntools:\n  "git__*": {price: "0.01"}\n')
    changed = await at.ask("reload_policy")
    assert changed["changed"]
    assert changed["version"] != before
    (folder / "more.yaml").write_text('version: "1"\ntools:\n  "git__*": {prise: "0.01"}\n')
    with pytest.raises(Failed, match=r"more\.yaml:3: .*prise") as refused:
        await at.ask("reload_policy")
    assert refused.value.code == "config.invalid", "which is exit code 3 on the command line"
    status = await at.ask("status")
    assert status["policy"]["version"] == changed["version"], "the old one stays"
    [problem] = status["policy"]["problems"]
    assert problem["line"] == 3
    assert (await at.events("control.refused"))[-1]["code"] == "config.invalid"
