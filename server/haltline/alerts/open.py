"""The channels of a configuration. The only module of the alerts that knows which kinds there are."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from haltline.alerts.apprise import AppriseChannel
from haltline.alerts.desktop import DesktopChannel
from haltline.alerts.model import WebhookSettings
from haltline.alerts.pagerduty import PagerDutyChannel
from haltline.alerts.settings import AppriseSettings, DesktopSettings, PagerDutySettings, SlackSettings, SmsSettings
from haltline.alerts.slack import SlackChannel
from haltline.alerts.sms import SmsChannel
from haltline.alerts.stderr import StderrChannel
from haltline.alerts.webhook import WebhookChannel
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from haltline.alerts.model import AlertSettings, Channel, ChannelSettings

__all__ = ["open_channels"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""It stands in delivery ids, in a header and in the rows: rename a channel and what waits for it is parked."""


def open_channels(settings: AlertSettings) -> list[Channel]:
    """Standard error, then what is configured. Raises ConfigError for a bad or second name, a bad URL, an empty secret."""
    configured = (*settings.webhooks, *settings.channels)
    names = {"stderr"}
    for one in configured:
        if not _NAME.fullmatch(one.name):
            raise ConfigError(f"an alert channel's name needs letters, digits, - and _ alone, not {one.name!r}")
        if one.name in names:
            raise ConfigError(f"two alert channels are named {one.name}; give each a name of its own")
        names.add(one.name)
    return [StderrChannel(sys.stderr), *(_opened(one, settings.console_url) for one in configured)]


def _opened(one: ChannelSettings, console_url: str) -> Channel:
    match one:
        case WebhookSettings():
            return WebhookChannel(one, console_url)
        case SlackSettings():
            return SlackChannel(one)
        case PagerDutySettings():
            return PagerDutyChannel(one, console_url)
        case SmsSettings():
            return SmsChannel(one)
        case DesktopSettings():
            return DesktopChannel(one)
        case AppriseSettings():
            return AppriseChannel(one)
