"""`credentials:` of an upstream: by reference alone, each mistake named with its line, nothing of them ever quoted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from haltline.errors import ConfigError
from haltline.setup.settings import load_settings
from haltline.upstreams.model import Caller, UpstreamSpec

ENVIRON = {"BILLING_TOKEN": "s3cret-b", "SHARED_TOKEN": "s3cret-s"}
Load = Callable[[str], UpstreamSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> UpstreamSpec:
        file = tmp_path / "haltline.yaml"
        file.write_text(text)
        [spec] = load_settings(file, environ=ENVIRON).upstreams
        return spec

    return load


@pytest.mark.promise("R32", "P9")
def test_each_is_read_from_the_environment_or_a_file_and_belongs_to_its_own(load: Load, tmp_path: Path) -> None:
    (tmp_path / "production.headers").write_text("Authorization: Bearer s3cret-p\n")
    spec = load(
        "upstreams:\n  pay:\n    url: http://127.0.0.1:1/mcp\n    credentials:\n"
        '      agents: {billing.eu: {headers: {Authorization: "Bearer ${BILLING_TOKEN}"}}}\n'
        "      tiers: {production: {headers_file: production.headers}}\n"
        '      default: {headers: {Authorization: "Bearer ${SHARED_TOKEN}"}}\n'
    )
    given = spec.credentials
    assert given is not None
    whose = {
        Caller("1", "1", "billing.eu", tier="production"): "Bearer s3cret-b",
        Caller("2", "2", "booking", tier="production"): "Bearer s3cret-p",
        Caller("3", "3", "booking", tier="staging"): "Bearer s3cret-s",
    }
    for caller, value in whose.items():
        found = given.of(caller)
        assert found is not None
        assert found.headers == {"Authorization": value}
    assert given.for_listing.name == "default"
    assert "s3cret" not in repr(spec)
    assert spec.shared_by == "the agents of tier production, all agents without one of their own"


def test_a_program_is_given_its_environment(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("TOKEN=s3cret-a\n")
    spec = load("upstreams: {git: {command: git, credentials: {agents: {a: {env_file: a.env}}}}}")
    assert spec.credentials is not None
    assert spec.credentials.agents["a"].env == {"TOKEN": "s3cret-a"}
    assert spec.shared_by is None


@pytest.mark.promise("P9")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('url: "http://h/", credentials: {default: {headers: {Authorization: "Bearer s3cret"}}}',
         "credentials.default.headers.Authorization: must refer to where the secret is"),
        ('url: "http://h/", credentials: {agents: {b: {headers: {A: "$${s3cret}"}}}}',
         "credentials.agents.b.headers.A: must refer"),
        ('url: "http://h/", credentials: {tiers: {b: {headers: {A: "${NOT_THERE}"}}}}',
         "credentials.tiers.b.headers.A: the environment variable NOT_THERE is not set"),
        ('url: "http://h/", credentials: {tiers: {b: {headers_file: gone.headers}}}',
         "credentials.tiers.b.headers_file: cannot read"),
        ('url: "http://h/", credentials: {default: {env: {A: "${BILLING_TOKEN}"}}}', "a server gets its credential through headers"),
        ('command: git, credentials: {default: {headers: {A: "${BILLING_TOKEN}"}}}', "a program gets its credential through env"),
        ('url: "http://h/", credentials: {}', "gives nobody a credential"),
        ('url: "http://h/", credentials: {listing: {headers: {A: "${BILLING_TOKEN}"}}}', "gives nobody a credential"),
        ('url: "http://h/", credentials: {default: {}}', "needs headers or headers_file"),
        ('url: "http://h/", credentials: {agent: {b: {}}}', "unknown key; did you mean 'agents'"),
        ('python: tools.py, credentials: {default: {env: {A: "${BILLING_TOKEN}"}}}', "credentials do not go with python"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_named_and_never_quoted(load: Load, entry: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        load(f"upstreams:\n  pay: {{{entry}}}\n")
    assert "s3cret" not in str(refused.value)
    assert "haltline.yaml:2" in str(refused.value)


def test_of_one_that_is_disabled_nothing_is_asked(load: Load) -> None:
    spec = load('upstreams: {a: {url: "http://h/", disabled: true, credentials: {default: {headers_file: gone}}}}')
    assert spec.credentials is None
