"""Email and a hundred other services through Apprise, an optional extra: `pip install "haltline[apprise]"`.

Apprise sends in a thread of its own and says only whether it worked. Its addresses hold credentials and are never shown.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from haltline.alerts.model import Later
from haltline.alerts.text import block
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Delivery
    from haltline.alerts.settings import AppriseSettings

__all__ = ["AppriseChannel"]

_TYPE = {"critical": "failure", "warning": "warning", "info": "info"}
_AT_ONCE = 4


class AppriseChannel:
    kind = "apprise"
    acts: frozenset[Act] = frozenset({"trigger", "resolve", "notice"})

    def __init__(self, settings: AppriseSettings) -> None:
        """Raises ConfigError where Apprise is not installed or does not know an address, without repeating it."""
        self.name = settings.name
        self._timeout_s = settings.timeout_s
        self._threads = anyio.CapacityLimiter(_AT_ONCE)
        try:
            import apprise  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise ConfigError(
                f'alert channel {self.name}: apprise is not installed; pip install "haltline[apprise]", or leave it out'
            ) from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs addresses
        self._targets: Any = apprise.Apprise(
            asset=apprise.AppriseAsset(app_id="Haltline", app_desc="Haltline", app_url="")
        )
        for number, url in enumerate(settings.urls, 1):
            if not self._targets.add(url):
                raise ConfigError(f"alert channel {self.name}: address number {number} is none that apprise knows")

    async def send(self, delivery: Delivery) -> None:
        alert = delivery.alert
        title = f"{alert.headline or 'Haltline'}: {alert.agent or alert.tool or 'everything'}"
        notify = functools.partial(
            self._targets.notify,
            title=title,
            body=block(delivery),
            notify_type=_TYPE[alert.severity],
            body_format="text",
        )
        try:
            with anyio.fail_after(self._timeout_s):
                worked = await anyio.to_thread.run_sync(notify, abandon_on_cancel=True, limiter=self._threads)
        except TimeoutError:
            raise Later("it does not answer in time") from None
        except TypeError:
            raise Later("apprise has no address to send to") from None
        if not worked:
            raise Later("one of its addresses did not take it")

    async def aclose(self) -> None:
        """Nothing is held open."""
