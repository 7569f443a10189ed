"""Warnings: valid, but probably not meant."""

from __future__ import annotations

import pytest

from haltline.policy.folder import read_folder
from haltline.policy.review import review
from support.policy_texts import write_files

CAPPED = "{tools: ['*'], caps: {day: '1'}}"
SCOPED = "tiers: {a: {tools: ['*'], scopes: [s], caps: {day: '1'}}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency: USD", ["FOLDER: tiers: there is no tier"]),
        ("tiers: {a: {tools: ['*']}}", ["policy.yaml:1: tiers.a: no task, hour or day cap"]),
        ("tiers: {a: {caps: {day: '1'}}}", ["policy.yaml:1: tiers.a: no tools"]),
        (f"tiers: {{a: {CAPPED}}}\nscopes: {{s: {{}}}}", ["policy.yaml:2: scopes.s: no tier uses this scope"]),
        (
            "tiers: {a: {tools: ['x__*', 'y__*'], scopes: [s], caps: {day: '1'}}}\nscopes: {s: {tools: ['x__a*']}}",
            ["policy.yaml:1: tiers.a.tools.1: y__* can never be called: scope s allows none of it"],
        ),
        (
            SCOPED + "scopes: {s: {tools: ['x__*'], arguments: [{tools: [x__a, y__b], path: p, op: present}]}}",
            ["policy.yaml:2: scopes.s.arguments.0.tools.1: y__b never matches"],
        ),
        (
            "tiers: {a: {tools: ['x__*'], caps: {day: '1'}}}\ntools: {x__a: {price: '1'}, y__b: {price: '1'}}",
            ["policy.yaml:2: tools.y__b: no tier grants y__b"],
        ),
        (
            f"tiers: {{a: {CAPPED}}}\ntools: {{x: {{price: '1', price_for: {{tiers: {{b: '2'}}}}}}}}",
            ["policy.yaml:2: tools.x.price_for.tiers.b: there is no tier b"],
        ),
        (
            "tiers: {a: {tools: ['x__*'], caps: {day: '1'}}}\nrules: {r: {kind: off_hours, tools: ['x__a', 'y__*']}}",
            ["policy.yaml:2: rules.r.tools.1: no tier grants y__*, so this watches no call"],
        ),
        (f"tiers: {{a: {CAPPED}}}", []),
    ],
)
def test_what_is_probably_not_meant_is_said(text, said, tmp_path):
    warnings = [
        str(one).replace(f"{tmp_path}/", "").replace(str(tmp_path), "FOLDER")
        for one in review(read_folder(write_files(tmp_path, policy=text)))
    ]
    assert len(warnings) == len(said)
    assert all(warning.startswith(start) for warning, start in zip(warnings, said, strict=True))
