"""The channels of haltline.yaml: their secrets are looked for at the start, and what is wrong is said with file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from haltline.alerts.open import open_channels
from haltline.errors import ConfigError
from haltline.setup.settings import Settings, load_settings

SID = "AC" + "0" * 32
Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(channels: str, environ: dict[str, str] | None = None) -> Settings:
        file = tmp_path / "haltline.yaml"
        file.write_text(f'version: "1"\nalerts:\n  channels:\n{channels}')
        return load_settings(file, environ=environ or {})

    return loaded


async def test_every_kind_is_opened_from_its_keys(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("pd-key\n")
    settings = load(
        "    ops: {kind: slack, url: '${SLACK}'}\n"
        "    pager: {kind: pagerduty, routing_key_file: key, timeout_s: 3}\n"
        f"    phone: {{kind: sms, account_sid: {SID}, from: '+15550001111', to: '+15552223333'}}\n"
        "    hook: {kind: webhook, url: 'https://hook.example.org/x', secret: '${HOOK}'}\n",
        {"SLACK": "https://hooks.slack.com/services/T/B/x", "HALTLINE_ALERTS_PHONE_AUTH_TOKEN": "t", "HOOK": "h"},
    )
    channels = open_channels(settings.alerts)
    assert [(one.name, one.kind) for one in channels] == [
        ("stderr", "stderr"),
        ("ops", "slack"),
        ("pager", "pagerduty"),
        ("phone", "sms"),
        ("hook", "webhook"),
    ]
    assert all(secret not in repr(settings) for secret in ("pd-key", "services/T/B/x"))
    for one in channels:
        await one.aclose()


@pytest.mark.parametrize("how", ["file key", "variable", "variable of a file", "reference"])
def test_a_secret_may_come_by_four_ways(load: Load, tmp_path: Path, how: str) -> None:
    (tmp_path / "key").write_text("pd-key\n")
    line, environ = {
        "file key": ("{kind: pagerduty, routing_key_file: key}", {}),
        "variable": ("{kind: pagerduty}", {"HALTLINE_ALERTS_ON_CALL_ROUTING_KEY": "pd-key"}),
        "variable of a file": (
            "{kind: pagerduty}",
            {"HALTLINE_ALERTS_ON_CALL_ROUTING_KEY_FILE": str(tmp_path / "key")},
        ),
        "reference": ("{kind: pagerduty, routing_key: '${PD}'}", {"PD": "pd-key"}),
    }[how]
    (channel,) = load(f"    on-call: {line}\n", environ).alerts.channels
    assert channel.routing_key == "pd-key"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ("{kind: pagerduty}", "alerts.channels.x", "has no routing_key; write routing_key_file: FILE, or set HALTLINE_ALERTS_X_ROUTING_KEY"),
        ("{kind: slack}", "alerts.channels.x", "has no url"),
        ("{kind: pagerduty, routing_key: hunter2}", "alerts.channels.x.routing_key", "is a secret, which has no place in this file"),
        ("{kind: pagerduty, routing_key_file: none}", "alerts.channels.x.routing_key_file", "cannot read"),
        ("{kind: pagerduty, routing_key: '${NO}'}", "alerts.channels.x.routing_key", "NO is not set"),
        ("{kind: slack, url: '${HTTP}'}", "alerts.channels.x.url", "must begin with https://"),
        ("{kind: pagerduty, routing_key: '${K}', base_url: 'http://pd.example'}", "alerts.channels.x.base_url", "must begin with https://"),
        ("{kind: pagerduty, routing_key: '${K}', to: '+1555'}", "alerts.channels.x.to", "a channel of kind pagerduty takes no to"),
        (f"{{kind: sms, auth_token: '${{K}}', account_sid: {SID}, from: x}}", "alerts.channels.x", "a channel of kind sms needs to"),
        (f"{{kind: sms, auth_token: '${{K}}', account_sid: {SID}, from: x, to: '0171'}}", "alerts.channels.x.to", "is not a number as"),
        ("{kind: pigeon}", "alerts.channels.x.kind", "'slack', 'pagerduty', 'sms'"),
        ("{kind: desktop, colour: red}", "alerts.channels.x.colour", "unknown key"),
        ("{kind: webhook, url: nowhere}", "alerts.channels.x.url", "must begin with http"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_at_the_start_with_its_line_and_key(
    load: Load, line: str, key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"    x: {line}\n", {"K": "k", "HTTP": "http://hooks.example.org/hunter2"})
    told = [str(one) for one in caught.value.problems]
    assert any(f"haltline.yaml:4: {key}: " in one and says in one for one in told), told
    assert "hunter2" not in str(caught.value)


def test_a_name_that_is_taken_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="there is a channel of this name already"):
        load("    stderr: {kind: webhook, url: 'https://a.example/'}\n")
