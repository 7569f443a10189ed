"""`alerts:` of haltline.yaml: the channels by which people are told, and where each takes its secret from.

    channels:
      pager: {kind: pagerduty, routing_key_file: secrets/pagerduty}
      ops:   {kind: slack, url: "${SLACK_WEBHOOK}"}

A channel's secret comes from the environment or from a file, and is looked for at the start: by a reference, by the key
with `_file`, or under HALTLINE_ALERTS_<CHANNEL>_<KEY> and …_FILE. Which alert goes to which channel is the policy's matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from haltline.alerts.here import desktop_here, program
from haltline.alerts.model import DESKTOP, AlertSettings, ChannelSettings, WebhookSettings
from haltline.alerts.settings import (
    PAGERDUTY_URL,
    TIMEOUT_S,
    TWILIO_URL,
    AppriseSettings,
    DesktopSettings,
    PagerDutySettings,
    SlackSettings,
    SmsSettings,
)
from haltline.policy.durations import parse_duration
from haltline.policy.yaml_text import Document
from haltline.setup.addresses import web_address
from haltline.setup.listeners import is_loopback
from haltline.setup.references import Report, refers, secret_text

__all__ = ["AlertsEntry", "ChannelEntry", "WebhookEntry", "alert_settings"]

Kind = Literal["slack", "pagerduty", "sms", "webhook", "desktop", "apprise"]
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_DAY_S = 86_400.0
_KEY = re.compile(r"[!-~]{1,200}")
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|MG[0-9a-fA-F]{32}|[A-Za-z0-9 ]{1,11}")
_SECRET: Mapping[str, str] = {"slack": "url", "pagerduty": "routing_key", "sms": "auth_token", "apprise": "urls"}
"""Without it there is no channel."""
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "slack": (),
    "pagerduty": ("base_url",),
    "sms": ("account_sid", "from", "to", "base_url"),
    "webhook": ("url", "secret", "secret_file"),
    "desktop": (),
    "apprise": (),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {"sms": ("account_sid", "from", "to"), "webhook": ("url",)}


def _number(value: Any) -> Any:
    """In strict mode YAML's `60` is no float; nothing else about a number is bent."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0, le=_DAY_S, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WebhookEntry(_Strict):
    """One receiver of alerts."""

    name: str
    url: str
    secret: str | None = Field(None, min_length=1)
    secret_file: str | None = None
    timeout_s: Seconds = TIMEOUT_S

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if _NAME.fullmatch(name):
            return name
        raise ValueError("needs 1 to 40 of a-z, 0-9 and -")

    @model_validator(mode="after")
    def _one_secret(self) -> WebhookEntry:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("give secret or secret_file, not both")
        return self


class ChannelEntry(_Strict):
    """One way to tell people. Which keys there are depends on `kind`."""

    kind: Kind
    url: str | None = None
    url_file: str | None = None
    secret: str | None = Field(None, min_length=1)
    secret_file: str | None = None
    routing_key: str | None = None
    routing_key_file: str | None = None
    account_sid: str | None = None
    auth_token: str | None = None
    auth_token_file: str | None = None
    sender: str | None = Field(None, alias="from")
    to: str | None = None
    base_url: str | None = None
    urls: str | None = None
    urls_file: str | None = None
    timeout_s: Seconds = TIMEOUT_S

    def given(self) -> dict[str, Any]:
        """What the file says, by the file's own keys."""
        said = self.model_dump(by_alias=True, exclude_unset=True)
        return {key: value for key, value in said.items() if key not in {"kind", "timeout_s"}}


class AlertsEntry(_Strict):
    """`alerts:`."""

    webhooks: list[WebhookEntry] = Field(default_factory=list, max_length=20)
    channels: dict[str, ChannelEntry] = Field(default_factory=dict, max_length=50)
    console_url: str = ""
    desktop: bool | None = None
    """Left out: where there is one, and no channel is configured."""
    keep: str | None = None
    """How long alerts are kept that are resolved and delivered; 90d by default."""


