"""`haltline policy check` beside a broker's data folder: what does not fit the tools and agents that it has seen."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from haltline.cli import main
from haltline.store.database import connect_writer
from support.policy_texts import write_files

TOOLS = {
    "pay__charge": "pay",
    "pay__refund": "pay",
    "flat__any": "flat",
    "gone__x": "gone",
    "mine__declared": "mine",
}
POLICY = 'tiers: {t: {tools: ["*"], caps: {day: "1"}}}\ntools: {pay__charge: {price: "0.05"}}'
CONFIG = """
version: "1"
upstreams:
  pay: {url: "http://127.0.0.1:1/mcp"}
  flat: {url: "http://127.0.0.1:1/mcp", price: "0.01"}
  mine: {python: ./tools.py}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder where a broker has run."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "policies", policy=POLICY)
    (tmp_path / "haltline.yaml").write_text(CONFIG)
    (tmp_path / "haltline-data").mkdir(0o700)
    with closing(connect_writer(tmp_path / "haltline-data" / "haltline.db")) as connection:
        connection.executemany(
            "INSERT INTO pins (upstream, tool, name, state, seen, first_us, seen_us) VALUES (?,?,?,'quarantined','d',1,1)",
            [(upstream, name.partition("__")[2], name) for name, upstream in TOOLS.items()],
        )
        connection.commit()
    return tmp_path


def warnings(capsys, *arguments: str) -> list[str]:
    assert main(["policy", "check", "--json", *arguments]) == 0
    return [one["key"] for one in json.loads(capsys.readouterr().out)["warnings"]]


@pytest.mark.promise("P6", "R6")
def test_tools_that_no_price_covers_are_named(here, capsys):
    assert warnings(capsys) == ["pay__refund"]
    assert warnings(capsys, "--data", "haltline-data") == ["pay__refund"]


def test_where_no_broker_has_run_nothing_is_known_of_tools(here, capsys):
    (here / "haltline-data" / "haltline.db").unlink()
    assert warnings(capsys) == []
    assert main(["policy", "check", "--data", "elsewhere"]) == 1
    assert "name the broker's data folder with --data" in capsys.readouterr().err


def test_without_readable_settings_no_tool_is_called_unpriced(here, capsys):
    (here / "haltline.yaml").write_text("upstreams: 7")
    assert warnings(capsys) == []


def test_a_data_folder_from_before_there_were_pins_is_no_obstacle(here, capsys):
    with closing(sqlite3.connect(here / "haltline-data" / "haltline.db")) as connection:
        connection.execute("DROP TABLE pins")
        connection.commit()
    assert warnings(capsys) == []


SCHEMA = {"inputSchema": {"type": "object", "properties": {"to": {"type": "string"}, "cc": {"$ref": "#/x"}}}}


@pytest.mark.promise("P6")
def test_a_destination_that_a_tool_does_not_have_is_named_with_its_line(here, capsys):
    text = 'tiers: {t: {tools: ["*"], caps: {day: "1"}}}\ntools:\n'
    text += (
        '  pay__charge: {price: "1", destination: args.recipient}\n  pay__refund: {price: "1", destination: args.to}\n'
    )
    write_files(here / "policies", policy=text)
    with closing(connect_writer(here / "haltline-data" / "haltline.db")) as connection:
        connection.execute("UPDATE pins SET seen_text = ?", (json.dumps(SCHEMA),))
        connection.commit()
    assert main(["policy", "check"]) == 0
    said = capsys.readouterr().out
    assert "policy.yaml:3: tools.pay__charge.destination: the inputSchema of pay__charge has no recipient" in said
    assert "pay__refund" not in said


def test_a_rule_for_an_agent_that_is_not_there_or_of_another_tier_is_named_with_its_line(here, capsys):
    text = 'tiers: {t: {tools: ["*"], caps: {day: "1"}}, u: {tools: ["*"], caps: {day: "1"}}}\n'
    text += 'tools: {"*": {price: "1"}}\nrules:\n  one: {kind: off_hours, agents: [here, gone]}\n'
    text += "  two: {kind: off_hours, agents: [here], tiers: [u]}\n"
    write_files(here / "policies", policy=text)
    with closing(connect_writer(here / "haltline-data" / "haltline.db")) as connection:
        connection.execute("INSERT INTO agents (id, handle, tier, created_us) VALUES ('a', 'here', 't', 1)")
        connection.commit()
    assert main(["policy", "check"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "policy.yaml:4: rules.one.agents.1: there is no agent gone, so this watches nobody" in said
    assert "policy.yaml:5: rules.two.agents.0: here is of tier t, so this rule does not watch it" in said
    assert "rules.one.agents.0" not in said
