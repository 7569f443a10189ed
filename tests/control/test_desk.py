"""Who may do what (R21), and that every act leaves its event: who, when, from where and why."""

from __future__ import annotations

import inspect

import pytest

from haltline.clock import iso
from haltline.control.desk import PERSON_ONLY
from haltline.control_tools import CONTROL_TOOLS
from haltline_client import ControlClient
from support.desk import Desk, Failed

LOOSENS = {
    "resume", "reissue_agent", "resolve_in_doubt", "import_tools", "reload_policy", "approve_tool",
    "add_operator", "rotate_operator", "revoke_operator", "acknowledge_alert", "resolve_alert",
}  # fmt: skip
NAMES = [tool.name for tool in CONTROL_TOOLS]
ON_A_DESK = [name for name in NAMES if name != "run_drill"]
"""A drill needs the listeners of a whole broker, and has tests of its own."""


async def valid_arguments(at: Desk) -> dict[str, dict]:
    """For each tool, arguments with which a person may do it now."""
    await at.agent()
    await at.agent("other")
    await at.agent("gone")
    await at.ask("revoke", target="gone", reason="for the test")
    session = (await at.session())["session"]
    halted = (await at.session())["session"]
    await at.ask("halt", target=halted, reason="for the test")
    await at.ask("add_operator", name="ben")
    return {
        "revoke": {"target": "other", "reason": "why"},
        "halt": {"target": session, "reason": "why"},
        "resume": {"target": halted, "reason": "why"},
        "add_agent": {"handle": "new", "tier": "experimental"},
        "show_agent": {"agent": "booking-7"},
        "reissue_agent": {"agent": "gone", "reason": "why"},
        "open_session": {"agent": "booking-7", "task": "t"},
        "show_session": {"session": session},
        "resolve_in_doubt": {"call": await at.in_doubt(session), "outcome": "void", "reason": "why"},
        "import_tools": {"upstream": "payments"},
        "approve_tool": {
            "tool": "payments__charge",
            "reason": "why",
            "digest": at.parts.catalog.tool("payments__charge").digest,
        },
        "explain_decision": {"agent": "booking-7", "tool": "payments__look"},
        "add_operator": {"name": "cleo"},
        "rotate_operator": {"name": "ben"},
        "acknowledge_alert": {"episode": await at.episode(about="tool:odd")},
        "resolve_alert": {"episode": await at.episode(about="tool:even"), "reason": "why"},
        "retry_alert": {"id": await at.given_up()},
        "test_alert_channel": {"channel": "list"},
        "revoke_operator": {"name": "ben", "reason": "why"},
    }


@pytest.mark.promise("R21", "P4")
@pytest.mark.parametrize("who", ["agent", "session", "nobody", "none", "revoked operator"])
async def test_no_tool_answers_a_credential_that_is_no_operators(at: Desk, who: str) -> None:
    arguments = await valid_arguments(at)
    tokens = {
        "agent": (await at.agent("holder", credential=True))["token"],
        "session": (await at.session())["token"],
        "nobody": "hl_o_0000",
        "none": "",
        "revoked operator": (await at.ask("add_operator", name="dan"))["token"],
    }
    await at.ask("revoke_operator", name="dan", reason="left")
    before = len(await at.events())
    codes = set()
    for name in NAMES:
        with pytest.raises(Failed) as refused:
            await at.ask(name, tokens[who], **arguments.get(name, {}))
        codes.add(refused.value.code)
    expected = {
        "agent": "credential.wrong_class",
        "session": "credential.wrong_class",
        "nobody": "credential.malformed",
        "none": "credential.missing",
        "revoked operator": "credential.revoked",
    }
    assert codes == {expected[who]}
    assert len(await at.events()) == before, "attempts are counted, not written one by one"
    await at.attempts.flush()
    [event] = await at.events("credential.refused")
    assert (event["actor"], event["listener"]) == ("unknown:127.0.0.1", "control")
    assert (event["code"], event["count"]) == (expected[who], len(NAMES))


@pytest.mark.promise("R21")
@pytest.mark.parametrize("name", ON_A_DESK)
async def test_the_machines_own_credential_looks_stops_and_opens_but_never_loosens(at: Desk, name: str) -> None:
    arguments = (await valid_arguments(at)).get(name, {})
    before = await at.everything_stored()
    if name not in LOOSENS:
        await at.ask(name, at.local, **arguments)
        return
    with pytest.raises(Failed, match="needs a person's own operator credential") as refused:
        await at.ask(name, at.local, **arguments)
    assert refused.value.code == "operator.forbidden"
    events = await at.events()
    assert events[-1]["kind"] == "control.refused"
    assert (events[-1]["actor"], events[-1]["act"], events[-1]["code"]) == (
        "operator:local",
        name,
        "operator.forbidden",
    )
    after = await at.everything_stored()
    assert len(after.splitlines()) > len(before.splitlines())
    assert await at.ask(name, **arguments), "and a person may"


def test_what_needs_a_person_is_what_loosens() -> None:
    assert PERSON_ONLY == LOOSENS


ACTS = {
    "revoke": "agent.revoked",
    "halt": "session.halted",
    "resume": "session.resumed",
    "add_agent": "agent.added",
    "reissue_agent": "agent.reissued",
    "open_session": "session.opened",
    "resolve_in_doubt": "call.resolved",
    "import_tools": "tools.imported",
    "approve_tool": "tool.approved",
    "reload_policy": "policy.loaded",
    "add_operator": "operator.added",
    "rotate_operator": "operator.rotated",
    "revoke_operator": "operator.revoked",
    "query_audit": "control.read",
    "acknowledge_alert": "alert.acknowledged",
    "resolve_alert": "alert.resolved",
    "retry_alert": "alert.retried",
    "test_alert_channel": "alert.tested",
}


