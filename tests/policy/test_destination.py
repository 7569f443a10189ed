"""Whom a call reaches, read from its arguments so that none can hide it; and whether its tool has that argument at all."""

from __future__ import annotations

import pytest

from haltline.policy.destination import destination_of, missing_from
from haltline.policy.watch_entry import _any_named

SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "mail": {"type": "object", "properties": {"to": {"type": "array", "items": {"properties": {"address": {}}}}}},
        "open": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        "other": {"$ref": "#/$defs/other"},
    },
}


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("args.to", None),
        ("host(args.url)", "url"),
        ("args.recipient", "recipient"),
        ("args.mail.to[*].address", None),
        ("args.mail.to[0].name", "mail.to.name"),
        ("args.mail.cc", "mail.cc"),
        ("args.open.any", None),
        ("args.other.any", None),
        ("args.to.deeper", None),
    ],
)
def test_what_of_a_path_a_schema_does_not_have(path, missing):
    assert missing_from(SCHEMA, path) == missing


def test_a_schema_that_names_no_arguments_or_takes_any_says_nothing():
    assert missing_from(None, "args.to") is None
    assert missing_from({"type": "object"}, "args.to") is None
    assert missing_from({"properties": {}, "additionalProperties": True}, "args.to") is None
    assert missing_from({"properties": {}, "additionalProperties": False}, "args.to") == "to"


@pytest.mark.parametrize("arguments", [{}, {"to": None}, {"to": ["mallory"]}, {"to": {"name": "mallory"}}, {"to": ""}])
def test_arguments_that_name_nobody_where_they_should_reach_none_named(arguments):
    assert destination_of("args.to")(arguments) == "none named"


def test_what_stands_behind_very_many_is_not_cut_off_unseen():
    read = destination_of("args.to[*]")
    good = [f"colleague-{number}@example.org" for number in range(30)]
    one, other = read({"to": good}), read({"to": [*good, "mallory@evil.net"]})
    assert one != other
    assert len(other) <= 200
    assert not any(_any_named(["*@example.org"])(part) for part in other.split(", ")[-1:])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a@example.org", True),
        ("mallory@evil.net, a@example.org", False),
        ("mallory@evil.net;a@example.org", False),
        ("mallory@evil.net\na@example.org", False),
    ],
)
def test_a_run_of_characters_in_a_declared_name_runs_over_no_other_name(name, known):
    assert _any_named(["*@example.org"])(name) is known
