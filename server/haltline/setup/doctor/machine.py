"""What the doctor looks at on the machine itself: Python, SQLite, the clock."""

from __future__ import annotations

import platform
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from haltline.setup.doctor.finding import Finding

__all__ = ["clock", "python", "sqlite", "wal_reset_bug"]

_OLDEST_PYTHON = (3, 11)
_OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
_BUILT_YEAR = 2026
_FUTURE_YEARS = 20


def python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        yield Finding("python", "fail", f"Python {version}", "install Python 3.11 or newer")
    else:
        yield Finding("python", "ok", f"Python {version}")


def sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Iterator[Finding]:
    written = ".".join(map(str, version))
    if version < _OLDEST_SQLITE:
        yield Finding("sqlite", "fail", f"SQLite {written}", "Haltline needs SQLite 3.37 or newer: use a newer Python")
    elif wal_reset_bug(version):
        yield Finding(
            "sqlite",
            "warn",
            f"SQLite {written} has the WAL-reset bug: two connections that write or checkpoint at once can corrupt a file. "
            "Haltline is safe from it: one connection of one process ever writes and checkpoints, all others only read",
            "open haltline.db with no other program that writes; a Python with SQLite 3.51.3 or newer ends the matter",
        )
    else:
        yield Finding("sqlite", "ok", f"SQLite {written}")


def wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is in the range of the bug: 3.7.0 to 3.51.2, without 3.50.7, 3.44.6 and their successors."""
    release = version[:2]
    if release == (3, 50):
        return version < (3, 50, 7)
    if release == (3, 44):
        return version < (3, 44, 6)
    return (3, 7, 0) <= version < (3, 51, 3)


def clock(now_us: int, newest_us: int | None) -> Iterator[Finding]:
    """`newest_us`: the time of the newest event in the records, None if there are none."""
    now = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    shown = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    to_do = "set the machine's clock (timedatectl set-ntp true): caps and hours are counted by it"
    if not _BUILT_YEAR <= now.year <= _BUILT_YEAR + _FUTURE_YEARS:
        yield Finding("clock", "fail", f"the clock says {shown}", to_do)
    elif newest_us is not None and newest_us > now_us:
        behind_s = (newest_us - now_us) / 1_000_000
        text = f"the clock says {shown}, {behind_s:.0f} s before the newest record; time stands still here until it is reached"
        yield Finding("clock", "warn", text, to_do)
    else:
        yield Finding("clock", "ok", shown)
