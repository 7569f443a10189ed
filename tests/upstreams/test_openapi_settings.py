"""`openapi:` in haltline.yaml: what may be written there, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from haltline.errors import ConfigError
from haltline.setup.settings import load_settings
from haltline.upstreams.model import OpenApiSource
from haltline.upstreams.open import open_upstream
from haltline.upstreams.openapi import OpenApiUpstream


@pytest.fixture
def load(tmp_path):
    def load(entry: str, **environ: str):
        (tmp_path / "haltline.yaml").write_text(f"upstreams:\n  crm:\n    {entry}\n", encoding="utf-8")
        [spec] = load_settings(tmp_path / "haltline.yaml", environ=environ).upstreams
        return spec

    return load


def lines(*entries: str) -> str:
    return "\n    ".join(entries)


def test_everything_that_can_be_said_of_an_api(load, tmp_path):
    spec = load(
        lines(
            "openapi: ./crm.yaml",
            "base_url: https://crm.example/v2",
            'headers: {Authorization: "Bearer ${CRM_TOKEN}"}',
            'query: {key: "${KEY}"}',
            'operations: {include: ["listContacts", "get*", "GET /contacts/*"], exclude: ["delete*"]}',
            "allow_private: true",
            "remote_refs: true",
            "timeout_s: 20",
        ),
        CRM_TOKEN="t",
        KEY="k",
    )
    assert spec.openapi == OpenApiSource(
        str(tmp_path / "crm.yaml"),
        "https://crm.example/v2",
        {"key": "k"},
        ("listContacts", "get*", "GET /contacts/*"),
        ("delete*",),
        allow_private=True,
        remote_refs=True,
    )
    assert (spec.headers, spec.timeout_s, spec.kind) == ({"Authorization": "Bearer t"}, 20, "openapi")
    assert isinstance(open_upstream(spec), OpenApiUpstream)


def test_the_readme_s_example_is_one(tmp_path):
    section = (Path(__file__).parents[2] / "README.md").read_text("utf-8").split("### HTTP APIs as tools", 1)[1]
    (tmp_path / "haltline.yaml").write_text(section.split("```yaml\n", 1)[1].split("```", 1)[0], "utf-8")
    [spec] = load_settings(tmp_path / "haltline.yaml", environ={"CRM_TOKEN": "t"}).upstreams
    assert (spec.name, spec.kind, spec.headers) == ("crm", "openapi", {"Authorization": "Bearer t"})


def test_a_document_may_be_at_an_address(load):
    assert load("openapi: https://crm.example/openapi.json").openapi == OpenApiSource(
        "https://crm.example/openapi.json"
    )


REFUSED = {
    "two kinds": (("openapi: a.yaml", "url: https://x.example"), "exactly one"),
    "another scheme": (("openapi: ftp://x/y",), "must begin with http:// or https://"),
    "a base that is no address": (("openapi: a.yaml", "base_url: crm.example"), "must begin with http:// or https://"),
    "a base with a password": (("openapi: a.yaml", "base_url: https://u:p@x.example"), "user or password"),
    "its keys elsewhere": (
        ("url: https://x.example", "base_url: https://y.example"),
        "base_url goes with openapi only",
    ),
    "its query elsewhere": (("command: x", "query: {a: b}"), "query goes with openapi only"),
    "an unknown key": (("openapi: a.yaml", "operations: {only: [a]}"), "unknown key"),
    "a program's keys": (("openapi: a.yaml", "args: [a]"), "go with command only"),
    "a variable that is not set": (("openapi: a.yaml", 'query: {k: "${NOPE}"}'), "NOPE is not set"),
    "a header with a line break": (("openapi: a.yaml", 'headers: {A: "b\\nc"}'), "line break"),
}


@pytest.mark.parametrize(("entry", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_with_its_place(load, entry, said):
    with pytest.raises(ConfigError) as caught:
        load(lines(*entry))
    assert said in str(caught.value)
    assert "haltline.yaml:" in str(caught.value)
