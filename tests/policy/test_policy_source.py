"""Taking up policies and keeping the old one when the new is broken (R26)."""

from __future__ import annotations

import os

import pytest

from haltline.policy.policy import ToolDefaults
from haltline.policy_source import PolicySource
from support.policy_texts import write_files


@pytest.mark.promise("R26")
def test_a_policy_broken_at_start_leaves_none_in_force_and_says_why(tmp_path):
    source = PolicySource(write_files(tmp_path, a="tiers: {x: {tolls: []}}"))
    assert source.reload() is False
    assert source.current is None
    assert "did you mean 'tools'?" in str(source.problems[0])


@pytest.mark.promise("R26")
def test_a_policy_broken_later_leaves_the_old_one_in_force_until_it_is_mended(tmp_path):
    source = PolicySource(write_files(tmp_path, a="tiers: {x: {}}"))
    assert source.reload() is True
    old = source.current
    write_files(tmp_path, a="tiers: {x: {")
    assert source.reload() is False
    assert source.current is old
    assert len(source.problems) == 1
    write_files(tmp_path, a="tiers: {y: {}}")
    assert source.reload() is True
    assert source.problems == ()
    assert source.current is not None
    assert source.current.tier_names == ("y",)


@pytest.mark.promise("R26")
def test_a_folder_that_vanishes_changes_nothing(tmp_path):
    folder = write_files(tmp_path / "p", a="tiers: {x: {}}")
    source = PolicySource(folder)
    source.reload()
    old = source.current
    (folder / "a.yaml").unlink()
    folder.rmdir()
    assert source.changed_on_disk()
    assert source.reload() is False
    assert source.current is old
    assert source.problems
    assert not source.changed_on_disk()


def test_files_that_say_the_same_change_nothing(tmp_path):
    source = PolicySource(write_files(tmp_path, a="tiers: {x: {}}"))
    source.reload()
    old = source.current
    write_files(tmp_path, a="# a comment\ntiers: {x: {}}")
    assert source.changed_on_disk()
    assert source.reload() is False
    assert source.current is old
    assert not source.changed_on_disk()


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: (folder / "a.yaml").write_text("tiers: {y: {}}"),
        lambda folder: (folder / "b.yaml").write_text(""),
        lambda folder: (folder / "b.yml").write_text(""),
        lambda folder: (folder / "a.yaml").rename(folder / "c.yaml"),
        lambda folder: (folder / "a.yaml").unlink(),
        lambda folder: os.utime(folder / "a.yaml", ns=(1, 1)),
    ],
    ids=["other content", "new file", "odd suffix", "renamed", "gone", "touched"],
)
def test_edits_are_noticed_without_reading(edit, tmp_path):
    source = PolicySource(write_files(tmp_path, a="tiers: {x: {}}"))
    assert source.changed_on_disk()
    source.reload()
    assert not source.changed_on_disk()
    edit(tmp_path)
    assert source.changed_on_disk()


def test_what_editors_leave_beside_the_files_is_not_an_edit(tmp_path):
    source = PolicySource(write_files(tmp_path, a="tiers: {x: {}}"))
    source.reload()
    (tmp_path / ".a.yaml.swp").write_text("x")
    (tmp_path / "a.yaml~").write_text("x")
    assert not source.changed_on_disk()


def test_defaults_of_upstreams_are_part_of_the_policy(tmp_path):
    folder = write_files(tmp_path, a="tiers: {x: {}}")
    priced, plain = PolicySource(folder, {"pay": ToolDefaults("0.05")}), PolicySource(folder)
    priced.reload()
    plain.reload()
    assert priced.current is not None
    assert plain.current is not None
    assert priced.current.version != plain.current.version
    assert priced.current.price("pay__x", "pay") is not None
