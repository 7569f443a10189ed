"""`haltline policy check|schema`, as a person or a pipeline runs them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from haltline.cli import main
from haltline.policy.folder import read_folder
from haltline.policy.yaml_text import parse_yaml
from support.policy_texts import write_files

TOP = Path(__file__).parents[2] / "policies"
SHIPPED = [TOP / "tiers.yaml", TOP / "tools.yaml", *sorted((TOP / "examples").glob("*.yaml"))]


def run(capsys, *arguments: object) -> tuple[int, str]:
    code = main(["policy", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_the_shipped_policies_pass_without_a_warning(capsys):
    code, said = run(capsys, "check", "--policies", TOP)
    assert code == 0
    assert said.startswith("ok  policy p_")
    assert "warning" not in said


def test_each_example_passes_beside_the_shipped_policies(tmp_path, capsys):
    for path in SHIPPED:
        (tmp_path / path.name).write_text(path.read_text())
    assert run(capsys, "check", "--policies", tmp_path)[0] == 0
    assert "support" in read_folder(tmp_path).content.tiers


def test_problems_are_told_with_their_places_and_exit_code_3(tmp_path, capsys):
    folder = write_files(tmp_path, a="tiers: {x: {tolls: []}}", b="tools: {c: {price: 1}}")
    code, said = run(capsys, "check", "--policies", folder)
    assert code == 3
    assert f"error  {folder}/a.yaml:1: tiers.x.tolls: unknown key; did you mean 'tools'?" in said
    assert "2 problems; a broker would not take up this policy." in said


def test_json_has_problems_and_warnings_apart(tmp_path, capsys):
    code, said = run(capsys, "check", "--policies", write_files(tmp_path / "bad", a="mode: x"), "--json")
    result = json.loads(said)
    assert code == 3
    assert (result["ok"], result["version"], result["warnings"]) == (False, None, [])
    assert result["problems"][0]["line"] == 1
    assert result["problems"][0]["key"] == "mode"
    code, said = run(capsys, "check", "--policies", write_files(tmp_path / "good", a="tiers: {x: {}}"), "--json")
    result = json.loads(said)
    assert (code, result["ok"], len(result["warnings"])) == (0, True, 2)


def test_a_folder_that_is_not_there_is_a_problem_and_no_traceback(tmp_path, capsys):
    code, said = run(capsys, "check", "--policies", tmp_path / "nowhere")
    assert code == 3
    assert "cannot be read" in said


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path, capsys):
    folder = write_files(tmp_path, a='tiers: {"x\\e[2Jy": {}}')
    assert "\x1b" not in run(capsys, "check", "--policies", folder)[1]


@pytest.fixture
def validator(capsys):
    return jsonschema_rs.validator_for(json.loads(run(capsys, "schema")[1]))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_schema_accepts_what_ships(path, validator):
    content = parse_yaml(path.read_text(), str(path)).content
    assert [error.message for error in validator.iter_errors(content)] == []


@pytest.mark.parametrize(
    "name",
    [
        "typo-in-key",
        "amount-unquoted",
        "empty-cap",
        "rate-unit",
        "mode-unknown",
        "amount-too-fine",
        "price-of-two-kinds",
        "price-of-a-result-without-maximum",
        "price-for-nobody",
    ],
)
def test_the_schema_refuses_what_an_editor_can_see(name, validator):
    path = Path(__file__).parent / "bad" / f"{name}.yaml"
    assert not validator.is_valid(parse_yaml(path.read_text(), str(path)).content)


def test_the_schema_accepts_every_kind_of_price(validator):
    text = """
    tools:
      a__fixed: {price: {fixed: "0.05"}, price_for: {agents: {bot: "0.01"}, tiers: {t: {per_second: "0.01"}}}}
      a__asked: {price: {argument: args.amount, currency: args.currency, each: "0.01", at_most: "5.00"}}
      a__billed: {price: {result: structuredContent.cost, at_most: "0.50"}}
      a__timed: {price: {per_second: "0.002"}}
    """
    content = parse_yaml(text, "prices.yaml").content
    assert [error.message for error in validator.iter_errors(content)] == []


ROUTED = {
    "a": """
version: "1"
tiers: {t: {tools: ["*"], caps: {day: "5.00"}}}
alerts: {routes: {all: {when: {}, channels: [pager, desktop, stderr]}}}
"""
}


@pytest.mark.promise("R26")
def test_a_route_to_a_channel_that_haltline_yaml_has_not_is_found_where_that_file_is_at_hand(
    tmp_path, capsys, monkeypatch
):
    folder = write_files(tmp_path / "policies", **ROUTED)
    monkeypatch.delenv("HALTLINE_CONFIG", raising=False)
    assert run(capsys, "check", "--policies", folder)[0] == 0, "nobody knows which channels there are"
    config = tmp_path / "haltline.yaml"
    config.write_text("alerts: {channels: {ops: {kind: slack}}, webhooks: [{name: hook, url: '${NOT_SET}'}]}\n")
    code, said = run(capsys, "check", "--policies", folder)
    assert code == 3
    assert "alerts.routes.all.channels.0: there is no alert channel 'pager' in haltline.yaml" in said
    assert "desktop, hook, ops, stderr" in said
    config.write_text("alerts: {channels: {pager: {kind: pagerduty}}}\n")
    assert run(capsys, "check", "--policies", folder)[0] == 0, "without its secret, which need not be here"
    config.write_text("policies: elsewhere\n")
    assert run(capsys, "check", "--policies", folder)[0] == 0, "those are the channels of other policies"
    assert run(capsys, "check", "--policies", folder, "--config", config)[0] == 3, "unless it is named"
    config.write_text("alerts: [")
    assert run(capsys, "check", "--policies", folder)[0] == 0, "what is wrong with that file is the doctor's to say"
    named = tmp_path / "etc.yaml"
    named.write_text(f"policies: {folder}\n")
    monkeypatch.setenv("HALTLINE_CONFIG", str(named))
    assert run(capsys, "check", "--policies", folder)[0] == 3
