"""An alert in the form of the Alertmanager's webhook, version 4: what a hundred receivers can read already. Pure.

prometheus.io/docs/alerting/latest/configuration/#webhook_config. Each alert is a group of its own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from haltline.alerts.text import balance_line, cause
from haltline.clock import iso

if TYPE_CHECKING:
    from haltline.alerts.model import Alert, Delivery

__all__ = ["body"]

_NO_END = "0001-01-01T00:00:00Z"
"""Go's zero time: how the Alertmanager says that it has not ended."""
_FINGERPRINT_DIGITS = 16
_GROUPED_BY = ("alertname", "agent", "session", "tool")


def body(delivery: Delivery, receiver: str, external_url: str) -> bytes:
    """The same bytes at every attempt."""
    labels, annotations = _labels(delivery.alert), _annotations(delivery.alert)
    ended = delivery.alert.act == "resolve"
    status = "resolved" if ended else "firing"
    began_us = delivery.alert.opened_us or delivery.at_us
    group = {name: labels[name] for name in _GROUPED_BY if name in labels}
    message: dict[str, Any] = {
        "version": "4",
        "groupKey": f"haltline:{orjson.dumps(group).decode()}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": external_url,
        "alerts": [
            {
                "status": status,
                "labels": labels,
                "annotations": annotations,
                "startsAt": iso(began_us if ended else delivery.at_us),
                "endsAt": iso(delivery.at_us) if ended else _NO_END,
                "generatorURL": external_url,
                "fingerprint": _fingerprint(labels),
            }
        ],
    }
    return orjson.dumps(message)


def _labels(alert: Alert) -> dict[str, str]:
    """What identifies it: two of the same agent, session, kind and code are one alert that fires again."""
    labels = {
        "alertname": alert.kind,
        "agent": alert.agent,
        "session": alert.session,
        "tool": alert.tool,
        "kind": alert.kind,
        "code": alert.code,
        "severity": alert.severity,
    }
    return {name: value for name, value in labels.items() if value}


def _annotations(alert: Alert) -> dict[str, str]:
    """What describes it; strings only, several lines joined by line breaks that no value can contain itself."""
    annotations = {
        "summary": alert.summary,
        "description": cause(alert),
        "note": alert.headline,
        "episode": alert.episode,
        "count": str(alert.count) if alert.count > 1 else None,
        "task": alert.task,
        "owner": alert.owner,
        "by": alert.by,
        "rule": alert.rule,
        "threshold": alert.threshold,
        "observed": alert.observed,
        "last_actions": "\n".join(alert.last_actions),
        "balances": "\n".join(balance_line(balance) for balance in alert.balances),
        "commands": "\n".join(alert.commands),
        "links": "\n".join(link.url for link in alert.links),
    }
    return {name: value for name, value in annotations.items() if value}


def _fingerprint(labels: dict[str, str]) -> str:
    return hashlib.sha256(orjson.dumps(labels, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_FINGERPRINT_DIGITS]
