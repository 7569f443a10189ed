from __future__ import annotations

import pytest

from support.desk import Desk, Failed

pytestmark = pytest.mark.promise("R21")


async def test_a_new_operator_is_a_person_with_a_credential_of_their_own(at: Desk) -> None:
    added = await at.ask("add_operator", name="ben")
    assert added["token"].startswith("hl_o_")
    await at.agent(token=added["token"])
    assert (await at.events("agent.added"))[0]["actor"] == "operator:ben"
    listed = (await at.ask("list_operators", at.local))["operators"]
    assert [(one["name"], one["class"], one["state"]) for one in listed] == [
        ("anna", "person", "active"),
        ("ben", "person", "active"),
        ("local", "local", "active"),
    ]
    assert "token" not in listed[1]


async def test_a_rotation_ends_the_old_credential_with_the_new_one(at: Desk) -> None:
    new = (await at.ask("rotate_operator", name="anna"))["token"]
    with pytest.raises(Failed) as refused:
        await at.ask("status")
    assert refused.value.code == "credential.revoked"
    assert await at.ask("status", new)


async def test_the_last_person_stays(at: Desk) -> None:
    with pytest.raises(Failed, match="last person") as refused:
        await at.ask("revoke_operator", name="anna", reason="leaving")
    assert refused.value.code == "request.conflict"
    ben = (await at.ask("add_operator", name="ben"))["token"]
    assert await at.ask("revoke_operator", ben, name="anna", reason="left") == {"operator": "anna"}
    with pytest.raises(Failed, match="revoked already"):
        await at.ask("revoke_operator", ben, name="anna", reason="left")


async def test_the_machines_own_credential_can_be_revoked_but_not_handed_out(at: Desk) -> None:
    with pytest.raises(Failed, match=r"remove local-operator\.token"):
        await at.ask("rotate_operator", name="local")
    await at.ask("revoke_operator", name="local", reason="shared machine")
    with pytest.raises(Failed) as refused:
        await at.ask("status", at.local)
    assert refused.value.code == "credential.revoked"


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("add_operator", {"name": "anna"}, "request.conflict"),
        ("add_operator", {"name": "Anna B."}, "request.invalid"),
        ("rotate_operator", {"name": "nobody"}, "request.not_found"),
        ("revoke_operator", {"name": "nobody", "reason": "why"}, "request.not_found"),
    ],
)
async def test_an_operator_that_cannot_be_is_refused(at: Desk, tool: str, arguments: dict, code: str) -> None:
    with pytest.raises(Failed) as refused:
        await at.ask(tool, **arguments)
    assert refused.value.code == code