def alert_settings(
    entry: AlertsEntry, document: Document, folder: Path, environ: Mapping[str, str], report: Report
) -> AlertSettings:
    """The channels as they can be opened; what is wrong with one is reported with its key, and it is left out."""
    reading = _Reading(document, folder, environ, report)
    webhooks = reading.webhooks(entry.webhooks)
    channels = [reading.channel(name, one) for name, one in entry.channels.items()]
    for name in entry.channels:
        if name in {"stderr", *(one.name for one in webhooks)}:
            report(("alerts", "channels", name), "there is a channel of this name already; give it another")
    wrong = web_address(entry.console_url) if entry.console_url else None
    if wrong:
        report(("alerts", "console_url"), wrong)
    found = [one for one in channels if one is not None]
    if _by_itself(entry, environ, report):
        found.append(DesktopSettings(DESKTOP))
    return AlertSettings(webhooks, tuple(found), entry.console_url, _kept_s(entry, report))


def _by_itself(entry: AlertsEntry, environ: Mapping[str, str], report: Report) -> bool:
    """Whether the desktop is told although no channel names it. One that is asked for and not there is reported."""
    if DESKTOP in entry.channels:
        return False
    if entry.desktop is None:
        return not (entry.channels or entry.webhooks) and desktop_here(environ)
    if entry.desktop and program(environ) is None:
        report(
            ("alerts", "desktop"), "no notifier is installed here (notify-send); install libnotify, or leave this out"
        )
        return False
    return entry.desktop


def _kept_s(entry: AlertsEntry, report: Report) -> float:
    if entry.keep is None:
        return AlertSettings().keep_s
    try:
        return parse_duration(entry.keep)
    except ValueError as error:
        report(("alerts", "keep"), str(error))
        return AlertSettings().keep_s


