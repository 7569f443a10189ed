from __future__ import annotations

import re

import pytest

from support.desk import Desk, Failed


async def test_tools_are_listed_with_the_entry_that_prices_them(at: Desk) -> None:
    listed = await at.ask("list_tools")
    by_name = {one["tool"]: one for one in listed["tools"]}
    charge = by_name["payments__charge"]
    assert (charge["price"], charge["upstream"], charge["upstream_tool"]) == ("0.05", "payments", "charge")
    assert charge["matched_by"].startswith("policy.yaml:")
    assert by_name["payments__unpriced"]["price"] is None
    assert by_name["payments__unpriced"]["matched_by"] is None
    assert charge["shared_credential"] is False
    assert [one["name"] for one in listed["upstreams"]] == ["payments"]
    assert (await at.ask("list_tools", upstream="payments"))["tools"] == listed["tools"]
    with pytest.raises(Failed, match="no upstream 'git'; configured: payments") as refused:
        await at.ask("list_tools", upstream="git")
    assert refused.value.code == "request.not_found"


async def test_a_tool_without_the_argument_that_names_whom_it_reaches_is_listed_with_that(at: Desk) -> None:
    file = at.parts.policies.folder / "policy.yaml"
    said, wanted = '  payments__charge: {price: "0.05"}', '  payments__charge: {price: "0.05", destination: args.payee}'
    file.write_text(file.read_text().replace(said, wanted))
    assert (await at.ask("reload_policy"))["changed"]
    by_name = {one["tool"]: one for one in (await at.ask("list_tools"))["tools"]}
    assert by_name["payments__charge"]["problem"] == "destination args.payee: it has no argument payee"
    assert by_name["payments__refund"]["problem"] is None


@pytest.mark.promise("R6")
async def test_an_import_writes_reviewable_entries_that_a_reload_takes_up(at: Desk) -> None:
    imported = await at.ask("import_tools", upstream="payments")
    assert imported["tools"] == ["payments__unpriced"]
    path = at.parts.policies.folder / "imported-payments.yaml"
    assert imported["written"] == str(path)
    assert "Review each" in path.read_text()
    assert (await at.ask("reload_policy"))["changed"]
    by_name = {one["tool"]: one for one in (await at.ask("list_tools"))["tools"]}
    assert by_name["payments__unpriced"]["price"] == "0.00"
    assert by_name["payments__unpriced"]["matched_by"].startswith("imported-payments.yaml:")
    [event] = await at.events("tools.imported")
    assert (event["target"], event["written"], event["tools"]) == (
        "payments", "imported-payments.yaml", ["payments__unpriced"],
    )  # fmt: skip
    assert await at.ask("import_tools", upstream="payments") == {"written": "", "tools": []}


@pytest.mark.promise("R6")
async def test_an_import_never_touches_a_file_that_is_there(at: Desk) -> None:
    path = at.parts.policies.folder / "imported-payments.yaml"
    path.write_text('version: "1"\ntools:\n  "payments__other": {price: "9.99"}\n')
    with pytest.raises(Failed, match="changes that are not in force") as refused:
        await at.ask("import_tools", upstream="payments")
    assert refused.value.code == "request.conflict"
    await at.ask("reload_policy")
    imported = await at.ask("import_tools", upstream="payments")
    assert imported["written"].endswith("imported-payments-2.yaml")
    assert "9.99" in path.read_text()
    assert (await at.ask("reload_policy"))["changed"]


async def test_names_that_an_upstream_made_up_cannot_forge_a_policy(at: Desk) -> None:
    hostile = ('x": {price: "0"}\ntiers:\n  evil: {tools: ["*"]}\n#', "star*", "#", "null", "très", "a" * 300)
    at.upstream.tools += [{"name": name, "inputSchema": {"type": "object"}} for name in hostile]
    imported = await at.ask("import_tools", upstream="payments")
    assert {"payments__null", "payments__unpriced"} <= set(imported["tools"])
    assert all(re.fullmatch(r"payments__[A-Za-z0-9_-]+", name) for name in imported["tools"])
    assert (await at.ask("reload_policy"))["changed"]
    assert at.parts.policies.current.tier("evil") is None


async def test_an_upstream_that_is_away_is_said_to_be(at: Desk) -> None:
    at.upstream.away = True
    with pytest.raises(Failed, match="does not say now what it offers: connection refused") as refused:
        await at.ask("import_tools", upstream="payments")
    assert refused.value.code == "request.invalid"
    [state] = (await at.ask("list_tools"))["upstreams"]
    assert (state["state"], state["detail"]) == ("down", "connection refused")
    with pytest.raises(Failed) as refused:
        await at.ask("import_tools", upstream="git")
    assert refused.value.code == "request.not_found"


async def test_an_import_into_a_folder_that_cannot_be_written_is_refused_and_leaves_no_record(at: Desk) -> None:
    (at.parts.policies.folder / "imported-payments.yaml").symlink_to("nowhere/at/all.yaml")
    at.parts.policies.reload()
    with pytest.raises(Failed) as refused:
        await at.ask("import_tools", upstream="payments")
    assert refused.value.code.startswith("request.")
    assert await at.events("tools.imported") == []
