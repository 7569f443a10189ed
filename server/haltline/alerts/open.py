"""The channels of a configuration. The only module of the alerts that knows which kinds there are."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from haltline.alerts.stderr import StderrChannel
from haltline.alerts.webhook import WebhookChannel
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from haltline.alerts.model import AlertSettings, Channel

__all__ = ["open_channels"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""It stands in delivery ids, in a header and in the rows: rename a channel and what waits for it is parked."""


def open_channels(settings: AlertSettings) -> list[Channel]:
    """Standard error, then what is configured. Raises ConfigError for a bad or second name, a bad URL, an empty secret."""
    names = {"stderr"}
    for webhook in settings.webhooks:
        if not _NAME.fullmatch(webhook.name):
            raise ConfigError(f"an alert channel's name needs letters, digits, - and _ alone, not {webhook.name!r}")
        if webhook.name in names:
            raise ConfigError(f"two alert channels are named {webhook.name}; give each a name of its own")
        names.add(webhook.name)
    webhooks = [WebhookChannel(one, settings.console_url) for one in settings.webhooks]
    return [StderrChannel(sys.stderr), *webhooks]