class _Reading:
    def __init__(self, document: Document, folder: Path, environ: Mapping[str, str], report: Report) -> None:
        self._document = document
        self._folder = folder
        self._environ = environ
        self._report = report

    def webhooks(self, entries: list[WebhookEntry]) -> tuple[WebhookSettings, ...]:
        found: list[WebhookSettings] = []
        for index, one in enumerate(entries):
            here = ("alerts", "webhooks", index)
            if one.name in {other.name for other in found}:
                self._report((*here, "name"), f"a second webhook named {one.name!r}; give it another name")
            self._address((*here, "url"), one.url)
            secret = one.secret
            if one.secret_file is not None:
                secret = self._file((*here, "secret_file"), one.secret_file)
            found.append(WebhookSettings(name=one.name, url=one.url, secret=secret, timeout_s=one.timeout_s))
        return tuple(found)

    def channel(self, name: str, entry: ChannelEntry) -> ChannelSettings | None:
        """None where something is wrong, which is reported."""
        here, given = ("alerts", "channels", name), entry.given()
        if not _NAME.fullmatch(name):
            self._report(here, "a channel's name needs 1 to 40 of a-z, 0-9 and -")
        key = _SECRET.get(entry.kind)
        known = {*_PLAIN[entry.kind], *((key, f"{key}_file") if key else ())}
        for other in sorted(set(given) - known):
            self._report((*here, other), f"a channel of kind {entry.kind} takes no {other}")
        missing = [one for one in _NEEDED.get(entry.kind, ()) if not given.get(one)]
        for one in missing:
            self._report(here, f"a channel of kind {entry.kind} needs {one}")
        secret = "" if key is None else self._secret(here, name, key, given)
        if missing or secret is None or not self._base(here, entry.base_url):
            return None
        return self._made(here, name, entry, secret)

    def _made(self, here: tuple[str, ...], name: str, entry: ChannelEntry, secret: str) -> ChannelSettings | None:
        match entry.kind:
            case "slack":
                good = self._address((*here, "url"), secret, private=True)
                return SlackSettings(name, secret, entry.timeout_s) if good else None
            case "pagerduty":
                good = self._fits((*here, "routing_key"), secret, _KEY, "an integration key of Events API v2")
                url = entry.base_url or PAGERDUTY_URL
                return PagerDutySettings(name, secret, url, entry.timeout_s) if good else None
            case "sms":
                return self._sms(here, name, entry, secret)
            case "webhook":
                return self._webhook(here, name, entry)
            case "desktop":
                return DesktopSettings(name)
            case "apprise":
                return AppriseSettings(name, tuple(secret.split()), entry.timeout_s)

    def _sms(self, here: tuple[str, ...], name: str, entry: ChannelEntry, secret: str) -> SmsSettings | None:
        account, sender, to = str(entry.account_sid), str(entry.sender), str(entry.to)
        good = (
            self._fits((*here, "account_sid"), account, _ACCOUNT, "an account's id, AC and 32 hexadecimal digits"),
            self._fits((*here, "from"), sender, _SENDER, "a number as +15551234567, a sender's name or MG…"),
            self._fits((*here, "to"), to, _NUMBER, "a number as +15551234567; a second number is a second channel"),
            self._fits((*here, "auth_token"), secret, _KEY, "an account's token"),
        )
        url = entry.base_url or TWILIO_URL
        return SmsSettings(name, account, secret, sender, to, url, entry.timeout_s) if all(good) else None

    def _webhook(self, here: tuple[str, ...], name: str, entry: ChannelEntry) -> WebhookSettings | None:
        secret = entry.secret
        if secret is not None and entry.secret_file is not None:
            self._report(here, "give secret or secret_file, not both")
        if entry.secret_file is not None:
            secret = self._file((*here, "secret_file"), entry.secret_file)
        url = str(entry.url)
        return WebhookSettings(name, url, secret, entry.timeout_s) if self._address((*here, "url"), url) else None

    def _secret(self, here: tuple[str, ...], name: str, key: str, given: Mapping[str, Any]) -> str | None:
        """By the first way in which it is given."""
        written, file = given.get(key), given.get(f"{key}_file")
        variable = f"HALTLINE_ALERTS_{name}_{key}".upper().replace("-", "_")
        if written is not None and file is not None:
            self._report(here, f"give {key} or {key}_file, not both")
        if file is not None:
            return self._file((*here, f"{key}_file"), file)
        if written is not None:
            if not self._refers((*here, key)):
                self._report(
                    (*here, key),
                    f"is a secret, which has no place in this file; use ${{NAME}} from the environment, or {key}_file",
                )
                return None
            return str(written)
        if self._environ.get(variable):
            return self._environ[variable]
        if self._environ.get(f"{variable}_FILE"):
            return self._file(here, self._environ[f"{variable}_FILE"])
        self._report(here, f"this channel has no {key}; write {key}_file: FILE, or set {variable} or {variable}_FILE")
        return None

    def _refers(self, path: tuple[str | int, ...]) -> bool:
        """Whether the file itself holds a reference there, not the value."""
        part: Any = self._document.content
        for step in path:
            part = part[step]
        return refers(str(part))

    def _file(self, path: tuple[str | int, ...], file: str) -> str | None:
        try:
            return secret_text(self._folder / Path(file).expanduser())
        except ValueError as error:
            self._report(path, str(error))
            return None

    def _fits(self, path: tuple[str, ...], value: str, pattern: re.Pattern[str], wanted: str) -> bool:
        if pattern.fullmatch(value):
            return True
        self._report(path, f"is not {wanted}")
        return False

    def _address(self, path: tuple[str | int, ...], url: str, *, private: bool = False) -> bool:
        """Whether it can be posted to. `private`: it carries what nobody may read on the way."""
        wrong = web_address(url)
        if wrong is None and private and not _shielded(url):
            wrong = "must begin with https://"
        if wrong is not None:
            self._report(path, wrong)
        return wrong is None

    def _base(self, here: tuple[str, ...], url: str | None) -> bool:
        return url is None or self._address((*here, "base_url"), url, private=True)


def _shielded(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
