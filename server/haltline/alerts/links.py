"""Where in the operators' console one looks at what an alert is about. Pure; the only place that knows the console's paths."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from haltline.alerts.model import Link

if TYPE_CHECKING:
    from haltline.alerts.model import Alert

__all__ = ["links"]


def links(console_url: str, alert: Alert, episode: str) -> tuple[Link, ...]:
    """None without a console. Names are quoted: a handle can neither leave its place nor add to the address."""
    if not console_url:
        return ()
    root = console_url.rstrip("/")
    found = [Link("Open the alert", f"{root}/#/alerts/{quote(episode, safe='')}")]
    if alert.session and alert.kind.startswith("session."):
        found.append(Link("Resume or revoke the session", f"{root}/#/sessions/{quote(alert.session, safe='')}"))
    if alert.agent:
        found.append(Link("Resume or revoke the agent", f"{root}/#/agents/{quote(alert.agent, safe='')}"))
    if not alert.agent and not alert.tool and alert.kind.startswith("everything."):
        found.append(Link("Resume everything", f"{root}/#/status"))
    return tuple(found)
