"""The data folder: its rights, its lock, its keys. Knows nothing of what the database holds.

`haltline.db` beside `keys/` (pepper and signing key, 0600), `lock` (one broker per folder), `checkpoints.jsonl`,
`endpoints.json` while a broker runs, `local-operator.token`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from haltline.errors import StoreError

__all__ = ["DataFolder", "write_private"]

_PEPPER_BYTES = 32


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in one step, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder opened by `claim`, which holds its lock until the process ends or `release` is called."""

    path: Path
    _lock: IO[str]

    @staticmethod
    def claim(path: Path) -> DataFolder:
        """Create (0700) or check the folder and lock it.

        Raises StoreError when it cannot be written, is readable by others, belongs to someone else, or is in use.
        """
        _make_or_check(path)
        try:
            lock = (path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{path / 'lock'} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            message = f"{path} is in use by {holder}; stop that broker first, or give this one its own --data folder"
            raise StoreError(message) from error
        lock.truncate(0)
        lock.write(f"haltline, pid {os.getpid()}")
        lock.flush()
        return DataFolder(path, lock)

    def release(self) -> None:
        self._lock.close()

    @property
    def database(self) -> Path:
        return self.path / "haltline.db"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints.jsonl"

    @property
    def endpoints(self) -> Path:
        return self.path / "endpoints.json"

    @property
    def local_token(self) -> Path:
        return self.path / "local-operator.token"

    def key(self, name: str, *, may_create: bool) -> bytes:
        """A 32-byte secret kept in `keys/`. Made once; a missing one later is an error, never a new one."""
        file = self.path / "keys" / name
        try:
            value = file.read_bytes()
        except FileNotFoundError:
            if not may_create:
                message = (
                    f"{file} is missing although the database exists; restore it from a backup (nothing was changed)"
                )
                raise StoreError(message) from None
            file.parent.mkdir(mode=0o700, exist_ok=True)
            write_private(file, secrets.token_bytes(_PEPPER_BYTES))
            value = file.read_bytes()
        if len(value) != _PEPPER_BYTES:
            raise StoreError(f"{file} is not a key of {_PEPPER_BYTES} bytes; restore it from a backup")
        return value


def _make_or_check(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise StoreError(f"cannot create the data folder {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{path} is not a folder")
    if status.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to another user (uid {status.st_uid}); use a folder of your own")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise StoreError(f"{path} can be read by other users (mode {mode:04o}); run: chmod 700 {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written; check its owner and mode")
