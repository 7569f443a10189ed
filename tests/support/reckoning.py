"""What each cap of a session stands at, reckoned from the audit events and the clock alone: nothing of the ledger, of its
accounts or of the policy's arithmetic is used, so that a test can hold every surface against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

__all__ = ["Stand", "micros", "reckoned", "stands_of", "stated"]

HOUR_US = 3_600_000_000
ENDS = {"call.succeeded", "call.failed", "call.voided", "call.resolved"}
MONEY = {"per_call", "task", "hour", "day"}


class Stand(NamedTuple):
    """One cap in integers, as every surface must tell it."""

    limit: int
    settled: int | None
    held: int | None
    in_doubt: int | None
    remaining: int | None
    resets_at: str | None


@dataclass
class _Call:
    session: str
    amount: int
    at_us: int
    state: str = "held"
    charged: int = 0


def micros(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0")[:6] or 0)


def stated(at_us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%SZ")


def reckoned(
    events: Iterable[Mapping[str, Any]], caps: Mapping[str, Any], session: str, now_us: int, zone: str
) -> dict[str, Stand]:
    """By cap, for a session of the one agent there is. `caps`: as the policy writes them, and the session's own."""
    said = list(events)
    calls, below = _calls(said), _family(said, session)
    added = _added(said, now_us)
    mine = [one for one in calls if one.session in below]
    midnight_us, next_us = _day(now_us, zone)
    hour = [one for one in calls if one.at_us > now_us - HOUR_US]
    day = [one for one in calls if midnight_us <= one.at_us < next_us]
    counting = [one.at_us for one in hour if _settled([one]) or _held([one])]
    found: dict[str, Stand] = {}
    for cap, written in caps.items():
        limit = (micros(written) if cap in MONEY else int(str(written).partition("/")[0])) + added.get(cap, 0)
        if cap == "per_call":
            found[cap] = Stand(limit, None, None, None, None, None)
        elif cap == "task":
            found[cap] = _stand(limit, _settled(mine), _held(mine), _doubted(mine), None)
        elif cap == "hour":
            resets = stated(min(counting) + HOUR_US) if counting else None
            found[cap] = _stand(limit, _settled(hour), _held(hour), _doubted(calls), resets)
        elif cap == "day":
            found[cap] = _stand(limit, _settled(day), _held(day), _doubted(calls), stated(next_us))
        elif cap == "calls":
            states = [one.state for one in mine]
            counted = (states.count("settled"), states.count("held"), states.count("in_doubt"))
            found[cap] = _stand(limit, *counted, None)
        elif cap == "rate":
            resets = stated(min(one.at_us for one in hour) + HOUR_US) if hour else None
            found[cap] = Stand(limit, len(hour), None, None, limit - len(hour), resets)
        else:
            running = sum(one.state == "held" for one in calls)
            found[cap] = Stand(limit, 0, running, None, limit - running, None)
    return found


def _stand(limit: int, settled: int, held: int, in_doubt: int, resets: str | None) -> Stand:
    return Stand(limit, settled, held, in_doubt, limit - settled - held - in_doubt, resets)


def _settled(calls: Iterable[_Call]) -> int:
    return sum(one.charged for one in calls if one.state == "settled")


def _held(calls: Iterable[_Call]) -> int:
    return sum(one.amount for one in calls if one.state == "held")


def _doubted(calls: Iterable[_Call]) -> int:
    """In doubt counts in every current window, whenever it was admitted (R1)."""
    return sum(one.amount for one in calls if one.state == "in_doubt")


def _calls(events: Iterable[Mapping[str, Any]]) -> list[_Call]:
    calls: dict[str, _Call] = {}
    for one in events:
        kind, call = one["kind"], one.get("call")
        if kind == "call.allowed":
            calls[str(call)] = _Call(one["session"], one["amount_micros"], one["at_us"])
        elif kind == "call.in_doubt":
            calls[str(call)].state = "in_doubt"
        elif kind in ENDS:
            void = kind == "call.voided" or one.get("outcome") == "void"
            calls[str(call)].state = "voided" if void else "settled"
            calls[str(call)].charged = 0 if void else one["charged_micros"]
    return list(calls.values())


def _family(events: Iterable[Mapping[str, Any]], session: str) -> set[str]:
    """It and all sessions below it; a child is opened after its parent."""
    found = {session}
    for one in events:
        if one["kind"] == "session.opened" and one.get("parent") in found:
            found.add(one["session"])
    return found


def _added(events: Iterable[Mapping[str, Any]], now_us: int) -> dict[str, int]:
    added: dict[str, int] = {}
    for one in events:
        if one["kind"].endswith(".resumed") and one.get("allowance") and one["until_us"] > now_us:
            added[one["cap"]] = added.get(one["cap"], 0) + one["allowance"]
    return added


def _day(now_us: int, zone: str) -> tuple[int, int]:
    here = datetime.fromtimestamp(now_us / 1_000_000, UTC).astimezone(ZoneInfo(zone)).date()
    first, after = (
        datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) for day in (here, here + timedelta(days=1))
    )
    return int(first.timestamp()) * 1_000_000, int(after.timestamp()) * 1_000_000


def stands_of(balances: Iterable[Mapping[str, Any]], whose: set[str | None]) -> dict[str, Stand]:
    """What a control tool's `balances` say, of these sessions (None: the agent)."""

    def number(value: Any) -> Any:
        return value["micros"] if isinstance(value, dict) else value

    return {
        one["cap"]: Stand(
            int(str(number(one["limit"])).partition("/")[0]),
            *(number(one[name]) for name in ("settled", "held", "in_doubt", "remaining")),
            one["resets_at"],
        )
        for one in balances
        if one["session"] in whose
    }
