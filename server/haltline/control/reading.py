"""Reading the audit log beside the hot path: pages of events by what they are about, and what somebody did last.

Owns the queries over events and payloads, through read-only connections. Events rise in `seq` and in time alike, so a time
becomes a `seq` by bisection and every page is a walk along one index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from haltline.audit import COMMON, RARE, Kind, stored_event
from haltline.clock import iso
from haltline.errors import RequestError
from haltline.policy.durations import parse_duration

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from haltline.store.reader import Reader
    from haltline_client import results as r

__all__ = ["LAST_ACTIONS", "Filters", "Page", "described", "kinds_of", "last_actions", "moment_us", "page"]

LAST_ACTIONS = 5
PAGE_MAX_EVENTS = 1_000
PAGE_MAX_BYTES = 8 * 1024 * 1024
"""A page of large arguments and results ends earlier than asked, and says where the next one begins."""
_OF_SESSION = "agent_id = (SELECT agent_id FROM sessions WHERE id = ?) AND session_id = ?"
_ALONE = "agent_id IS NULL AND session_id = ?"
_LOOKED_AT = 60
_KIND = re.compile(r"([a-z_]+)(?:\.([a-z_]+|\*)?)?")
_AGE = re.compile(r"[0-9]{1,9}[smhd]")
_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which events are meant; None: any."""

    agent_id: str | None = None
    session: str | None = None
    kind: str | None = None
    call: str | None = None
    tool: str | None = None
    since_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of them, by `seq`, both ends exclusive; `newest` takes the last ones, still in rising order."""

    after_seq: int | None = None
    before_seq: int | None = None
    limit: int = 100
    newest: bool = False


def kinds_of(kind: str) -> str:
    """The kind as a filter: `call.denied` as it is, `call`, `call.` and `call.*` as `call.`. Raises RequestError."""
    found = _KIND.fullmatch(kind)
    if found is not None:
        wanted = f"{found[1]}." if found[2] in {None, "*"} else kind
        if _meant(wanted):
            return wanted
    subjects = sorted({one.value.partition(".")[0] for one in Kind})
    raise RequestError(
        f"kind: there is no kind {kind!r}; write one such as call.denied, or one of {', '.join(subjects)}"
    )


def _meant(wanted: str) -> list[Kind]:
    return [one for one in Kind if one == wanted or (wanted.endswith(".") and one.startswith(wanted))]


def moment_us(key: str, text: str, now_us: int) -> int:
    """`2h` before now, or an ISO-8601 time (UTC where it names no zone). Raises RequestError naming `key`."""
    try:
        if _AGE.fullmatch(text):
            return now_us - int(parse_duration(text) * _US)
        parsed = datetime.fromisoformat(text)
        aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
        delta = aware - _EPOCH
    except (ValueError, OverflowError):
        raise RequestError(
            f"{key}: {text!r} is no time; write an age such as 2h, or ISO-8601 such as 2026-11-23T20:00:00Z"
        ) from None
    return (delta.days * 86_400 + delta.seconds) * _US + delta.microseconds


async def page(reader: Reader, filters: Filters, place: Page, *, max_bytes: int = PAGE_MAX_BYTES) -> r.AuditPage:
    """One page of events by rising `seq`, payloads inlined; `next_after_seq` while more follow."""
    after, before = await _bounds(reader, filters, place)
    where, given = _where(filters)
    limit = min(place.limit, PAGE_MAX_EVENTS)
    rows = await reader.rows(
        f"SELECT seq, body FROM events WHERE seq > ? AND seq < ?{where}"  # noqa: S608 - `where` is made of literals
        f" ORDER BY seq {'DESC' if place.newest else 'ASC'} LIMIT ?",
        (after, before, *given, limit + 1),
    )
    kept = await _fitting(reader, rows[:limit], max_bytes)
    payloads = await _payloads(reader, [row["seq"] for row in kept])
    events = [stored_event(row, payloads.get(row["seq"], {})) for row in sorted(kept, key=lambda row: int(row["seq"]))]
    answer: dict[str, Any] = {"events": events}
    if not place.newest and len(kept) < len(rows):
        answer["next_after_seq"] = kept[-1]["seq"]
    return answer  # type: ignore[return-value]  # events as they are stored


async def last_actions(reader: Reader, *, agent_id: str | None = None, session_id: str | None = None) -> list[r.Event]:
    """The newest events about an agent or a session, one for each call, oldest first, without payloads."""
    which, value = ("agent_id = ?", agent_id) if session_id is None else (_OF_SESSION, session_id)
    rows = await reader.rows(
        f"SELECT body, call_id FROM events WHERE {which} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - two literals
        (*[value] * which.count("?"), _LOOKED_AT),
    )
    calls: set[str] = set()
    found: list[dict[str, Any]] = []
    for row in rows:
        if row["call_id"] is not None and row["call_id"] in calls:
            continue
        calls.add(row["call_id"])
        event = orjson.loads(row["body"])
        event.pop("payloads", None)
        found.append({**event, "at": iso(event.pop("at_us"))})
        if len(found) == LAST_ACTIONS:
            break
    return found[::-1]  # type: ignore[return-value]  # events as they are stored


async def _bounds(reader: Reader, filters: Filters, place: Page) -> tuple[int, int]:
    """The exclusive range of `seq` that place and times leave."""
    newest = await reader.row("SELECT coalesce(max(seq), 0) AS seq FROM events")
    top = 0 if newest is None else int(newest["seq"])
    after, before = place.after_seq or 0, top + 1
    if place.before_seq is not None:
        before = min(before, place.before_seq)
    if filters.since_us is not None:
        after = max(after, await _first_at(reader, filters.since_us, top) - 1)
    if filters.until_us is not None:
        before = min(before, await _first_at(reader, filters.until_us, top))
    return after, before


async def _first_at(reader: Reader, at_us: int, top: int) -> int:
    """The first `seq` not before a time; `top + 1` if there is none."""
    low, high = 1, top + 1
    while low < high:
        middle = (low + high) // 2
        row = await reader.row("SELECT at_us FROM events WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,))
        if row is None or row["at_us"] >= at_us:
            high = middle
        else:
            low = middle + 1
    return low


def _where(filters: Filters) -> tuple[str, list[Any]]:
    columns = {
        "agent_id": filters.agent_id,
        "call_id": filters.call,
        "tool": filters.tool,
    }
    set_ones = {column: value for column, value in columns.items() if value is not None}
    text = "".join(f" AND {column} = ?" for column in set_ones)
    given: list[Any] = list(set_ones.values())
    if filters.session is not None:
        text += (
            f" AND seq IN (SELECT seq FROM events WHERE {_OF_SESSION} UNION ALL SELECT seq FROM events WHERE {_ALONE})"  # noqa: S608 - constants
        )
        given += [filters.session] * 3
    if filters.kind is not None:
        meant = _meant(filters.kind)
        text += f" AND kind IN ({', '.join('?' * len(meant))})"
        text += "" if any(one in COMMON for one in meant) else f" AND {RARE}"
        given += meant
    return text, given


async def _fitting(reader: Reader, rows: Sequence[sqlite3.Row], max_bytes: int) -> list[sqlite3.Row]:
    """The first of them that fit into a page; always one, so that pages advance."""
    if not rows:
        return []
    sizes = await reader.rows(
        "SELECT seq, sum(length(data)) AS bytes FROM payloads"
        " WHERE seq IN (SELECT value FROM json_each(?)) GROUP BY seq",
        (orjson.dumps([row["seq"] for row in rows]).decode(),),
    )
    heavy = {row["seq"]: int(row["bytes"]) for row in sizes}
    kept: list[sqlite3.Row] = []
    total = 0
    for row in rows:
        total += len(row["body"]) + heavy.get(row["seq"], 0)
        if kept and total > max_bytes:
            break
        kept.append(row)
    return kept


async def _payloads(reader: Reader, seqs: Sequence[int]) -> dict[int, dict[str, bytes]]:
    rows = await reader.rows(
        "SELECT seq, part, data FROM payloads WHERE seq IN (SELECT value FROM json_each(?))",
        (orjson.dumps(list(seqs)).decode(),),
    )
    found: dict[int, dict[str, bytes]] = {}
    for row in rows:
        found.setdefault(row["seq"], {})[row["part"]] = row["data"]
    return found


def described(filters: Filters) -> dict[str, Any]:
    """The filters as the record of a reading has them."""
    values = {field.name: getattr(filters, field.name) for field in fields(filters)}
    return {name: value for name, value in values.items() if value is not None}
