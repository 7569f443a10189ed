"""What the doctor looks at in the data folder: rights, keys, space, speed of the storage, the database.

Reads, and writes one small file to time the storage, which is taken away again. Safe beside a running broker: the
database is opened read-only, the lock is not touched.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from haltline.errors import StoreError
from haltline.setup.doctor.finding import Finding
from haltline.store.database import connect_reader, migrations
from haltline_client.commands.words import many

__all__ = ["alerts", "database", "folder", "keys", "newest_event_us", "space", "storage"]

_KEYS = ("pepper", "signing")
_SPACE_FAIL = 100 * 1024 * 1024
_SPACE_WARN = 1024 * 1024 * 1024
_SYNCS = 20
_SYNC_SLOW_MS = 20.0
_CHECK_LONGEST_S = 20.0
_ALERT_LATE_S = 60.0
_SHARED_FILES = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}
_IN_MEMORY = {"tmpfs", "ramfs"}


def folder(data: Path) -> Iterator[Finding]:
    try:
        status = data.stat()
    except FileNotFoundError:
        parent = _existing(data)
        if os.access(parent, os.W_OK | os.X_OK) and parent.is_dir():
            yield Finding("data folder", "ok", f"{data} is made at the first start")
        else:
            yield Finding("data folder", "fail", f"{data} cannot be made", f"make it, or let {parent} be written")
        return
    except OSError as error:
        yield Finding("data folder", "fail", f"{data}: {error.strerror}", "name a folder with `data:` or --data")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Finding("data folder", "fail", f"{data} is not a folder", "name another with `data:` or --data")
    elif status.st_uid != os.geteuid():
        to_do = "run this as the broker's user, or use a folder of your own"
        yield Finding("data folder", "fail", f"{data} belongs to another user (uid {status.st_uid})", to_do)
    elif status.st_mode & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        yield Finding("data folder", "fail", f"{data} is open to other users (mode {mode})", f"chmod 700 {data}")
    elif not os.access(data, os.W_OK | os.X_OK):
        yield Finding("data folder", "fail", f"{data} cannot be written", f"chmod 700 {data}")
    else:
        yield Finding("data folder", "ok", f"{data}, for its owner alone")


def keys(data: Path) -> Iterator[Finding]:
    if not (data / "haltline.db").exists():
        yield Finding("keys", "ok", "made at the first start")
        return
    for name in _KEYS:
        file = data / "keys" / name
        try:
            mode = file.stat().st_mode
        except OSError as error:
            to_do = "restore it from a backup; without it no credential can be checked and nothing signed"
            yield Finding("keys", "fail", f"{file}: {error.strerror}", to_do)
            continue
        if mode & 0o077:
            yield Finding("keys", "fail", f"{file} is open to other users", f"chmod 600 {file}")
        else:
            yield Finding("keys", "ok", f"{name}: present")


def space(data: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(data)).free
    shown = f"{free / 1024**3:.1f} GiB free"
    to_do = "make room: when the disk is full every call is refused"
    if free < _SPACE_WARN:
        yield Finding("disk space", "fail" if free < _SPACE_FAIL else "warn", shown, to_do)
    else:
        yield Finding("disk space", "ok", shown)


def storage(data: Path) -> Iterator[Finding]:
    """What kind of file system it is, and how long it takes until a write is safe: each decision waits for one."""
    place = _existing(data)
    kind = _file_system(place)
    if kind in _SHARED_FILES:
        to_do = "keep the data folder on a disk of this machine: SQLite's log needs shared memory and honest locks"
        yield Finding("storage", "fail", f"{place} is on {kind}, a file system over the network", to_do)
    if kind in _IN_MEMORY:
        to_do = "keep the data folder on a disk"
        yield Finding("storage", "warn", f"{place} is on {kind}: everything is lost when the machine stops", to_do)
    try:
        took_ms = _sync_ms(place)
    except OSError as error:
        yield Finding("storage", "fail", f"nothing can be written to {place}: {error.strerror}", "let it be written")
        return
    shown = f"a write is safe after {took_ms:.2f} ms (median of {_SYNCS})"
    if took_ms > _SYNC_SLOW_MS:
        yield Finding("storage", "warn", shown, "each decision waits this long: use a faster disk")
    else:
        yield Finding("storage", "ok", shown)


def database(data: Path) -> Iterator[Finding]:
    file = data / "haltline.db"
    if not file.exists():
        yield Finding("database", "ok", "made at the first start")
        return
    try:
        with closing(connect_reader(file)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            said = _quick_check(connection)
    except (StoreError, sqlite3.Error) as error:
        yield Finding("database", "fail", str(error), "stop the broker and restore haltline.db from a backup")
        return
    if said is None:
        text = f"{file} is too large to check in {_CHECK_LONGEST_S:.0f} s; no error so far"
        yield Finding("database", "warn", text, "run haltline audit verify when there is time")
    elif said != "ok":
        to_do = "stop the broker, keep a copy, and restore haltline.db from a backup"
        yield Finding("database", "fail", f"{file} is damaged: {said}", to_do)
    elif version < max(migrations()):
        yield Finding(
            "database", "ok", f"schema {version}; the next start makes a backup and leads it to {max(migrations())}"
        )
    else:
        yield Finding("database", "ok", f"schema {version}, sound, {_size(file.stat().st_size)}")


def alerts(data: Path) -> Iterator[Finding]:
    """What people were not told yet, or never will be, and what nobody has in hand."""
    file = data / "haltline.db"
    if not file.exists():
        return
    try:
        with closing(connect_reader(file)) as connection:
            waiting, oldest_us, parked = connection.execute(_DELIVERIES).fetchone()
            unseen = connection.execute("SELECT count(*) FROM episodes WHERE state = 'open'").fetchone()[0]
    except (StoreError, sqlite3.Error):
        return  # what is wrong with the database is said by the check of the database, and an older one has no episodes
    if parked:
        to_do = "see haltline alerts list, put the channel right, then haltline alerts retry ID"
        yield Finding("alerts", "warn", f"{many(parked, 'delivery was', 'deliveries were')} given up", to_do)
    if waiting:
        age_s = max(0.0, time.time() - oldest_us / 1_000_000)
        text = f"{many(waiting, 'delivery waits', 'deliveries wait')}, the oldest for {age_s:.0f} s"
        yield Finding(
            "alerts",
            "warn" if age_s > _ALERT_LATE_S else "ok",
            text,
            "is the broker running, and the channel there? haltline alerts list",
        )
    if unseen:
        to_do = "haltline alerts list --live; haltline alerts ack EPISODE"
        yield Finding("alerts", "warn", f"{many(unseen, 'episode')} that nobody acknowledged", to_do)
    if not (parked or waiting or unseen):
        yield Finding("alerts", "ok", "all delivered and seen")


def newest_event_us(data: Path) -> int | None:
    """The time of the newest event; None where there is none, or nothing can be read (`database` says why)."""
    try:
        with closing(connect_reader(data / "haltline.db")) as connection:
            row = connection.execute("SELECT at_us FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    except (StoreError, sqlite3.Error):
        return None
    return None if row is None else int(row[0])


def _quick_check(connection: sqlite3.Connection) -> str | None:
    until_s = time.monotonic() + _CHECK_LONGEST_S
    connection.set_progress_handler(lambda: time.monotonic() > until_s, 100_000)
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _sync_ms(place: Path) -> float:
    took_s = []
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        for _ in range(_SYNCS):
            start_s = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took_s.append(time.perf_counter() - start_s)
    return statistics.median(took_s) * 1000


def _file_system(place: Path) -> str:
    """The type of the file system that the place is on, empty where the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    here, best, kind = place.resolve(), Path(), ""
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        at = Path(mounted.replace("\\040", " "))
        # Of two mounts on one place the later one is what is seen.
        if here.is_relative_to(at) and len(at.parts) >= len(best.parts):
            best, kind = at, found
    return kind


_DELIVERIES = """
    SELECT coalesce(sum(d.state = 'pending'), 0), min(CASE WHEN d.state = 'pending' THEN a.at_us END),
        coalesce(sum(d.state = 'parked'), 0)
    FROM deliveries d JOIN alerts a ON a.id = d.alert_id WHERE d.state <> 'delivered'
"""


def _size(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 1024**2 else f"{size // 1024} KiB"
