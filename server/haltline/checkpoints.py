"""Signed checkpoints of the audit log: what a chain alone cannot show, a cut tail or a rewrite of the whole (P8).

A line {seq, hash, at, key, signature} (Ed25519) is appended with fsync to a file beside the database and, where one is
configured, to one outside. The bound: whoever holds the signing key and every copy of the checkpoints can rewrite the log;
a copy elsewhere proves it up to its own last line, and nothing after that.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from haltline.audit_check import Fault
from haltline.clock import iso
from haltline.errors import StoreError, StoreUnavailable
from haltline.store.folder import write_private

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from haltline.audit import Audit
    from haltline.store.writer import Writer

__all__ = [
    "PUBLIC_KEY_FILE",
    "Checkpoint",
    "Checkpoints",
    "Signer",
    "checkpoint_faults",
    "log_faults_since",
    "read_checkpoints",
]

EVERY_EVENTS = 1_000
EVERY_S = 60.0
LOOK_EVERY_S = 1.0
PUBLIC_KEY_FILE = "checkpoint.pub"
"""Beside the checkpoints, for whoever verifies. Keep a copy of it elsewhere."""
_PURPOSE = "haltline audit checkpoint 1"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log's head at a time, signed. `hash` and `signature` in hex, `key` the first 16 of the public key's."""

    seq: int
    hash: str
    at: str
    key: str
    signature: str

    def signed(self) -> bytes:
        """The bytes under the signature."""
        return f"{_PURPOSE}\n{self.seq}\n{self.hash}\n{self.at}\n{self.key}\n".encode()


class Signer:
    """The broker's signing key. `seed`: 32 bytes, kept in the data folder's `keys/signing`."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - 40 ms to import

        self._key: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: str = self._key.public_key().public_bytes_raw().hex()

    def sign(self, seq: int, head: bytes, at_us: int) -> Checkpoint:
        unsigned = Checkpoint(seq, head.hex(), iso(at_us), self.public_key[:16], "")
        signature = self._key.sign(unsigned.signed()).hex()
        return Checkpoint(unsigned.seq, unsigned.hash, unsigned.at, unsigned.key, signature)


class Checkpoints:
    """Writes one whenever the log grew by `EVERY_EVENTS`, or grew at all within `EVERY_S`, and when asked (at stop)."""

    def __init__(self, writer: Writer, audit: Audit, seed: bytes, file: Path, *, outside: Path | None = None) -> None:
        self._writer = writer
        self._audit = audit
        self._seed = seed
        self._signer: Signer | None = None
        self._files = (file,) if outside is None else (file, outside)
        self._last_seq = 0
        self._last_us = 0
        self.failure: str | None = None
        """Why the newest one could not be written everywhere, until one is. The log itself goes on."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> Checkpoint | None:
        """Write one if it is time for one. A store that cannot be asked is somebody else's alarm."""
        try:
            seq, head, now_us = await self._ask()
        except StoreUnavailable:
            return None
        grown, waited_us = seq - self._last_seq, now_us - self._last_us
        if grown >= EVERY_EVENTS or (grown and waited_us >= EVERY_S * 1_000_000):
            return await self._write(seq, head, now_us)
        return None

    async def write(self) -> Checkpoint | None:
        """Write one now, unless the newest event has one. Raises StoreUnavailable."""
        seq, head, now_us = await self._ask()
        return await self._write(seq, head, now_us) if seq != self._last_seq else None

    async def _ask(self) -> tuple[int, bytes, int]:
        return await self._writer.run(lambda tx: (*self._audit.head(tx), tx.now_us))

    async def _write(self, seq: int, head: bytes, now_us: int) -> Checkpoint:
        if self._signer is None:
            self._signer = Signer(self._seed)
            public = f"{self._signer.public_key}\n".encode()
            await _said(write_private, self._files[0].with_name(PUBLIC_KEY_FILE), public)
        checkpoint = self._signer.sign(seq, head, now_us)
        failures = [said for file in self._files if (said := await _said(_append, file, checkpoint)) is not None]
        self._last_us = now_us
        self.failure = "; ".join(failures) or None
        if self.failure is None:
            self._last_seq = seq
        else:
            log.error("checkpoint_not_written", seq=seq, error=self.failure)
        return checkpoint


async def _said(write: Callable[[Path, Any], None], file: Path, what: object) -> str | None:
    """Why it could not be written; None: it was."""
    try:
        await anyio.to_thread.run_sync(write, file, what)
    except OSError as error:
        return f"{file}: {error.strerror}"
    return None


def _append(file: Path, checkpoint: Checkpoint) -> None:
    line = json.dumps(asdict(checkpoint), separators=(",", ":")) + "\n"
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(handle).st_size
        torn = size and os.pread(handle, 1, size - 1) != b"\n"  # a crash in the middle of the line before
        os.write(handle, (("\n" if torn else "") + line).encode())
        os.fsync(handle)
    finally:
        os.close(handle)


# proving


def read_checkpoints(file: Path) -> Iterator[Checkpoint | Fault]:
    """Every line of a file of checkpoints; a line that is none is a fault, a torn last one is not."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from error
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            yield Checkpoint(int(fields["seq"]), *(str(fields[name]) for name in ("hash", "at", "key", "signature")))
        except (ValueError, KeyError, TypeError, RecursionError):
            if number < len(lines):
                yield Fault(None, f"{file.name}, line {number}: not a checkpoint")


def checkpoint_faults(
    connection: sqlite3.Connection, checkpoints: Sequence[Checkpoint], public_key: str
) -> Iterator[Fault]:
    """Where the log differs from what was signed: the tail was cut, or everything up to there was rewritten."""
    verifier = _verifier(public_key)
    good = 0
    for checkpoint in checkpoints:
        if not _is_signed(verifier, checkpoint):
            yield Fault(checkpoint.seq, f"the checkpoint of event {checkpoint.seq} is not signed by {public_key[:16]}…")
            continue
        row = connection.execute("SELECT hash FROM events WHERE seq = ?", (checkpoint.seq,)).fetchone()
        if row is None:
            newest = connection.execute("SELECT max(seq) FROM events").fetchone()[0] or 0
            yield Fault(
                min(newest, checkpoint.seq - 1) + 1,
                f"events are missing: {checkpoint.seq} was signed at {checkpoint.at}, the log ends with {newest}",
            )
        elif row[0].hex() != checkpoint.hash:
            yield Fault(
                good + 1,
                f"the log was rewritten: event {checkpoint.seq} is not the one signed at {checkpoint.at}; "
                f"the first changed one is after {good}",
            )
        else:
            good = max(good, checkpoint.seq)


def log_faults_since(connection: sqlite3.Connection, file: Path, public_key: str) -> list[Fault]:
    """A quick look at start: whether the newest checkpoint in `file` is still what the log says. None there: no fault."""
    newest = [one for one in read_checkpoints(file) if isinstance(one, Checkpoint)][-1:] if file.exists() else []
    return list(checkpoint_faults(connection, newest, public_key))


def _verifier(public_key: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - 40 ms to import

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    except ValueError as error:
        raise StoreError("that is not a public key of checkpoints: 64 hexadecimal digits") from error


def _is_signed(verifier: Ed25519PublicKey, checkpoint: Checkpoint) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        verifier.verify(bytes.fromhex(checkpoint.signature), checkpoint.signed())
    except (InvalidSignature, ValueError):
        return False
    return True
