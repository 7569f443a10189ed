"""What a first start writes: files that are valid as they are, and never in place of somebody's own."""

from __future__ import annotations

import dataclasses
import re

import pytest

from haltline.errors import ConfigError
from haltline.policy.policy import load_policy
from haltline.policy.yaml_text import parse_yaml
from haltline.setup.settings import load_settings
from haltline.setup.settings_alerts import WebhookEntry
from haltline.setup.settings_file import (
    AlertsEntry,
    HaltlineFile,
    LimitsEntry,
    ListenerEntry,
    UpstreamEntry,
)
from haltline.setup.starter import write_starter


def test_an_empty_folder_gets_settings_and_policies_that_are_valid(tmp_path):
    written = write_starter(tmp_path / "new")
    assert tmp_path / "new" / "haltline.yaml" in written
    assert {"tiers.yaml", "tools.yaml"} <= {path.name for path in written}
    settings = load_settings(tmp_path / "new" / "haltline.yaml", environ={})
    (tmp_path / "new" / "empty.yaml").touch()
    defaults = load_settings(tmp_path / "new" / "empty.yaml", environ={})
    assert dataclasses.replace(settings, config_file=defaults.config_file) == defaults
    assert load_policy(settings.policies).mode == "enforce"


def test_nothing_that_is_there_is_overwritten(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "mine.yaml").write_text("mine")
    (tmp_path / "haltline.yaml").write_text("mine")
    assert write_starter(tmp_path) == []
    assert (tmp_path / "haltline.yaml").read_text() == "mine"
    assert [path.name for path in (tmp_path / "policies").iterdir()] == ["mine.yaml"]


def test_a_second_time_writes_nothing(tmp_path):
    write_starter(tmp_path)
    assert write_starter(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_said_calmly(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        write_starter(tmp_path / "file")


def test_every_key_of_the_settings_is_in_the_starter_file(tmp_path):
    write_starter(tmp_path)
    text = (tmp_path / "haltline.yaml").read_text()
    models = (HaltlineFile, ListenerEntry, LimitsEntry, AlertsEntry, WebhookEntry, UpstreamEntry)
    keys = {key for model in models for key in model.model_fields}
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()


def test_the_starter_file_s_examples_are_valid_once_they_are_uncommented(tmp_path):
    write_starter(tmp_path)
    lines = (tmp_path / "haltline.yaml").read_text().splitlines()
    # An example is a comment line that begins as a key or an item of a list does.
    uncommented = [re.sub(r"^(\s*)# ( *(?:- )?[a-z_]+: ?\S*.*)$", r"\1\2", line) for line in lines]
    text = "\n".join(line for line in uncommented if "tls:" not in line)
    (tmp_path / "all.yaml").write_text(text)
    environ = {"PAYMENTS_TOKEN": "x", "CRM_KEY": "k", "HALTLINE_WEBHOOK_SECRET": "y"}
    assert parse_yaml(text, "all.yaml").content["upstreams"]["payments"]["price"] == "0.05"
    settings = load_settings(tmp_path / "all.yaml", environ=environ)
    assert [spec.name for spec in settings.upstreams] == ["time", "billing", "crm", "payments"]
    assert settings.alerts.webhooks[0].secret == "y"
