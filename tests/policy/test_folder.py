"""Policy files read together: each fault with file, line, key and what to do; no entry twice.

`bad/` has one file per fault, named by it, and beside it what is said about it. HALTLINE_SNAPSHOTS=1 writes those anew.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from haltline.errors import ConfigError
from haltline.policy.folder import read_folder
from haltline.policy.policy import ToolDefaults, load_policy
from support.policy_texts import write_files

BAD = Path(__file__).parent / "bad"


def problems(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_policy(folder)
    assert refused.value.exit_code == 3
    return [str(problem).replace(f"{folder}{os.sep}", "") for problem in refused.value.problems]


@pytest.mark.promise("P6")
@pytest.mark.parametrize("name", sorted(path.stem for path in BAD.glob("*.yaml")))
def test_each_fault_is_named_with_its_place_and_what_to_do(name, tmp_path):
    shutil.copy(BAD / f"{name}.yaml", tmp_path)
    said = "\n".join(problems(tmp_path)) + "\n"
    expected = BAD / f"{name}.expected"
    if os.environ.get("HALTLINE_SNAPSHOTS"):
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8")


def test_all_problems_of_all_files_are_told_at_once(tmp_path):
    write_files(tmp_path, a="tiers: {x: {tolls: []}}", b="tools: {c__d: {price: 1}}", c="mode: nope")
    assert [line.partition(":")[0] for line in problems(tmp_path)] == ["a.yaml", "b.yaml", "c.yaml"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("tiers: {x: {}}", "tiers: {x: {}}", "b.yaml:1: tiers.x: x is also given in a.yaml:1; keep one of the two"),
        ("scopes: {s: {}}", "scopes: {s: {}}", "b.yaml:1: scopes.s: s is also given in a.yaml:1; keep one of the two"),
        ("tools: {a: {}}", "\ntools:\n  a: {}", "b.yaml:3: tools.a: a is also given in a.yaml:1; keep one of the two"),
        (
            "currency: USD",
            "currency: USD",
            "b.yaml:1: currency: currency is also given in a.yaml:1; keep one of the two",
        ),
        ("redact: [a]", "redact: [b]", "b.yaml:1: redact: redact is also given in a.yaml:1; keep one of the two"),
        (
            "defaults: {on_deny: x}",
            "defaults: {on_deny: y}",
            "b.yaml:1: defaults.on_deny: on_deny is also given in a.yaml:1; keep one of the two",
        ),
    ],
)
def test_the_same_entry_in_two_files_names_both(first, second, said, tmp_path):
    assert problems(write_files(tmp_path, a=first, b=second)) == [said]


def test_files_add_up_whatever_their_names(tmp_path):
    parts = {
        "one": 'version: "1"\ncurrency: EUR\ntiers: {x: {scopes: [s]}}',
        "two": 'version: "1"\nscopes: {s: {}}\ntiers: {y: {}}\ndefaults: {on_deny: no}',
        "three": "defaults: {session_expires: 1h}",
        "four": "",
    }
    merged = read_folder(write_files(tmp_path / "a", **parts))
    assert sorted(merged.content.tiers) == ["x", "y"]
    assert merged.content.defaults.on_deny == "no"
    assert merged.where("tiers", "y") == "two.yaml:3"
    renamed = dict(zip(reversed(parts), parts.values(), strict=True))
    again = load_policy(write_files(tmp_path / "b", **renamed))
    assert again.version == load_policy(tmp_path / "a").version
    assert again.currency == "EUR"


def test_sections_with_every_entry_commented_out_say_nothing(tmp_path):
    policy = load_policy(write_files(tmp_path, a="tiers:\nscopes:\ntools:\n  # a: {}\nredact:\ndefaults:\n"))
    assert policy.tier_names == ()


def test_times_stay_text_without_quotes(tmp_path):
    text = "tiers: {x: {hours: {days: mon, from: 22:00, to: 06:00, time_zone: UTC}}}"
    tier = load_policy(write_files(tmp_path, a=text)).tier("x")
    assert tier is not None
    assert tier.hours is not None
    assert (tier.hours.start_minute, tier.hours.end_minute) == (22 * 60, 6 * 60)


def test_a_null_is_a_value_only_where_rules_compare_values(tmp_path):
    text = "scopes: {s: {arguments: [{path: a, op: ne, value: null}, {schema: {const: null}}]}}"
    assert load_policy(write_files(tmp_path, a=text)).scope_names == ("s",)


def test_a_folder_without_policies_says_how_to_get_them(tmp_path):
    assert "haltline init" in problems(tmp_path)[0]
    assert "haltline init" in problems(tmp_path / "nowhere")[0]
    (tmp_path / "file").write_text("")
    assert "cannot be read" in problems(tmp_path / "file")[0]


def test_a_file_that_would_be_passed_over_silently_is_an_error(tmp_path):
    write_files(tmp_path, a="tiers: {}")
    (tmp_path / "more.yml").write_text("tiers: {}")
    assert problems(tmp_path) == ["more.yml: policy files end in .yaml, so this one would not be read; rename it"]


def test_hidden_files_and_inner_folders_are_left_alone(tmp_path):
    write_files(tmp_path, a="tiers: {}")
    write_files(tmp_path / "examples", b="nonsense: 1")
    (tmp_path / ".#a.yaml").write_text("nonsense: 1")
    assert load_policy(tmp_path).tier_names == ()


def test_files_that_are_no_text_or_too_long_are_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"currency: EUR\n# \xfc\n")
    (tmp_path / "long.yaml").write_bytes(b"#" * 1_100_000)
    (tmp_path / "folder.yaml").mkdir()
    assert problems(tmp_path) == [
        "folder.yaml: cannot be read: Is a directory",
        "latin.yaml:2: not UTF-8 text; save it as UTF-8",
        "long.yaml: longer than 1048576 bytes; split it",
    ]


def test_a_default_price_that_is_no_amount_is_a_problem_of_haltline_yaml(tmp_path):
    write_files(tmp_path, a="tiers: {}")
    with pytest.raises(ConfigError) as refused:
        load_policy(tmp_path, {"pay": ToolDefaults(price="free")})
    assert str(refused.value).startswith("haltline.yaml: upstreams.pay.price: 'free' is not an amount")
