"""Audit events as lines that a person reads: when, what, who, where, and the few facts that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline_client.commands.page import Column, Styled
from haltline_client.commands.words import NOTHING, amount, clean, when

if TYPE_CHECKING:
    from haltline_client.commands.desk import Desk
    from haltline_client.results import Event

__all__ = ["DETAIL_KEYS", "event_line", "print_events"]

COLUMNS = (
    Column("SEQ", right=True, spare=1),
    Column("AT"),
    Column("EVENT"),
    Column("AGENT"),
    Column("SESSION", spare=1),
    Column("TOOL", flex=True),
    Column("DETAIL", flex=True),
)
DETAIL_KEYS = ("code", "amount", "cost", "actual", "reason", "text", "rule", "error", "outcome", "target", "summary")
KIND_WIDTH = 16
STYLES = {"halted": "bad", "revoked": "bad", "denied": "warn", "failed": "warn", "in_doubt": "warn", "fired": "warn"}


def print_events(desk: Desk, events: list[Event], *, empty: str) -> None:
    """Events as a table."""
    desk.page.table(COLUMNS, [_cells(desk, event) for event in events], empty=empty)


def event_line(desk: Desk, event: Event) -> None:
    """One event on a line of its own, for a log that is followed."""
    _, at, kind, agent, session, tool, detail = _cells(desk, event)
    who = agent if session == NOTHING else f"{agent}/{session}"
    what = f"  {tool}" if tool != NOTHING else ""
    desk.page.line(
        f"{at}  ", kind, " " * (KIND_WIDTH - len(kind.text)), f"  {who}{what}", f"  {detail}" if detail else ""
    )


def _cells(desk: Desk, event: Event) -> tuple[str, str, Styled, str, str, str, str]:
    kind = clean(event.get("kind"))
    return (
        str(event.get("seq", "")),
        when(event.get("at"), desk.now),
        Styled(kind, STYLES.get(kind.rpartition(".")[2], "plain")),
        clean(event.get("agent") or event.get("actor")),
        clean(event.get("session")),
        clean(event.get("tool")),
        _detail(event),
    )


def _detail(event: Event) -> str:
    body: dict[str, Any] = dict(event)
    found = [amount(body[key]) for key in DETAIL_KEYS if isinstance(body.get(key), str | int | dict)]
    over = body.get("overage_micros")
    if isinstance(over, int):
        found.append(f"{over // 1_000_000}.{over % 1_000_000:06d}".rstrip("0").rstrip(".") + " over its price")
    codes = [str(one.get("code")) for one in body.get("reasons") or () if isinstance(one, dict)]
    return " ".join(text for text in (*map(clean, codes), *found) if text != NOTHING)