@pytest.mark.parametrize("name", sorted(ACTS))
async def test_every_act_leaves_who_when_where_and_why(at: Desk, name: str) -> None:
    arguments = (await valid_arguments(at)).get(name, {})
    tool = next(tool for tool in CONTROL_TOOLS if tool.name == name)
    if "reason" in tool.arguments:
        arguments["reason"] = "because of ticket 4711"
    at.clock.forward(60)
    count = len(await at.events())
    await at.ask(name, **arguments)
    event = (await at.events())[count]
    assert event["kind"] == ACTS[name]
    assert event["actor"] == "operator:anna"
    assert event["act"] == name
    assert event["from"] == "127.0.0.1"
    assert iso(event["at_us"]) == iso(at.clock.now_us())
    if "reason" in tool.arguments:
        assert event["reason"] == "because of ticket 4711"


@pytest.mark.parametrize("name", sorted(set(ON_A_DESK) - set(ACTS)))
async def test_looking_at_the_present_leaves_no_event(at: Desk, name: str) -> None:
    arguments = (await valid_arguments(at)).get(name, {})
    count = len(await at.events())
    await at.ask(name, **arguments)
    assert len(await at.events()) == count


@pytest.mark.parametrize("name", [tool.name for tool in CONTROL_TOOLS if "reason" in tool.required])
@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, None])
async def test_a_required_reason_says_something_and_not_too_much(at: Desk, name: str, reason: str | None) -> None:
    arguments = {**(await valid_arguments(at))[name], "reason": reason}
    with pytest.raises(Failed) as refused:
        await at.ask(name, **arguments)
    assert refused.value.code == "request.invalid"
    event = (await at.events())[-1]
    assert (event["kind"], event["act"], event["actor"]) == ("control.refused", name, "operator:anna")


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("revoke", {"target": "nobody", "reason": "why"}, "request.not_found"),
        ("add_agent", {"handle": "booking-7", "tier": "experimental"}, "request.conflict"),
        ("add_agent", {"handle": "Not A Handle", "tier": "experimental"}, "request.invalid"),
        ("open_session", {"agent": "booking-7", "task": "t", "surprise": 1}, "request.invalid"),
        ("show_session", {"session": "ses_nothing"}, "request.not_found"),
    ],
)
async def test_a_refused_act_is_recorded_with_what_was_asked(at: Desk, name: str, arguments: dict, code: str) -> None:
    await at.agent()
    with pytest.raises(Failed) as refused:
        await at.ask(name, **arguments)
    assert refused.value.code == code
    page = await at.ask("query_audit", kind="control.refused")
    [event] = page["events"]
    assert (event["actor"], event["act"], event["code"]) == ("operator:anna", name, code)
    assert event["arguments"] == arguments
    assert event["text"]


@pytest.mark.promise("P9")
async def test_a_token_pasted_into_a_reason_is_kept_nowhere(at: Desk) -> None:
    leaked = (await at.agent(credential=True))["token"]
    session = await at.session(task=f"clean up after {leaked}")
    await at.ask("halt", target="booking-7", reason=f"found {leaked} in a paste")
    await at.ask("resume", target="booking-7", reason=f"{leaked} was rotated")
    await at.ask("revoke", target="booking-7", reason=f"leaked: {leaked}")
    with pytest.raises(Failed):
        await at.ask("revoke", target=leaked, reason="this one")
    with pytest.raises(Failed):
        await at.ask("query_audit", agent=leaked)
    await at.ask("query_audit", call=leaked)
    stored = await at.everything_stored()
    assert leaked not in stored
    assert session["token"] not in stored
    assert "[redacted]" in stored


@pytest.mark.promise("P9")
async def test_a_credential_is_shown_once_and_stored_nowhere(at: Desk) -> None:
    tokens = [
        (await at.agent(credential=True))["token"],
        (await at.session())["token"],
        (await at.ask("add_operator", name="ben"))["token"],
        (await at.ask("rotate_operator", name="ben"))["token"],
    ]
    await at.ask("revoke", target="booking-7", reason="why")
    tokens.append((await at.ask("reissue_agent", agent="booking-7", reason="why", credential=True))["token"])
    stored = await at.everything_stored()
    for token in tokens:
        assert token not in stored
        assert token.rpartition("_")[2] not in stored


async def test_an_act_of_an_operator_who_was_just_revoked_does_nothing(at: Desk) -> None:
    ben = (await at.ask("add_operator", name="ben"))["token"]
    await at.agent(token=ben)
    await at.ask("revoke_operator", name="ben", reason="left")
    with pytest.raises(Failed) as refused:
        await at.ask("halt", ben, target="booking-7", reason="one more")
    assert refused.value.code == "credential.revoked"
    assert (await at.ask("status"))["halts"] == []


@pytest.mark.parametrize("name", NAMES)
async def test_a_tools_arguments_are_those_of_the_client_and_of_the_act(at: Desk, name: str) -> None:
    tool = next(tool for tool in CONTROL_TOOLS if tool.name == name)
    act = set(inspect.signature(at.face._control.acts[name]).parameters) - {"request"}
    assert set(tool.arguments) == act
    client = set(inspect.signature(getattr(ControlClient, name)).parameters) - {"self"}
    client = {"all" if parameter == "all_states" else parameter for parameter in client}
    assert client <= act
    assert act - client <= {"reason"}, "beyond the client's there is only an optional reason"
