"""The machine that a figure was taken on: cores, versions, and how long its disk takes to make a write durable."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from pathlib import Path

__all__ = ["described", "fdatasync_ms", "file_system", "load_a_core"]

WRITES = 200
BLOCK = b"x" * 4096


def fdatasync_ms(folder: Path) -> float:
    """Median of appending one page and making it durable, in this folder."""
    path = folder / "fdatasync"
    sync = getattr(os, "fdatasync", os.fsync)
    took = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(WRITES):
            begun = time.perf_counter()
            os.write(handle, BLOCK)
            sync(handle)
            took.append(time.perf_counter() - begun)
    finally:
        os.close(handle)
        path.unlink()
    return sorted(took)[WRITES // 2] * 1000


def file_system(folder: Path) -> str:
    """Its type by the mount table; empty where there is none to read."""
    best, found = "", ""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, where, kind, *_ = line.split()
        inside = folder.resolve().is_relative_to(where)
        if inside and len(where) >= len(best):
            best, found = where, kind
    return found


def load_a_core() -> float:
    """Load average of the last minute, divided by the cores."""
    return os.getloadavg()[0] / _cores()


def described(folder: Path) -> str:
    words = [
        f"{_cores()} cores ({_processor()})",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        f"fdatasync p50 {fdatasync_ms(folder):.2f} ms on {file_system(folder) or 'an unknown file system'}",
    ]
    return " · ".join(words)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
