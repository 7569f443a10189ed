"""Which channels a configuration opens, and which it cannot."""

from __future__ import annotations

import pytest

from haltline.alerts.model import AlertSettings, WebhookSettings
from haltline.alerts.open import open_channels
from haltline.errors import ConfigError


async def test_standard_error_is_always_a_channel_and_webhooks_follow() -> None:
    assert [(one.name, one.kind) for one in open_channels(AlertSettings())] == [("stderr", "stderr")]
    hooks = (WebhookSettings("ops", "https://alerts.example/hook"), WebhookSettings("sec", "http://[::1]:9/x", "s"))
    channels = open_channels(AlertSettings(hooks))
    assert [(one.name, one.kind) for one in channels] == [("stderr", "stderr"), ("ops", "webhook"), ("sec", "webhook")]
    for one in channels:
        await one.aclose()


@pytest.mark.parametrize(
    ("hooks", "says"),
    [
        ([("ops", "https://a.example/"), ("ops", "https://b.example/")], "two alert channels are named ops"),
        ([("stderr", "https://a.example/")], "two alert channels are named stderr"),
        ([("bad name\n", "https://a.example/")], "letters, digits, - and _ alone"),
        ([("ops", "ftp://user:hunter2@a.example/")], "must start with http:// or https://"),
        ([("ops", "https:///hunter2")], "name a host"),
        ([("ops", "http://user:hunter2@[::1/")], "is not a URL"),
        ([("ops", "hunter2")], "must start with http:// or https://"),
        ([("ops", "https://a.example/", "")], "its secret is empty"),
    ],
)
def test_what_cannot_work_is_refused_at_start_without_repeating_the_address(
    hooks: list[tuple[str, ...]], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_channels(AlertSettings(tuple(WebhookSettings(*one) for one in hooks)))
    assert "hunter2" not in str(caught.value)
