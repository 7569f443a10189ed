"""PagerDuty, Events API v2: trigger, acknowledge and resolve of one incident for each episode, by its deduplication key.

developer.pagerduty.com/docs/events-api-v2-overview. 202 is taken; 400 cannot succeed; 429 and 5xx are tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from haltline.alerts.post import Post
from haltline.alerts.text import balance_line, cause
from haltline.alerts.visible import clipped
from haltline.clock import iso

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Alert, Delivery
    from haltline.alerts.settings import PagerDutySettings

__all__ = ["PagerDutyChannel", "event"]

_SUMMARY_MAX = 1024
_NAME_MAX = 255


class PagerDutyChannel:
    """Told of episodes alone: an incident that nobody need act on is none."""

    kind = "pagerduty"
    acts: frozenset[Act] = frozenset({"trigger", "acknowledge", "resolve"})

    def __init__(self, settings: PagerDutySettings, console_url: str = "") -> None:
        self.name = settings.name
        self._routing_key = settings.routing_key
        self._console_url = console_url
        self._post = Post(settings.name, f"{settings.base_url.rstrip('/')}/v2/enqueue", settings.timeout_s)

    async def send(self, delivery: Delivery) -> None:
        """One that somebody has in hand from the start is acknowledged at once, a test is resolved at once."""
        await self._enqueue(delivery, delivery.alert.act)
        if delivery.alert.act == "trigger" and delivery.alert.test:
            await self._enqueue(delivery, "resolve")
        elif delivery.alert.act == "trigger" and delivery.alert.acted_by is not None:
            await self._enqueue(delivery, "acknowledge")

    async def aclose(self) -> None:
        await self._post.aclose()

    async def _enqueue(self, delivery: Delivery, act: Act) -> None:
        content = orjson.dumps({"routing_key": self._routing_key, **event(delivery, act, self._console_url)})
        await self._post.send(content, {"Content-Type": "application/json"}, delivery.attempted_us)


def event(delivery: Delivery, act: Act, console_url: str = "") -> dict[str, Any]:
    """Without the routing key. The payload goes with a trigger alone."""
    alert = delivery.alert
    said: dict[str, Any] = {"event_action": act, "dedup_key": (alert.episode or delivery.alert_id)[:_NAME_MAX]}
    if act != "trigger":
        return said
    said |= {"payload": _payload(delivery), "client": "Haltline"}
    if console_url:
        said["client_url"] = console_url
    if alert.links:
        said["links"] = [{"href": link.url, "text": link.text} for link in alert.links]
    return said


def _payload(delivery: Delivery) -> dict[str, Any]:
    alert = delivery.alert
    note = f"{alert.headline}: " if alert.headline else ""
    payload = {
        "summary": clipped(f"{note}{alert.summary}", _SUMMARY_MAX),
        "source": alert.agent or alert.tool or "haltline",
        "severity": alert.severity,
        "timestamp": iso(delivery.at_us),
        "component": alert.session or alert.tool,
        "group": alert.tier,
        "class": alert.code,
        "custom_details": _details(alert),
    }
    return {name: value for name, value in payload.items() if value}


def _details(alert: Alert) -> dict[str, Any]:
    details = {
        "cause": cause(alert),
        "agent": alert.agent,
        "session": alert.session,
        "task": alert.task,
        "owner": alert.owner,
        "by": alert.by,
        "rule": alert.rule,
        "threshold": alert.threshold,
        "observed": alert.observed,
        "count": alert.count,
        "balances": [balance_line(balance) for balance in alert.balances],
        "last_actions": list(alert.last_actions),
        "commands": list(alert.commands),
    }
    return {name: value for name, value in details.items() if value}
