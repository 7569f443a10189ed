"""The log: what is stored of an event, that nothing can stop it, and that what was done to it afterwards shows."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haltline.audit import GENESIS, Audit, Event, Kind, chain_hash, payload_digest, stored_event
from haltline.audit_check import LogWalk, damage
from haltline.credentials import issue
from haltline.redact import Redactor
from haltline.store.writer import Tx
from support.records import Store


class Log:
    def __init__(self, folder: Path) -> None:
        self.audit = Audit(Redactor(["internal_ref"]))
        self.store = Store(folder, on_lost=(self.audit.forget,))

    def append(self, kind: Kind = Kind.CALL_DENIED, **fields: Any) -> int:
        return self.store.run(lambda tx: self.audit.append(tx, Event(kind, "agent:a", **fields)))

    def body(self, seq: int) -> dict[str, Any]:
        return json.loads(self.store.connection.execute("SELECT body FROM events WHERE seq = ?", (seq,)).fetchone()[0])

    def read(self, seq: int) -> dict[str, Any]:
        self.store.connection.row_factory = sqlite3.Row
        row = self.store.connection.execute("SELECT * FROM events WHERE seq = ?", (seq,)).fetchone()
        parts = self.store.connection.execute("SELECT part, data FROM payloads WHERE seq = ?", (seq,)).fetchall()
        self.store.connection.row_factory = None
        return stored_event(row, {part["part"]: part["data"] for part in parts})

    def stored(self) -> bytes:
        """Everything in the files."""
        self.store.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return b"".join(file.read_bytes() for file in self.store.path.parent.glob("haltline.db*"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.store.close()


def walked(connection: sqlite3.Connection) -> tuple[list[Any], LogWalk]:
    walk = LogWalk(connection)
    return list(walk.faults()), walk


@pytest.mark.promise("P8", "R31")
def test_each_event_carries_the_hash_of_the_one_before_from_the_first_on(log: Log) -> None:
    for number in range(20):
        assert log.append(tool=f"t{number}", payloads={"arguments": {"n": number}}) == number + 1
    previous = GENESIS
    for body, digest in log.store.connection.execute("SELECT body, hash FROM events ORDER BY seq"):
        assert chain_hash(previous, body) == digest
        previous = digest
    faults, walk = walked(log.store.connection)
    assert (faults, walk.seq, walk.head) == ([], 20, previous)


def test_an_event_reads_as_it_was_said(log: Log) -> None:
    arguments = {"to": "ACME", "amount": "0.05", "n": [1, 2.5, None, True], "big": 2**80}
    seq = log.append(
        agent="a", agent_id="agt_1", session="ses_1", call="call_1", tool="up__t", upstream="up", policy="p_1",
        body={"decision": "deny", "reasons": [{"code": "scope.tool", "text": "no"}]},
        payloads={"arguments": arguments, "result": "plain text", "error": {}},
    )  # fmt: skip
    assert log.read(seq) == {
        "seq": 1, "at": "2026-09-21T12:00:00.000000Z", "kind": "call.denied", "actor": "agent:a", "agent": "a",
        "agent_id": "agt_1", "session": "ses_1", "call": "call_1", "tool": "up__t", "upstream": "up", "policy": "p_1",
        "decision": "deny", "reasons": [{"code": "scope.tool", "text": "no"}],
        "arguments": arguments, "result": "plain text", "error": {},
    }  # fmt: skip


@pytest.mark.promise("R15")
def test_a_unit_or_a_batch_that_fails_leaves_no_gap(log: Log) -> None:
    log.append()

    def breaks(tx: Tx) -> None:
        log.audit.append(tx, Event(Kind.AGENT_ADDED, "x"))
        log.audit.append(tx, Event(Kind.AGENT_ADDED, "y"))
        raise RuntimeError

    with log.store.batch() as unit:
        unit(lambda tx: log.audit.append(tx, Event(Kind.AGENT_ADDED, "z")))
        with pytest.raises(RuntimeError):
            unit(breaks)
        assert unit(lambda tx: log.audit.append(tx, Event(Kind.AGENT_ADDED, "z"))) == 3
    with log.store.batch(lost=True) as unit:
        assert unit(lambda tx: log.audit.append(tx, Event(Kind.AGENT_ADDED, "z"))) == 4
    assert log.append() == 4
    assert walked(log.store.connection)[0] == []
    assert log.store.run(log.audit.head)[0] == 4


def test_the_newest_time_is_the_newest_events(log: Log) -> None:
    assert log.store.run(log.audit.newest_us) == 0
    log.append()
    log.store.now_us += 5
    log.append()
    assert log.store.run(log.audit.newest_us) == log.store.now_us


# what cannot stop it


def nested(depth: int) -> Any:
    value: Any = "core"
    for _ in range(depth):
        value = {"a": [value]}
    return value


class Stubborn:
    def __str__(self) -> str:
        raise RuntimeError


ODD: dict[str, Any] = {
    "lone surrogate": "\ud800 and \udfff",
    "lone surrogate inside": {"\ud800": ["\udc00"]},
    "not a number": float("nan"),
    "infinite inside": {"a": [float("inf"), float("-inf"), 2**70]},
    "long integer": 10**40,
    "endless integer": 10**6000,
    "NUL": "a\x00b",
    "control characters": "".join(map(chr, range(32))),
    "100 deep": nested(50),
    "100,000 deep": nested(50_000),
    "bytes": {"raw": b"\xff\xfe"},
    "keys that are no strings": {1: "a", None: "b", (1, 2): "c"},
    "an object": {"x": object(), "y": Stubborn()},
    "a set": {"x": {1}},
    "empty": "",
    "nothing": None,
    "words in every script": "é ✓ 漢字 🎉",
    "numbers as text": "0123",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("place", ["payload", "body", "text"])
def test_nothing_that_is_said_can_stop_an_event(log: Log, name: str, place: str) -> None:
    value = ODD[name]
    text = value if isinstance(value, str) else repr(type(value))
    fields: dict[str, Any] = {
        "payload": {"payloads": {"arguments": value, "result": {"wrapped": value}}},
        "body": {"body": {"error": value, "kept": 1}},
        "text": {"tool": text, "payloads": {"error": text}},
    }[place]
    seq = log.append(call="call_1", **fields)
    log.append()
    assert walked(log.store.connection)[0] == []
    event = log.read(seq)
    json.dumps(event, ensure_ascii=False).encode()  # and it can be sent to whoever asks for it
    if place == "body":
        assert event["kept"] == 1


def test_a_body_cannot_speak_in_the_name_of_a_column(log: Log) -> None:
    seq = log.append(call="call_1", body={"agent_id": "agt_other", "seq": 99, "at_us": 1, "kind": "x", "reason": "r"})
    assert walked(log.store.connection)[0] == []
    event = log.read(seq)
    assert (event["seq"], event["said_seq"], event["said_agent_id"], event["reason"]) == (seq, 99, "agt_other", "r")


def test_a_body_beyond_all_bounds_keeps_what_is_short(log: Log) -> None:
    seq = log.append(body={"code": "scope.tool", "text": "x" * 200_000})
    event = log.read(seq)
    assert (event["code"], event["cut"]) == ("scope.tool", True)
    assert "text" not in event
    assert log.store.connection.execute("SELECT length(body) FROM events").fetchone()[0] < 2_000


def test_a_name_of_a_megabyte_is_cut(log: Log) -> None:
    seq = log.append(tool="t" * 1_000_000)
    assert len(log.read(seq)["tool"]) == 513
    assert walked(log.store.connection)[0] == []


def test_a_result_of_ten_mebibytes_is_kept_up_to_its_cap_with_its_full_length(log: Log) -> None:
    result = {"text": "0123456789abcdef" * 655_360}
    start = time.perf_counter()
    seq = log.append(payloads={"result": result})
    took_s = time.perf_counter() - start
    assert log.body(seq)["payloads"]["result"]["chars"] == 10 * 1024 * 1024 + 11
    assert log.body(seq)["payloads"]["result"]["cut"] is True
    assert 60_000 < len(log.read(seq)["result"]) <= 65_536 + len("…[cut]")
    assert took_s < 2


@pytest.mark.promise("P9")
@pytest.mark.parametrize("padding", [*range(65_480, 65_540, 7), *range(69_560, 69_640, 7)])
def test_no_cut_leaves_half_a_secret(log: Log, padding: int) -> None:
    token = issue("s").token
    for filler in ("x", json.dumps({"token": "y" * 300})):  # the second is much shorter once it is redacted
        text = (filler * (padding // len(filler) + 1))[:padding] + " " + token + " and more" * 2_000
        log.append(payloads={"result": text})
    assert token[:20].encode() not in log.stored()


# secrets


@pytest.mark.promise("P9")
def test_two_hundred_secrets_in_arguments_results_errors_and_names_are_in_no_file(log: Log) -> None:
    secrets: list[str] = []
    for number in range(50):
        by_key = f"canary-{number}-by-key"
        in_text = f"canary-{number}-in-text"
        tokens = [issue("s").token, f"sk-proj-{'k' * 20}{number:04}"]
        secrets += [by_key, in_text, *tokens]
        log.append(
            tool=tokens[0],
            body={"error": f"upstream said {tokens[1]}"},
            payloads={
                "arguments": {"password": by_key, "nested": [{"apiKey": {"inner": by_key}}], "internal_ref": by_key},
                "result": {
                    "content": [{"type": "text", "text": json.dumps({"client_secret": in_text, "n": tokens[0]})}]
                },
                "error": f"401 for Bearer {tokens[1]} at https://user:{in_text}@host/?token={tokens[0]}",
            },
        )
    assert len(set(secrets)) == 200
    files = log.stored()
    assert [secret for secret in secrets if secret.encode() in files] == []
    assert files.count(b"redacted") >= 400
    assert walked(log.store.connection)[0] == []


@pytest.mark.promise("R31")
def test_erasing_a_payload_keeps_the_chain_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for number in range(200):
        log.append(payloads={"arguments": {"who": f"person-{number:03}"}, "result": "ok"})
    log.store.connection.execute("DELETE FROM payloads WHERE seq <= 100 AND part = 'arguments'")
    faults, walk = walked(log.store.connection)
    assert (faults, walk.seq) == ([], 200)
    assert log.read(7)["arguments"] == "[erased]"
    assert log.read(7)["result"] == "ok"
    assert log.read(101)["arguments"] == {"who": "person-100"}
    log.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = log.stored()
    assert [number for number in range(100) if f"person-{number:03}".encode() in files] == []
    log.store.close()


def test_a_payloads_digest_is_salted_so_that_guessing_shows_nothing(log: Log) -> None:
    first, second = (log.append(payloads={"arguments": {"yes": True}}) for _ in range(2))
    one, two = (log.body(seq)["payloads"]["arguments"]["sha256"] for seq in (first, second))
    assert one != two
    salt, data = log.store.connection.execute("SELECT salt, data FROM payloads WHERE seq = 1").fetchone()
    assert (len(salt), payload_digest(salt, data)) == (16, one)


# what was done to it afterwards

EVENTS = 60


def a_history(folder: Path) -> Path:
    log = Log(folder)
    for number in range(EVENTS):
        log.store.now_us += number % 3
        log.append(
            [Kind.CALL_ALLOWED, Kind.CALL_DENIED, Kind.AGENT_ADDED][number % 3],
            agent="a", agent_id=f"agt_{number % 4}", session=f"ses_{number % 7}", call=f"call_{number}", tool="up__t",
            body={"amount_micros": number * 10, "decision": "allow"},
            payloads={"arguments": {"n": number, "text": "x" * number}, "result": f"done {number}"},
        )  # fmt: skip
    log.store.connection.execute("DROP TRIGGER events_keep_update")
    log.store.connection.execute("DROP TRIGGER events_keep_delete")
    log.store.connection.execute("PRAGMA journal_mode = DELETE")
    log.store.close()
    return folder / "haltline.db"


def edit_byte(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    column = chance.choice(["body", "hash"])
    (value,) = connection.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()
    at = chance.randrange(len(value))
    changed = value[:at] + bytes([value[at] ^ (1 << chance.randrange(8))]) + value[at + 1 :]
    connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (changed, seq))
    return seq


def edit_amount(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    (body,) = connection.execute("SELECT body FROM events WHERE seq = ?", (seq,)).fetchone()
    said = json.loads(body) | {"amount_micros": 7}
    connection.execute("UPDATE events SET body = ? WHERE seq = ?", (json.dumps(said, sort_keys=True).encode(), seq))
    return seq


def edit_column(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    column = chance.choice(["at_us", "kind", "agent_id", "session_id", "call_id", "tool"])
    value = 5 if column == "at_us" else chance.choice(["other", None]) if column != "kind" else "other"
    connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (value, seq))
    return seq


def edit_payload(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    part = chance.choice(["arguments", "result"])
    connection.execute("UPDATE payloads SET data = CAST(data || x'20' AS BLOB) WHERE seq = ? AND part = ?", (seq, part))
    return seq


def shift_salt(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    """The digest is of salt and data together: moving their border must show."""
    (salt, data) = connection.execute(
        "SELECT salt, data FROM payloads WHERE seq = ? AND part = 'result'", (seq,)
    ).fetchone()
    connection.execute(
        "UPDATE payloads SET salt = ?, data = ? WHERE seq = ? AND part = 'result'", (salt + data[:2], data[2:], seq)
    )
    return seq


def rename_payload(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    connection.execute("UPDATE payloads SET part = 'note' WHERE seq = ? AND part = 'result'", (seq,))
    return seq


def swap_payloads(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    for before, after in (("result", "aside"), ("arguments", "result"), ("aside", "arguments")):
        connection.execute("UPDATE payloads SET part = ? WHERE seq = ? AND part = ?", (after, seq, before))
    return seq


def add_payload(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    connection.execute("INSERT INTO payloads (seq, part, salt, data) VALUES (?, 'note', zeroblob(16), x'31')", (seq,))
    return seq


def delete(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    seq = min(seq, EVENTS - 1)  # the last one is the checkpoints' matter
    connection.execute("DELETE FROM events WHERE seq = ?", (seq,))
    return seq


def delete_with_its_payloads(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    connection.execute("DELETE FROM payloads WHERE seq = ?", (min(seq, EVENTS - 1),))
    return delete(connection, seq, chance)


def close_the_gap(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    """Delete one and renumber those after it."""
    seq = delete_with_its_payloads(connection, seq, chance)
    for table in ("events", "payloads"):
        connection.execute(f"UPDATE {table} SET seq = -seq WHERE seq > ?", (seq,))
        connection.execute(f"UPDATE {table} SET seq = -seq - 1 WHERE seq < 0")
    return seq


def swap(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    first = min(seq, EVENTS - 1)
    second = chance.randrange(first + 1, EVENTS + 1)
    for table in ("events", "payloads"):
        for old, new in ((first, -1), (second, first), (-1, second)):
            connection.execute(f"UPDATE {table} SET seq = ? WHERE seq = ?", (new, old))
    return first


def insert(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    """Make room and put a forged one there, with a hash of its own that fits."""
    for table in ("events", "payloads"):
        connection.execute(f"UPDATE {table} SET seq = -seq WHERE seq >= ?", (seq,))
        connection.execute(f"UPDATE {table} SET seq = -seq + 1 WHERE seq < 0")
    row = connection.execute("SELECT hash FROM events WHERE seq = ?", (seq - 1,)).fetchone()
    previous = GENESIS if row is None else row[0]
    body = json.dumps({"seq": seq, "at_us": 5, "kind": "agent.added", "actor": "x"}, sort_keys=True).encode()
    connection.execute(
        "INSERT INTO events (seq, at_us, kind, body, hash) VALUES (?, 5, 'agent.added', ?, ?)",
        (seq, body, chain_hash(previous, body)),
    )
    return seq + 1  # the forged one is consistent; the one after it cannot be


def insert_before_all(connection: sqlite3.Connection, seq: int, chance: random.Random) -> int:
    body = json.dumps({"seq": 0, "at_us": 5, "kind": "agent.added", "actor": "x"}, sort_keys=True).encode()
    connection.execute(
        "INSERT INTO events (seq, at_us, kind, body, hash) VALUES (0, 5, 'agent.added', ?, ?)",
        (body, chain_hash(GENESIS, body)),
    )
    return 0


TAMPERINGS = [
    edit_byte, edit_byte, edit_amount, edit_column, edit_payload, shift_salt, rename_payload, swap_payloads, add_payload,
    delete, delete_with_its_payloads, close_the_gap, swap, insert, insert_before_all,
]  # fmt: skip


@pytest.mark.promise("P8")
def test_a_thousand_edits_deletions_swaps_and_insertions_are_found_with_the_first_bad_event(tmp_path: Path) -> None:
    whole = sqlite3.connect(a_history(tmp_path), isolation_level=None)
    assert walked(whole)[0] == []
    chance = random.Random(20261123)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    missed = []
    for number in range(1_000):
        whole.backup(connection)
        seq = chance.randint(1, EVENTS)
        tamper = TAMPERINGS[number % len(TAMPERINGS)]
        first_bad = tamper(connection, seq, chance)
        found = [fault.seq for fault in walked(connection)[0]]
        if not found or min(found) != first_bad:
            missed.append((tamper.__name__, seq, first_bad, found[:3]))
    assert missed == []
    connection.close()
    whole.close()


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = a_history(tmp_path)
    content = bytearray(path.read_bytes())
    page = 4096
    for at in range(4 * page, 8 * page, 97):
        content[at] ^= 0xFF
    path.write_bytes(content)
    connection = sqlite3.connect(path)
    try:
        found = [fault.what for fault in damage(connection)]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    connection.close()
    assert found


def test_history_cannot_be_changed_through_sql(log: Log) -> None:
    log.append()
    for sql in ("UPDATE events SET kind = 'x'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="history is only added to"):
            log.store.connection.execute(sql)


def test_a_copy_of_a_log_verifies_as_the_log_does(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(a_history(tmp_path), tmp_path / "copy")
    connection = sqlite3.connect(tmp_path / "copy" / "haltline.db")
    assert walked(connection)[0] == []
    connection.close()


def test_every_field_of_an_event_is_in_its_body_or_is_a_payload() -> None:
    names = set(Event._fields)
    assert names == {
        "kind",
        "actor",
        "agent",
        "agent_id",
        "session",
        "call",
        "tool",
        "upstream",
        "policy",
        "body",
        "facts",
        "payloads",
    }
