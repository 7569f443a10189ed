"""The generic webhook: the Alertmanager's body, signed. What is posted is `alertmanager`'s matter, how `post`'s."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from haltline.alerts.alertmanager import body
from haltline.alerts.post import Post
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Delivery, WebhookSettings

__all__ = ["WebhookChannel", "signature"]


def signature(secret: str, at_s: int, content: bytes) -> str:
    """`t=<unix time>,v1=<hex HMAC-SHA-256 of "<t>.<body>">`; the time is signed too, against replay."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + content, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


class WebhookChannel:
    kind = "webhook"
    acts: frozenset[Act] = frozenset({"trigger", "resolve", "notice"})

    def __init__(self, settings: WebhookSettings, external_url: str = "") -> None:
        """Raises ConfigError for an address that cannot be posted to, without repeating it."""
        self.name = settings.name
        self._secret = settings.secret
        self._external_url = external_url
        self._post = Post(settings.name, settings.url, settings.timeout_s)
        if settings.secret == "":
            raise ConfigError(f"alert channel {self.name}: its secret is empty; leave it out, or give one")

    async def send(self, delivery: Delivery) -> None:
        content = body(delivery, self.name, self._external_url)
        headers = {"Content-Type": "application/json", "X-Haltline-Delivery": delivery.id}
        if self._secret is not None:
            headers["X-Haltline-Signature"] = signature(self._secret, delivery.attempted_us // 1_000_000, content)
        await self._post.send(content, headers, delivery.attempted_us)

    async def aclose(self) -> None:
        await self._post.aclose()
