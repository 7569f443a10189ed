"""The audit log: append-only events, each carrying the hash of the one before (P8, R31), and how it is verified.

Owns the tables events and payloads. Arguments and results are payloads, kept apart and named in the event by a salted
digest, so that erasing one keeps the chain. The hash is over the bytes as stored: sorted keys, written once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from haltline.clock import iso
from haltline.redact import Redactor

if TYPE_CHECKING:
    import sqlite3

    from haltline.store.writer import Tx

__all__ = ["GENESIS", "Audit", "Event", "Kind", "chain_hash", "stored_event"]

GENESIS = bytes(32)
"""The hash before the first event."""
_SALT_BYTES = 16
PAYLOAD_MAX_CHARS = 65_536
"""Longer arguments or results are stored up to here, with their full length and the digest of the whole."""
_OVERLAP_CHARS = 4_096
"""Redacted together with what is kept, so that a secret across the cut is seen whole."""


class Kind(StrEnum):
    """`subject.act`; what an event is about comes first, so that kinds can be filtered by prefix."""

    BROKER_STARTED = "broker.started"
    BROKER_STOPPED = "broker.stopped"
    CALL_ALLOWED = "call.allowed"
    CALL_DENIED = "call.denied"
    CALL_SUCCEEDED = "call.succeeded"
    CALL_FAILED = "call.failed"
    CALL_VOIDED = "call.voided"
    CALL_IN_DOUBT = "call.in_doubt"
    CALL_RESOLVED = "call.resolved"
    AGENT_ADDED = "agent.added"
    AGENT_HALTED = "agent.halted"
    AGENT_RESUMED = "agent.resumed"
    AGENT_REVOKED = "agent.revoked"
    AGENT_REISSUED = "agent.reissued"
    SESSION_OPENED = "session.opened"
    SESSION_HALTED = "session.halted"
    SESSION_RESUMED = "session.resumed"
    SESSION_REVOKED = "session.revoked"
    EVERYTHING_HALTED = "everything.halted"
    EVERYTHING_RESUMED = "everything.resumed"
    OPERATOR_ADDED = "operator.added"
    OPERATOR_ROTATED = "operator.rotated"
    OPERATOR_REVOKED = "operator.revoked"
    CONTROL_REFUSED = "control.refused"
    CONTROL_READ = "control.read"
    CREDENTIAL_REFUSED = "credential.refused"
    POLICY_LOADED = "policy.loaded"
    POLICY_REJECTED = "policy.rejected"
    TOOLS_IMPORTED = "tools.imported"


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, before it is written. `body` holds what only this kind has; payload values are plain JSON."""

    kind: Kind
    actor: str
    """`agent:HANDLE`, `operator:NAME`, `broker`, or `unknown:ADDRESS`."""
    agent: str | None = None
    agent_id: str | None = None
    session: str | None = None
    call: str | None = None
    tool: str | None = None
    upstream: str | None = None
    policy: str | None = None
    body: Mapping[str, Any] | None = None
    payloads: Mapping[str, Any] | None = None


def chain_hash(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + body).digest()


