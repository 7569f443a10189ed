"""Slack, by an incoming webhook: Block Kit with a text for notifications, buttons where there is a console.

docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, …/reference/block-kit. What an agent wrote can neither
mention a channel, make a link nor leave its place: `&`, `<` and `>` are escaped, and no text is looked through for names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from haltline.alerts.post import Post
from haltline.alerts.text import balance_line, cause
from haltline.alerts.visible import clipped

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Alert, Delivery
    from haltline.alerts.settings import SlackSettings

__all__ = ["SlackChannel", "escaped", "message"]

_TEXT_MAX = 3000
_FIELD_MAX = 2000
_HEADER_MAX = 150
_BUTTON_MAX = 75
_URL_MAX = 3000
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "\u02cb"}
"""The back-tick would end a block of code, and has no entity."""
_MARK = {"critical": "🛑", "warning": "⚠️", "info": "ℹ️"}  # noqa: RUF001 - the sign is meant


class SlackChannel:
    kind = "slack"
    acts: frozenset[Act] = frozenset({"trigger", "acknowledge", "resolve", "notice"})

    def __init__(self, settings: SlackSettings) -> None:
        self.name = settings.name
        self._post = Post(settings.name, settings.url, settings.timeout_s)

    async def send(self, delivery: Delivery) -> None:
        content = orjson.dumps(message(delivery))
        await self._post.send(content, {"Content-Type": "application/json"}, delivery.attempted_us)

    async def aclose(self) -> None:
        await self._post.aclose()


def message(delivery: Delivery) -> dict[str, Any]:
    """`text` is what notifications and screen readers show; it holds agent, cause and balance by itself."""
    alert = delivery.alert
    note = f"{alert.headline}: " if alert.headline else ""
    said: dict[str, Any] = {"text": escaped(f"{note}{alert.summary}", _TEXT_MAX), "unfurl_links": False}
    if alert.act in {"acknowledge", "resolve"}:
        return said | {"blocks": [_section(f"*{escaped(alert.headline, 200)}*\n{escaped(alert.summary, 2500)}")]}
    return said | {"blocks": [*_blocks(alert), _context(delivery)]}


def escaped(text: str, longest: int) -> str:
    """At most `longest` characters after escaping, no entity cut in two."""
    out: list[str] = []
    room = longest - 1
    for char in text:
        put = _ENTITIES.get(char, char)
        if len(put) > room:
            return "".join(out) + "…"
        out.append(put)
        room -= len(put)
    return "".join(out)


def _blocks(alert: Alert) -> list[dict[str, Any]]:
    subject = alert.agent or alert.tool or "everything"
    title = f"{_MARK[alert.severity]} {subject}: {alert.kind}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": clipped(title, _HEADER_MAX), "emoji": False}}
    ]
    if alert.headline:
        blocks.append(_section(f"*{escaped(alert.headline, _FIELD_MAX)}*"))
    blocks.append(_section(escaped(cause(alert), _TEXT_MAX)))
    blocks.append({"type": "section", "fields": _fields(alert)})
    for title, lines in (
        ("Balances", [balance_line(one) for one in alert.balances]),
        ("Last actions", list(alert.last_actions)),
        ("Type", list(alert.commands)),
    ):
        if lines:
            blocks.append(_section(f"*{title}*\n```{escaped(chr(10).join(lines), _TEXT_MAX - 40)}```"))
    if alert.links:
        buttons = [_button(link.text, link.url, number) for number, link in enumerate(alert.links)]
        blocks.append({"type": "actions", "elements": buttons})
    return blocks


def _fields(alert: Alert) -> list[dict[str, Any]]:
    facts = (
        ("Agent", alert.agent),
        ("Session", alert.session),
        ("Task", alert.task),
        ("Tier", alert.tier),
        ("Owner", alert.owner),
        ("By", alert.by),
        ("Rule", alert.rule),
        ("Threshold", alert.threshold),
        ("Observed", alert.observed),
    )
    shown = [_mrkdwn(f"*{name}*\n{escaped(value, _FIELD_MAX - 20)}") for name, value in facts if value]
    return shown or [_mrkdwn("*About*\neverything")]


def _context(delivery: Delivery) -> dict[str, Any]:
    alert = delivery.alert
    at_s = delivery.at_us // 1_000_000
    times = f", {alert.count} times" if alert.count > 1 else ""
    when = f"<!date^{at_s}^{{date_num}} {{time_secs}}|{at_s}>"
    return {
        "type": "context",
        "elements": [_mrkdwn(f"{when} · {alert.severity}{times} · {alert.episode or delivery.alert_id}")],
    }


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _button(text: str, url: str, number: int) -> dict[str, Any]:
    label = {"type": "plain_text", "text": clipped(text, _BUTTON_MAX), "emoji": False}
    return {"type": "button", "action_id": f"open-{number}", "text": label, "url": url[:_URL_MAX]}
