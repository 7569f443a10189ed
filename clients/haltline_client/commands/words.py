"""How values of the control tools read in a terminal: times, durations, money, counts, and text nobody vouches for.

Pure functions of what they are given; `now` and the time zone come in.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "age",
    "amount",
    "bare_amount",
    "caps",
    "clean",
    "count",
    "duration",
    "many",
    "moment",
    "resets",
    "size",
    "when",
]

NOTHING = "-"
# Names, tasks and messages come from agents and upstreams. Left as they are they could move the cursor, recolour or
# reorder what an operator reads (C0, C1, bidirectional controls), so each becomes a visible mark.
_UNSAFE_RANGES = (
    range(0x20), range(0x7F, 0xA0), range(0x61C, 0x61D), range(0x200B, 0x2010),
    range(0x2028, 0x202F), range(0x2060, 0x2070), range(0xFEFF, 0xFF00),
)  # fmt: skip
_UNSAFE = dict.fromkeys((code for codes in _UNSAFE_RANGES for code in codes), "\N{REPLACEMENT CHARACTER}")
_UNSAFE |= dict.fromkeys(map(ord, "\n\t\r"), " ")


def clean(text: object) -> str:
    """One line that is safe to print: control and direction characters replaced, None as a dash."""
    return NOTHING if text is None or text == "" else str(text).translate(_UNSAFE)


def amount(value: object) -> str:
    """Money as `0.50 USD`, a count as digits; what is missing as a dash."""
    if isinstance(value, dict):
        return clean(value.get("text"))
    return count(value) if isinstance(value, int) else clean(value)


def bare_amount(value: object) -> str:
    """Money without its currency, for a column that stands beside one that shows it."""
    return amount(value).split(" ")[0]


def count(value: object) -> str:
    """12345 as `12 345`."""
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else clean(value)


def many(number: int, what: str, more: str = "") -> str:
    """`1 call`, `12 345 calls`; `more` where it is not the word with an s."""
    return f"{count(number)} {what if number == 1 else more or what + 's'}"


def caps(value: Mapping[str, object] | None) -> str:
    """`task 0.50, calls 20` in the order given."""
    return ", ".join(f"{clean(name)} {amount(cap)}" for name, cap in (value or {}).items()) or "those of the tier"


def moment(stamp: object) -> datetime | None:
    """An ISO-8601 stamp as an aware time, None for what is not one."""
    try:
        parsed = datetime.fromisoformat(str(stamp))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else None


def when(stamp: object, now: datetime, *, seconds: bool = True, zone: tzinfo | None = None) -> str:
    """A stamp in the local zone: `21:04:05` today, `23 Nov 21:04` this year, else `2025-11-23 21:04`."""
    at = moment(stamp)
    if at is None:
        return clean(stamp)
    here, today = at.astimezone(zone), now.astimezone(zone)
    if here.date() == today.date():
        return f"{here:%H:%M:%S}" if seconds else f"{here:%H:%M}"
    return f"{here.day} {here:%b %H:%M}" if here.year == today.year else f"{here:%Y-%m-%d %H:%M}"


def resets(stamp: object, now: datetime, zone: tzinfo | None = None) -> str:
    """When a window is over: `00:00` within a day from now, else with its date; empty where there is none."""
    at = moment(stamp)
    if at is None:
        return ""
    soon = timedelta(0) <= at - now < timedelta(days=1)
    return f"{at.astimezone(zone):%H:%M}" if soon else when(stamp, now, seconds=False, zone=zone)


def age(stamp: object, now: datetime) -> str:
    """How long ago or until then, as `12 min`; a dash for what is not a time."""
    at = moment(stamp)
    return NOTHING if at is None else duration(abs((now - at).total_seconds()))


def duration(seconds: float) -> str:
    """`850 ms`, `12 s`, `4 min`, `3 h 20 min`, `2 d 4 h`: two units at most, rounded down."""
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    whole = int(seconds)
    for size_s, name, next_size_s, next_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size_s:
            rest = whole % size_s // next_size_s
            return f"{whole // size_s} {name}" + (f" {rest} {next_name}" if rest else "")
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"


def size(value: object) -> str:
    """Bytes as `34.1 MB` (powers of 1000)."""
    if not isinstance(value, int):
        return clean(value)
    amount_left = float(value)
    for unit in ("B", "kB", "MB"):
        if amount_left < 1000:
            return f"{amount_left:.0f} {unit}" if unit == "B" else f"{amount_left:.1f} {unit}"
        amount_left /= 1000
    return f"{amount_left:.1f} GB"