class Audit:
    """`append` in the writer's transaction. What is remembered (the head) advances only with the unit (R15)."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self._head: tuple[int, bytes] | None = None
        self._pending: tuple[Tx, tuple[int, bytes]] | None = None

    def forget(self) -> None:
        self._head = self._pending = None

    def append(self, tx: Tx, event: Event) -> int:
        """Write one event and its payloads; returns its sequence number."""
        seq, previous = self._head_in(tx)
        seq += 1
        parts = {name: self._payload(value) for name, value in (event.payloads or {}).items()}
        body = _body(seq, tx.now_us, event, {name: described for name, (described, _, _) in parts.items()})
        digest = chain_hash(previous, body)
        tx.execute(
            "INSERT INTO events (seq, at_us, kind, agent_id, session_id, call_id, tool, body, hash) VALUES (?,?,?,?,?,?,?,?,?)",
            (seq, tx.now_us, event.kind, event.agent_id, event.session, event.call, event.tool, body, digest),
        )
        for name, (_, salt, data) in parts.items():
            tx.execute("INSERT INTO payloads (seq, part, salt, data) VALUES (?,?,?,?)", (seq, name, salt, data))
        self._advance(tx, seq, digest)
        return seq

    def head(self, tx: Tx) -> tuple[int, bytes]:
        """(sequence number, hash) of the newest event."""
        return self._head_in(tx)

    def _head_in(self, tx: Tx) -> tuple[int, bytes]:
        if self._pending is not None and self._pending[0] is tx:
            return self._pending[1]
        if self._head is None:
            row = tx.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            self._head = (0, GENESIS) if row is None else (row[0], row[1])
        return self._head

    def _advance(self, tx: Tx, seq: int, digest: bytes) -> None:
        first = self._pending is None or self._pending[0] is not tx
        self._pending = (tx, (seq, digest))
        if first:
            tx.on_release(self._keep)

    def _keep(self) -> None:
        assert self._pending is not None
        self._head = self._pending[1]
        self._pending = None

    def _payload(self, value: Any) -> tuple[dict[str, Any], bytes, bytes]:
        text = value if isinstance(value, str) else json_text(value)
        kept = self.redactor.text(text[: PAYLOAD_MAX_CHARS + _OVERLAP_CHARS])
        cut = len(text) > PAYLOAD_MAX_CHARS
        data = (kept[:PAYLOAD_MAX_CHARS] if cut else kept).encode("utf-8", "surrogatepass")
        salt = secrets.token_bytes(_SALT_BYTES)
        described: dict[str, Any] = {"sha256": hashlib.sha256(salt + data).hexdigest(), "chars": len(text)}
        if cut:
            described["cut"] = True
        return described, salt, data


def json_text(value: Any) -> str:
    """JSON with sorted keys; falls back to the standard library where orjson will not (integers over 64 bits)."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        import json  # noqa: PLC0415  # the rare case only

        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _body(seq: int, at_us: int, event: Event, payloads: Mapping[str, Any]) -> bytes:
    fields: dict[str, Any] = {
        "seq": seq,
        "at_us": at_us,
        "kind": event.kind.value,
        "actor": event.actor,
        "agent": event.agent,
        "agent_id": event.agent_id,
        "session": event.session,
        "call": event.call,
        "tool": event.tool,
        "upstream": event.upstream,
        "policy": event.policy,
        "payloads": payloads or None,
    }
    body = {key: value for key, value in fields.items() if value is not None}
    return json_text({**(event.body or {}), **body}).encode()


def stored_event(row: sqlite3.Row | Mapping[str, Any], payloads: Mapping[str, bytes]) -> dict[str, Any]:
    """An event as people and programs read it: its body, its time as text, its payloads inlined where still there."""
    event: dict[str, Any] = orjson.loads(row["body"])
    event["at"] = iso(event.pop("at_us"))
    for part, described in (event.pop("payloads", None) or {}).items():
        event[part] = _inline(payloads.get(part), cut=described.get("cut", False))
    return event


def _inline(data: bytes | None, *, cut: bool) -> Any:
    if data is None:
        return "[erased]"
    if cut:
        return data.decode("utf-8", "replace") + "…[cut]"
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where the log does not hold: the first bad sequence number says where to look."""

    seq: int
    what: str


def verify_chain(connection: sqlite3.Connection, since_seq: int = 0, since_hash: bytes = GENESIS) -> Iterator[Fault | tuple[int, bytes]]:
    """Walk the chain in order, yielding each fault; ends by yielding the head (seq, hash) that was reached."""
    previous, expected_seq = since_hash, since_seq
    rows = connection.execute(
        "SELECT seq, at_us, kind, agent_id, session_id, call_id, tool, body, hash FROM events WHERE seq > ? ORDER BY seq",
        (since_seq,),
    )
    for seq, at_us, kind, agent_id, session_id, call_id, tool, body, digest in rows:
        expected_seq += 1
        if seq != expected_seq:
            yield Fault(expected_seq, f"event {expected_seq} is missing (the next there is {seq})")
            expected_seq = seq
        if chain_hash(previous, body) != digest:
            yield Fault(seq, f"event {seq} was changed, or one before it was removed: its hash does not follow")
        said = orjson.loads(body)
        columns = (at_us, kind, agent_id, session_id, call_id, tool)
        names = ("at_us", "kind", "agent_id", "session", "call", "tool")
        if said.get("seq") != seq or any(said.get(name) != value for name, value in zip(names, columns, strict=True)):
            yield Fault(seq, f"event {seq}: its columns do not say what its body says")
        yield from _verify_payloads(connection, seq, said.get("payloads") or {})
        previous = digest
    yield expected_seq, previous


def _verify_payloads(connection: sqlite3.Connection, seq: int, described: Mapping[str, Any]) -> Iterator[Fault]:
    """An erased payload is no fault; a changed or an added one is."""
    for part, salt, data in connection.execute("SELECT part, salt, data FROM payloads WHERE seq = ?", (seq,)):
        if part not in described:
            yield Fault(seq, f"event {seq}: a payload {part!r} was added")
        elif hashlib.sha256(salt + data).hexdigest() != described[part]["sha256"]:
            yield Fault(seq, f"event {seq}: its {part} were changed")
