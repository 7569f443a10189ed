"""Signed checkpoints, and `haltline audit verify` over databases that were left alone and that were not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from haltline.audit import GENESIS, Audit, Event, Kind, chain_hash
from haltline.audit_check import Fault
from haltline.books import Books, check_books
from haltline.checkpoints import (
    EVERY_EVENTS,
    EVERY_S,
    Checkpoint,
    Checkpoints,
    Signer,
    checkpoint_faults,
    log_faults_since,
    read_checkpoints,
)
from haltline.cli import main
from haltline.errors import StoreError
from haltline.ledger import Ledger
from haltline.redact import Redactor
from haltline.store.database import connect_reader, connect_writer
from haltline.store.writer import Tx, Writer
from support.records import HOUR, NOON_US, SECOND, Store, a_hold, announce, utc_day

SEED = bytes(range(32))
Capture = pytest.CaptureFixture[str]


class Broker:
    """A writer, a log and its checkpoints, as a broker runs them."""

    def __init__(self, folder: Path, outside: Path | None = None) -> None:
        self.folder = folder
        self.now_us = NOON_US
        self.audit = Audit(Redactor())
        self.ledger = Ledger(utc_day)
        self.writer = Writer(lambda: connect_writer(folder / "haltline.db"), lambda: self.now_us)
        self.writer.on_lost(self.audit.forget)
        self.writer.on_lost(self.ledger.forget)
        self.checkpoints = Checkpoints(self.writer, self.audit, SEED, folder / "checkpoints.jsonl", outside=outside)

    async def append(self, count: int = 1) -> None:
        def unit(tx: Tx) -> None:
            for _ in range(count):
                self.audit.append(tx, Event(Kind.AGENT_ADDED, "operator:o", body={"n": count}))

        await self.writer.run(unit)

    def lines(self, file: Path | None = None) -> list[Checkpoint]:
        file = file or self.folder / "checkpoints.jsonl"
        return [one for one in read_checkpoints(file) if isinstance(one, Checkpoint)] if file.exists() else []


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    (tmp_path / "data").mkdir()
    broker = Broker(tmp_path / "data", tmp_path / "outside.jsonl")
    broker.writer.start()
    yield broker
    await broker.writer.aclose()


async def test_one_is_written_when_the_log_grew_enough_or_long_enough_ago_and_never_for_nothing(broker: Broker) -> None:
    assert await broker.checkpoints.look() is None  # an empty log
    await broker.append()
    assert (await broker.checkpoints.look()) is not None  # the first ever
    await broker.append(EVERY_EVENTS - 1)
    assert await broker.checkpoints.look() is None
    await broker.append()
    assert (await broker.checkpoints.look()).seq == EVERY_EVENTS + 1
    broker.now_us += int(EVERY_S * SECOND)
    assert await broker.checkpoints.look() is None  # nothing new
    await broker.append()
    assert (await broker.checkpoints.look()).seq == EVERY_EVENTS + 2
    assert [line.seq for line in broker.lines()] == [1, EVERY_EVENTS + 1, EVERY_EVENTS + 2]


async def test_at_stop_the_newest_event_is_signed_once(broker: Broker) -> None:
    await broker.append(3)
    assert (await broker.checkpoints.write()).seq == 3
    assert await broker.checkpoints.write() is None


async def test_both_files_and_the_public_key_are_written_for_their_owner_alone(broker: Broker, tmp_path: Path) -> None:
    await broker.append()
    await broker.checkpoints.write()
    assert broker.lines() == broker.lines(tmp_path / "outside.jsonl")
    assert (broker.folder / "checkpoint.pub").read_text().strip() == Signer(SEED).public_key
    for file in (broker.folder / "checkpoints.jsonl", tmp_path / "outside.jsonl", broker.folder / "checkpoint.pub"):
        assert file.stat().st_mode & 0o077 == 0


async def test_a_place_that_cannot_be_written_is_said_and_tried_again_and_the_other_gets_its_line(
    tmp_path: Path,
) -> None:
    broker = Broker(tmp_path, tmp_path / "not there" / "outside.jsonl")
    broker.writer.start()
    await broker.append()
    await broker.checkpoints.write()
    assert "not there" in (broker.checkpoints.failure or "")
    assert len(broker.lines()) == 1
    (tmp_path / "not there").mkdir()
    await broker.checkpoints.write()
    assert broker.checkpoints.failure is None
    assert [line.seq for line in broker.lines(tmp_path / "not there" / "outside.jsonl")] == [1]
    await broker.writer.aclose()


async def test_a_line_torn_by_a_crash_spoils_no_other(broker: Broker) -> None:
    file = broker.folder / "checkpoints.jsonl"
    await broker.append()
    await broker.checkpoints.write()
    with file.open("a") as opened:
        opened.write('{"seq":2,"ha')
    assert [one.seq for one in read_checkpoints(file)] == [1]
    await broker.append()
    await broker.checkpoints.write()
    read = list(read_checkpoints(file))
    assert [one.seq for one in read if isinstance(one, Checkpoint)] == [1, 2]
    assert [one.what for one in read if isinstance(one, Fault)] == ["checkpoints.jsonl, line 2: not a checkpoint"]


async def test_the_loop_writes_by_itself(broker: Broker) -> None:
    await broker.append()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.checkpoints.run)
            while not broker.lines():
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


# verification


class History:
    """A folder as a broker leaves it: calls of every ending, payloads, checkpoints here and outside."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.outside = folder / "outside.jsonl"
        self.audit, self.ledger = Audit(Redactor()), Ledger(utc_day)
        self.store = Store(self.data)
        self.store.people({"a1": ("s1",)})
        self.signer = Signer(SEED)
        self.store.run(lambda tx: announce(tx, self.audit))
        for number in range(24):
            self.call(f"call_{number}", number)
            if number % 6 == 5:
                self.sign()
        (self.data / "checkpoint.pub").write_text(self.signer.public_key)

    def said(self, tx: Tx, kind: Kind, call: str, **body: Any) -> None:
        event = Event(
            kind, "agent:a", agent="a", agent_id="a1", session="s1", call=call, tool="up__tool", upstream="up", body=body,
            payloads={"arguments": {"call": call}},
        )  # fmt: skip
        self.audit.append(tx, event)

    def call(self, call: str, number: int) -> None:
        amount = 10 + number

        def admit(tx: Tx) -> None:
            self.ledger.hold(tx, a_hold(call, amount))
            self.said(tx, Kind.CALL_ALLOWED, call, amount_micros=amount)

        def end(tx: Tx) -> None:
            match number % 8:
                case 0 | 1 | 2:
                    self.ledger.settle(tx, call, amount - 1)
                    self.said(tx, Kind.CALL_SUCCEEDED, call, charged_micros=amount - 1, amount_micros=amount)
                case 3:
                    self.ledger.settle(tx, call, 0)
                    self.said(tx, Kind.CALL_FAILED, call, charged_micros=0, amount_micros=amount)
                case 4:
                    self.ledger.void(tx, call, "unsent")
                    self.said(tx, Kind.CALL_VOIDED, call, charged_micros=0, amount_micros=amount)
                case 5 | 6:
                    self.ledger.doubt(tx, call, "lost", NOON_US + HOUR)
                    self.said(tx, Kind.CALL_IN_DOUBT, call, amount_micros=amount, charges_at_us=NOON_US + HOUR)

        def resolve(tx: Tx) -> None:
            if number == 6:
                self.ledger.settle(tx, call, amount, "it ran")
                self.said(tx, Kind.CALL_RESOLVED, call, outcome="settle", charged_micros=amount)
            elif number == 14:
                self.ledger.void(tx, call, "it did not")
                self.said(tx, Kind.CALL_RESOLVED, call, outcome="void", charged_micros=0)

        for unit in (admit, end, resolve):
            self.store.run(unit)
        self.store.run(lambda tx: self.said(tx, Kind.CALL_DENIED, f"{call}-no", decision="deny"))

    def sign(self) -> None:
        seq, head = self.store.run(self.audit.head)
        line = (
            json.dumps({name: getattr(self.signer.sign(seq, head, NOON_US), name) for name in Checkpoint.__slots__})
            + "\n"
        )
        for file in (self.data / "checkpoints.jsonl", self.outside):
            with file.open("a") as opened:
                opened.write(line)

    def tamper(self, *sql: str) -> None:
        connection = self.store.connection
        connection.execute("PRAGMA foreign_keys = OFF")
        for name in ("events_keep_update", "events_keep_delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        for one in sql:
            connection.execute(one)

    def rewrite(self, since: int) -> None:
        """What somebody with the database alone would do: change one event and every hash after it."""
        self.tamper()
        rows = self.store.connection.execute("SELECT seq, body FROM events ORDER BY seq").fetchall()
        previous = GENESIS
        for seq, body in rows:
            if seq == since:
                body = body.replace(b'"agent":"a"', b'"agent":"z"')
            previous = chain_hash(previous, body)
            self.store.connection.execute("UPDATE events SET body = ?, hash = ? WHERE seq = ?", (body, previous, seq))

    def books(self) -> list[str]:
        connection = connect_reader(self.data / "haltline.db")
        try:
            return [fault.what for fault in check_books(connection, Books())]
        finally:
            connection.close()

    def checkpoint_faults(self, file: Path) -> list[Fault]:
        signed = [one for one in read_checkpoints(file) if isinstance(one, Checkpoint)]
        return list(checkpoint_faults(self.store.connection, signed, self.signer.public_key))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path)
    yield history
    history.store.close()


