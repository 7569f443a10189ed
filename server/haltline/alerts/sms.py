"""Text messages over Twilio: one of at most 160 characters, so that a phone shows agent, cause and balance at a glance.

www.twilio.com/docs/messaging/api/message-resource. Only characters of the GSM alphabet's basic set go in (3GPP TS 23.038):
one other would halve what fits.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from haltline.alerts.post import Post
from haltline.alerts.visible import clipped

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Alert, Delivery
    from haltline.alerts.settings import SmsSettings

__all__ = ["LONGEST", "SmsChannel", "gsm", "short_text"]

LONGEST = 160
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_INSTEAD = {
    "[": "(",
    "]": ")",
    "{": "(",
    "}": ")",
    "\\": "/",
    "^": "'",
    "~": "-",
    "|": "/",
    "`": "'",
    "×": "x",
    "…": ".",
    "€": "EUR",
}
_AGENT_MAX = 48
_CAUSE_MAX = 40
_BALANCE_MAX = 44


class SmsChannel:
    """Told when something happens; what became of it is seen elsewhere."""

    kind = "sms"
    acts: frozenset[Act] = frozenset({"trigger"})

    def __init__(self, settings: SmsSettings) -> None:
        self.name = settings.name
        self._to = settings.to
        self._from = "MessagingServiceSid" if settings.sender.startswith("MG") else "From"
        self._sender = settings.sender
        url = f"{settings.base_url.rstrip('/')}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"
        self._post = Post(settings.name, url, settings.timeout_s, basic=(settings.account_sid, settings.auth_token))

    async def send(self, delivery: Delivery) -> None:
        form = {"To": self._to, self._from: self._sender, "Body": short_text(delivery.alert)}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        await self._post.send(urlencode(form).encode(), headers, delivery.attempted_us)

    async def aclose(self) -> None:
        await self._post.aclose()


def short_text(alert: Alert) -> str:
    """`HALTLINE booking-7 session.halted budget.task_exceeded; task left 0.03 USD of 0.50 USD; task cap 0.50 USD, …`."""
    mark = "HALTLINE TEST" if alert.test else "HALTLINE"
    who = clipped(alert.agent or alert.tool or "everything", _AGENT_MAX)
    balance = alert.tightest
    left = "" if balance is None else f"; {balance.cap} left {balance.remaining} of {balance.limit}"
    must = gsm(f"{mark} {who} {clipped(_cause(alert), _CAUSE_MAX)}{clipped(left, _BALANCE_MAX)}")
    times = f" x{alert.count}" if alert.count > 1 else ""
    return gsm(f"{must}{times}; {alert.text}")[:LONGEST].rstrip("; ")


def _cause(alert: Alert) -> str:
    """What stopped, and why: the act is in the kind's last part."""
    return f"{alert.kind.rpartition('.')[2]} {alert.rule or alert.code}"


def gsm(text: str) -> str:
    """The same in the basic set: accents that it lacks are dropped, what is left of others is a question mark."""
    return "".join(part for char in text for part in _basic(char))


def _basic(char: str) -> str:
    if char in _BASIC:
        return char
    instead = _INSTEAD.get(char)
    if instead is not None:
        return instead
    bare = unicodedata.normalize("NFKD", char)[:1]
    return bare if bare in _BASIC else "?"
