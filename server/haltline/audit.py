"""The audit log: append-only events, each carrying the hash of the one before (P8, R31).

Owns the tables events and payloads. Arguments and results are payloads, kept apart and named in the event by a salted
digest, so that erasing one keeps the chain. The hash is over the bytes as stored: sorted keys, written once.
`audit_check` proves it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from haltline.clock import iso
from haltline.redact import Redactor
from haltline.stored_json import json_bytes, json_text, loads

if TYPE_CHECKING:
    import sqlite3

    from haltline.store.writer import Tx

__all__ = [
    "COMMON",
    "GENESIS",
    "RARE",
    "SALT_BYTES",
    "Audit",
    "Event",
    "Kind",
    "chain_hash",
    "payload_digest",
    "stored_event",
]

GENESIS = bytes(32)
"""The hash before the first event."""
SALT_BYTES = 16
_SALTS_AT_ONCE = 256
PAYLOAD_MAX_CHARS = 65_536
"""Longer arguments or results are stored up to about here, with their full length."""
BODY_MAX_CHARS = 65_536
_OVERLAP_CHARS = 4_096
"""Redacted together with what is kept, so that a secret across the cut is seen whole."""
_NAME_MAX_CHARS = 512
_SURROGATES = re.compile("[\ud800-\udfff]")
_COLUMNS = frozenset(
    {"seq", "at_us", "kind", "actor", "agent", "agent_id", "session", "call", "tool", "upstream", "policy", "payloads"}
)


_EVENT = (
    "INSERT INTO events (seq, at_us, kind, agent_id, session_id, call_id, tool, body, hash) VALUES (?,?,?,?,?,?,?,?,?)"
)
_PAYLOAD = "INSERT INTO payloads (seq, part, salt, data) VALUES (?,?,?,?)"

Listener = Callable[["Tx", int, str, str, Mapping[str, Any], Mapping[str, Any]], None]
"""(transaction, seq, kind, agent id, names as stored, body)"""


class Kind(StrEnum):
    """`subject.act`; what an event is about comes first, so that kinds can be filtered by prefix."""

    BROKER_STARTED = "broker.started"
    BROKER_STOPPED = "broker.stopped"
    CLOCK_STEPPED = "clock.stepped"
    CLOCK_SET_BACK = "clock.set_back"
    CLOCK_RIGHTED = "clock.righted"
    CALL_ALLOWED = "call.allowed"
    CALL_DENIED = "call.denied"
    CALL_SUCCEEDED = "call.succeeded"
    CALL_FAILED = "call.failed"
    CALL_VOIDED = "call.voided"
    CALL_IN_DOUBT = "call.in_doubt"
    CALL_RESOLVED = "call.resolved"
    CALL_LATE_ANSWER = "call.late_answer"
    CALL_INPUT_REQUIRED = "call.input_required"
    CALL_CONTINUED = "call.continued"
    CALL_REPLAYED = "call.replayed"
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
    TOOL_PINNED = "tool.pinned"
    TOOL_QUARANTINED = "tool.quarantined"
    TOOL_CHANGED = "tool.changed"
    TOOL_APPROVED = "tool.approved"
    ALERT_ACKNOWLEDGED = "alert.acknowledged"
    ALERT_RESOLVED = "alert.resolved"
    ALERT_RETRIED = "alert.retried"
    ALERT_TESTED = "alert.tested"
    ALERT_PRUNED = "alert.pruned"
    RULE_FIRED = "rule.fired"
    DRILL_STARTED = "drill.started"
    DRILL_ENDED = "drill.ended"
    DRILL_OVERDUE = "drill.overdue"


COMMON = (Kind.CALL_ALLOWED, Kind.CALL_SUCCEEDED)
"""Most events are of these kinds, so the index by kind leaves them out."""
RARE = "kind NOT IN ('call.allowed', 'call.succeeded')"
"""SQLite uses that index only where a query repeats this."""


class Event(NamedTuple):
    """What happened, before it is written.

    `body` holds what only this kind has, under our own key names: known token shapes are redacted from it. `payloads` are
    what others sent (arguments, results, errors): redacted by key name too. A payload that is a string is taken as text.
    """

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
    facts: Mapping[str, Any] | None = None
    """What a decision read: numbers alone, so nothing in it is searched for secrets."""
    payloads: Mapping[str, Any] | None = None


class _Payload(NamedTuple):
    described: dict[str, Any]
    salt: bytes
    data: bytes


def chain_hash(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + body).digest()


def payload_digest(salt: bytes, data: bytes) -> str:
    return hashlib.sha256(salt + data).hexdigest()


class Audit:
    """`append` in the writer's transaction. The head that it remembers goes back when a unit fails, and is dropped when a commit does (R15)."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.listener: Listener | None = None
        """Told of each event about an agent, in the transaction that writes it."""
        self.counter: Callable[[str, Mapping[str, Any]], None] | None = None
        """Hears every event that is committed; keeps counts alone."""
        self._head: tuple[int, bytes] | None = None
        self._salts = _random_salts()

    def forget(self) -> None:
        """Read the head again from the rows; when a commit failed."""
        self._head = None

    def append(self, tx: Tx, event: Event) -> int:
        """Write one event and its payloads; returns its sequence number. What cannot be stored as it is is noted instead."""
        before = seq, previous = self.head(tx)
        seq += 1
        payloads = {name: self._payload(value) for name, value in (event.payloads or {}).items()}
        tool, body = self._body(seq, tx.now_us, event, {name: one.described for name, one in payloads.items()})
        digest = chain_hash(previous, body)
        tx.on_rollback(lambda: self._goes_back(before))
        named = (event.agent_id, event.session, event.call, tool)
        tx.insert(_EVENT, (seq, tx.now_us, event.kind.value, *named, body, digest))
        for name, one in payloads.items():
            tx.insert(_PAYLOAD, (seq, name, one.salt, one.data))
        self._head = (seq, digest)
        if self.counter is not None:
            tx.after_commit(partial(self.counter, event.kind, event.body or {}))
        if self.listener is not None and event.agent_id is not None:
            about = {"session": event.session, "tool": tool, "upstream": event.upstream}
            said = event.body or {} if event.facts is None else {**(event.body or {}), "facts": event.facts}
            self.listener(tx, seq, event.kind, event.agent_id, about, said)
        return seq

    def _goes_back(self, head: tuple[int, bytes]) -> None:
        self._head = head

    def head(self, tx: Tx) -> tuple[int, bytes]:
        """(sequence number, hash) of the newest event."""
        if self._head is None:
            row = tx.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            self._head = (0, GENESIS) if row is None else (row[0], row[1])
        return self._head

    @staticmethod
    def newest_us(tx: Tx) -> int:
        """When the newest event was; the clock never goes behind it (R9). 0 for an empty log."""
        row = tx.execute("SELECT at_us FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return 0 if row is None else int(row[0])

    def _payload(self, value: Any) -> _Payload:
        text = value if isinstance(value, str) else json_text(value)
        if len(text) <= PAYLOAD_MAX_CHARS and self.redactor.leaves(text):
            return _stored(text, {"chars": len(text)}, next(self._salts))
        cut = len(text) > PAYLOAD_MAX_CHARS
        kept = self.redactor.text(text[: PAYLOAD_MAX_CHARS + _OVERLAP_CHARS])
        if cut:  # never up to where the text was cut before it was redacted, however much redacting shortened it
            kept = kept[: min(PAYLOAD_MAX_CHARS, max(len(kept) - _OVERLAP_CHARS, 0))]
        return _stored(kept, {"chars": len(text), "cut": True} if cut else {"chars": len(text)}, next(self._salts))

    def _body(self, seq: int, at_us: int, event: Event, payloads: Mapping[str, Any]) -> tuple[str | None, bytes]:
        """The tool's name and the event as they are stored."""
        tool = None if event.tool is None else _name(event.tool)
        fields: dict[str, Any] = {
            "seq": seq,
            "at_us": at_us,
            "kind": event.kind.value,
            "actor": _name(event.actor),
            "agent": event.agent,
            "agent_id": event.agent_id,
            "session": event.session,
            "call": event.call,
            "tool": tool,
            "upstream": event.upstream,
            "policy": event.policy,
            "facts": event.facts,
            "payloads": payloads or None,
        }
        fields = {key: value for key, value in fields.items() if value is not None}
        said = event.body or {}
        if _COLUMNS.isdisjoint(said) and self.redactor.leaves_shapes(said) and self.redactor.leaves_shapes(tool):
            body = json_bytes({**said, **fields})
            if len(body) <= BODY_MAX_CHARS:
                return tool, body
        if tool is not None:
            tool = fields["tool"] = self.redactor.shapes(tool)
        return tool, json_bytes({**self._said(said), **fields})

    def _said(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The event's own facts, without token shapes, within bounds, and none under the name of a column."""
        said = {f"said_{key}" if key in _COLUMNS else key: value for key, value in body.items()}
        text = json_text(said)
        redacted = self.redactor.shapes(text)
        if len(redacted) > BODY_MAX_CHARS:
            short = {key: value for key, value in said.items() if len(json_text(value)) <= _NAME_MAX_CHARS}
            return {**short, "cut": True, "chars": len(redacted)}
        return said if redacted == text else dict(loads(redacted))


def stored_event(row: sqlite3.Row | Mapping[str, Any], payloads: Mapping[str, bytes]) -> dict[str, Any]:
    """An event as people and programs read it: its body, its time as text, its payloads inlined where still there."""
    event: dict[str, Any] = loads(row["body"])
    event["at"] = iso(event.pop("at_us"))
    for part, described in (event.pop("payloads", None) or {}).items():
        event[part] = _inline(payloads.get(part), cut=described.get("cut", False))
    return event


def _inline(data: bytes | None, *, cut: bool) -> Any:
    if data is None:
        return "[erased]"
    text = data.decode("utf-8", "replace")
    if cut:
        return f"{text}…[cut]"
    try:
        return loads(data)
    except (ValueError, RecursionError):
        return text


def _stored(text: str, described: dict[str, Any], salt: bytes) -> _Payload:
    data = text.encode("utf-8", "surrogatepass")
    return _Payload({"sha256": payload_digest(salt, data), **described}, salt, data)


def _random_salts() -> Iterator[bytes]:
    """Many are fetched at once: each fetch lets go of the interpreter, which another thread then keeps for a while."""
    while True:
        fetched = secrets.token_bytes(SALT_BYTES * _SALTS_AT_ONCE)
        for at in range(0, len(fetched), SALT_BYTES):
            yield fetched[at : at + SALT_BYTES]


def _name(text: str) -> str:
    """A name that others chose, as it can be stored: no lone surrogates, no megabytes."""
    text = text if text.isascii() else _SURROGATES.sub("\ufffd", text)
    return text if len(text) <= _NAME_MAX_CHARS else f"{text[:_NAME_MAX_CHARS]}…"