def verify(history: History, *arguments: str) -> int:
    return main(["audit", "verify", "--data", str(history.data), *arguments])


@pytest.mark.promise("P8")
def test_verify_of_an_untouched_folder_is_ok_beside_a_writer_and_says_what_it_proved(
    history: History, capsys: Capture
) -> None:
    assert verify(history, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"]
    assert (result["events"], result["calls"], result["first_bad_seq"]) == (73, 24, None)
    assert result["micros"]["rows"] == result["micros"]["events"]
    assert result["micros"]["rows"]["settled"] > 0
    assert (result["checkpoints"]["count"], result["checkpoints"]["last_seq"]) == (4, 73)
    assert verify(history) == 0
    out = capsys.readouterr().out
    assert "73 events" in out
    assert history.signer.public_key in out
    assert "who can write there and read its signing key can rewrite both" in " ".join(out.split())


@pytest.mark.parametrize("writable", [True, False])
def test_verify_of_a_copy_of_the_file_alone_is_ok(
    history: History, tmp_path: Path, writable: bool, capsys: Capture
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    history.store.connection.execute("VACUUM INTO ?", (str(copy / "haltline.db"),))
    plain = sqlite3.connect(copy / "haltline.db")
    plain.execute("PRAGMA journal_mode = WAL")
    plain.close()
    if not writable:
        copy.chmod(0o500)
    assert main(["audit", "verify", "--data", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 73
    copy.chmod(0o700)


def test_verify_of_a_stopped_brokers_folder_is_ok_and_leaves_it_as_it_is(history: History, capsys: Capture) -> None:
    history.store.close()
    before = (history.data / "haltline.db").read_bytes()
    assert verify(history, "--json") == 0
    assert (history.data / "haltline.db").read_bytes() == before
    history.store.connection = connect_writer(history.data / "haltline.db")


def test_verify_names_the_first_bad_event(history: History, capsys: Capture) -> None:
    history.tamper("UPDATE events SET kind = 'agent.added' WHERE seq = 23")
    assert verify(history, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["first_bad_seq"]) == (False, 23)
    assert verify(history) == 1
    assert "The first event that does not hold: 23" in capsys.readouterr().out


@pytest.mark.promise("P8")
def test_a_cut_tail_is_found_back_to_the_last_checkpoint_and_no_further(history: History) -> None:
    history.store.run(lambda tx: history.said(tx, Kind.CALL_DENIED, "later"))
    history.tamper("DELETE FROM payloads WHERE seq > 73", "DELETE FROM events WHERE seq > 73")
    assert history.checkpoint_faults(history.outside) == []  # the bound: nothing after the last checkpoint is proved
    history.tamper("DELETE FROM payloads WHERE seq > 60", "DELETE FROM events WHERE seq > 60")
    (fault,) = history.checkpoint_faults(history.outside)
    assert fault.seq == 61
    assert "the log ends with 60" in fault.what
    assert verify(history) == 1


@pytest.mark.promise("P8")
def test_a_rewrite_of_the_whole_chain_is_found_back_to_the_checkpoint_before_it(
    history: History, capsys: Capture
) -> None:
    signed = [one.seq for one in read_checkpoints(history.outside)]
    history.rewrite(since=40)
    good = max(seq for seq in signed if seq < 40)
    faults = history.checkpoint_faults(history.outside)
    assert [fault.seq for fault in faults] == [good + 1] * len([seq for seq in signed if seq >= 40])
    assert verify(history, "--json") == 1
    assert json.loads(capsys.readouterr().out)["first_bad_seq"] == good + 1


@pytest.mark.promise("P8")
def test_a_rewrite_with_new_checkpoints_under_another_key_is_found_with_the_copies_outside(
    history: History, tmp_path: Path, capsys: Capture
) -> None:
    key = tmp_path / "kept.pub"
    key.write_text(history.signer.public_key + "\n")
    history.rewrite(since=40)
    history.audit.forget()
    forged = Signer(b"f" * 32)
    seq, head = history.store.run(history.audit.head)
    one = forged.sign(seq, head, NOON_US)
    (history.data / "checkpoints.jsonl").write_text(
        json.dumps({n: getattr(one, n) for n in Checkpoint.__slots__}) + "\n"
    )
    (history.data / "checkpoint.pub").write_text(forged.public_key)
    assert verify(history) == 0  # a consistent forgery: what lies beside it cannot prove it
    assert verify(history, "--public-key", str(key)) == 1
    assert verify(history, "--public-key", history.signer.public_key) == 1
    assert verify(history, "--public-key", str(key), "--checkpoints", str(history.outside)) == 1
    capsys.readouterr()


@pytest.mark.parametrize("name", ["seq", "hash", "at", "key", "signature"])
def test_a_checkpoint_that_was_changed_is_not_believed(history: History, name: str) -> None:
    signed = list(read_checkpoints(history.outside))
    value: Any = {"seq": 1, "hash": "00" * 32, "at": "2026-01-01T00:00:00Z", "key": "0" * 16, "signature": "zz"}[name]
    signed[2] = replace(signed[2], **{name: value})
    (fault,) = checkpoint_faults(history.store.connection, signed, history.signer.public_key)
    assert "is not signed by" in fault.what


def test_a_quick_look_at_start_sees_a_cut_or_another_past(history: History) -> None:
    file, key = history.data / "checkpoints.jsonl", history.signer.public_key
    assert log_faults_since(history.store.connection, file, key) == []
    assert log_faults_since(history.store.connection, history.data / "none.jsonl", key) == []
    history.tamper("DELETE FROM payloads WHERE seq > 60", "DELETE FROM events WHERE seq > 60")
    assert len(log_faults_since(history.store.connection, file, key)) == 1


MONEY = {
    "UPDATE holds SET amount_micros = 5 WHERE id = 'call_7'": "call call_7: its hold is 5, event",
    "UPDATE holds SET charged_micros = 1 WHERE id = 'call_0'": "call call_0: 1 was charged, event 4 says 9",
    "DELETE FROM holds WHERE id = 'call_9'": "call call_9 was admitted by event",
    "UPDATE holds SET id = 'call_x' WHERE id = 'call_9'": "call call_x has a hold, but no event admitted it",
    "UPDATE holds SET state = 'voided', charged_micros = NULL WHERE id = 'call_0'": "call call_0: its hold is voided, its events say settled",
    "UPDATE holds SET state = 'voided' WHERE id = 'call_7'": "call call_7: its hold is voided, its events say held",
    "UPDATE holds SET state = 'settled', charged_micros = 3, charges_at_us = NULL WHERE id = 'call_5'": "its events say in_doubt",
    "UPDATE holds SET tool = 'up__other' WHERE id = 'call_3'": "call call_3: its hold is of tool up__other, event",
}


@pytest.mark.promise("P7")
@pytest.mark.parametrize("sql", MONEY)
def test_money_that_does_not_follow_from_the_log_is_found(history: History, sql: str, capsys: Capture) -> None:
    assert history.books() == []
    history.tamper(sql)
    assert any(MONEY[sql] in fault for fault in history.books())
    assert verify(history) == 1
    capsys.readouterr()


@pytest.mark.promise("P7")
def test_a_call_that_ends_twice_is_found(history: History) -> None:
    history.store.run(lambda tx: history.said(tx, Kind.CALL_SUCCEEDED, "call_0", charged_micros=9))
    assert history.books() == ["call call_0 ends more than once, in events 4, 74"]


def test_damage_is_a_fault_and_not_a_traceback(history: History, capsys: Capture) -> None:
    history.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    history.store.close()
    file = history.data / "haltline.db"
    content = bytearray(file.read_bytes())
    for at in range(4096 * 4, len(content), 61):
        content[at] ^= 0xA5
    file.write_bytes(content)
    assert verify(history, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["faults"]
    history.store.connection = sqlite3.connect(":memory:")


def test_what_cannot_be_verified_says_what_to_do(history: History, tmp_path: Path, capsys: Capture) -> None:
    assert main(["audit", "verify", "--data", str(tmp_path / "none")]) == 1
    assert "--data" in capsys.readouterr().err
    assert verify(history, "--checkpoints", str(tmp_path / "none.jsonl")) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert verify(history, "--public-key", "abc") == 1
    assert "64 hexadecimal digits" in capsys.readouterr().err
    (history.data / "checkpoint.pub").unlink()
    assert verify(history) == 1
    assert "--public-key" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    sqlite3.connect(tmp_path / "other" / "haltline.db").execute("CREATE TABLE t (a)").connection.close()
    assert main(["audit", "verify", "--data", str(tmp_path / "other")]) == 1
    assert "another program" in capsys.readouterr().err


def test_a_signing_key_is_the_same_from_the_same_seed() -> None:
    assert Signer(SEED).public_key == Signer(SEED).public_key
    with pytest.raises(StoreError, match="not a public key"):
        list(checkpoint_faults(sqlite3.connect(":memory:"), [], "12"))
