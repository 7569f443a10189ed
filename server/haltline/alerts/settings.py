"""The settings of the channels that send to a vendor or a desktop, each whole. No secret is shown by a repr."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "PAGERDUTY_URL",
    "TWILIO_URL",
    "AppriseSettings",
    "DesktopSettings",
    "PagerDutySettings",
    "SlackSettings",
    "SmsSettings",
]

PAGERDUTY_URL = "https://events.pagerduty.com"
TWILIO_URL = "https://api.twilio.com"
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class SlackSettings:
    """An incoming webhook: its address is its secret."""

    name: str
    url: str = field(repr=False)
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class PagerDutySettings:
    """An integration of Events API v2."""

    name: str
    routing_key: str = field(repr=False)
    base_url: str = PAGERDUTY_URL
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class SmsSettings:
    """One number that is told, over Twilio. `sender`: a number, a sender's name, or a messaging service (MG…)."""

    name: str
    account_sid: str
    auth_token: str = field(repr=False)
    sender: str
    to: str
    base_url: str = TWILIO_URL
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class DesktopSettings:
    name: str


@dataclass(frozen=True, slots=True)
class AppriseSettings:
    """Addresses in Apprise's form, such as mailto://…: email and a hundred other services."""

    name: str
    urls: tuple[str, ...] = field(repr=False)
    timeout_s: float = TIMEOUT_S
