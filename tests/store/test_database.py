"""The database file: migrated with a backup first, refused when it is newer, foreign or broken, never half opened."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from haltline.errors import StoreError
from haltline.store.database import APPLICATION_ID, connect_reader, connect_writer, migrations

NEWEST = max(migrations())
ROOT = Path(__file__).parents[2]
OPEN = """
import sys
from pathlib import Path
from haltline.store.database import connect_writer
connect_writer(Path(sys.argv[1])).close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "haltline.db"


def pragma(file: Path, name: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_has_the_newest_schema_our_mark_and_private_rights(file):
    connect_writer(file).close()
    assert pragma(file, "user_version") == NEWEST
    assert pragma(file, "application_id") == APPLICATION_ID
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.promise("P1")
def test_the_writer_s_commits_survive_a_power_loss_and_its_constraints_hold(file):
    with closing(connect_writer(file)) as writer:
        assert writer.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL"
        assert writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert writer.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_migrations_are_numbered_without_a_gap():
    assert list(migrations()) == list(range(1, NEWEST + 1))


def test_opening_again_changes_nothing_and_makes_no_backup(file):
    connect_writer(file).close()
    connect_writer(file).close()
    assert sorted(path.name for path in file.parent.glob("*before*")) == []


def test_an_older_schema_is_backed_up_first_and_then_led_to_the_newest(file, tmp_path):
    connect_writer(file).close()
    with closing(sqlite3.connect(file)) as old:
        old.execute("INSERT INTO meta VALUES ('kept', 'from before')")
        old.commit()
    # The next version of this program: the same with one more migration.
    shutil.copytree(ROOT / "server" / "haltline", tmp_path / "next" / "haltline")
    following = tmp_path / "next" / "haltline" / "store" / "migrations" / f"{NEWEST + 1:04}_following.sql"
    following.write_text("CREATE TABLE following (x INTEGER) STRICT;")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "next"), str(ROOT / "clients")])}
    subprocess.run([sys.executable, "-c", OPEN, str(file)], env=environ, check=True)

    assert pragma(file, "user_version") == NEWEST + 1
    backup = file.with_name(f"haltline.db.before-{NEWEST + 1}")
    assert pragma(backup, "user_version") == NEWEST
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    for kept in (file, backup):
        with closing(sqlite3.connect(kept)) as connection:
            assert connection.execute("SELECT value FROM meta WHERE key = 'kept'").fetchone() == ("from before",)
    with pytest.raises(StoreError, match="install the newer haltline"):
        connect_writer(file)
    connect_writer(backup).close()


def test_a_newer_schema_is_refused_untouched_and_says_what_to_install(file):
    connect_writer(file).close()
    with closing(sqlite3.connect(file)) as newer:
        newer.execute(f"PRAGMA user_version = {NEWEST + 1}")
    for connect in (connect_writer, connect_reader):
        with pytest.raises(StoreError, match=f"has schema {NEWEST + 1}.*install the newer haltline"):
            connect(file)
    assert pragma(file, "user_version") == NEWEST + 1


def test_a_file_of_another_program_is_refused_untouched(file):
    with closing(sqlite3.connect(file)) as foreign:
        foreign.executescript("CREATE TABLE theirs (x); PRAGMA user_version = 1;")
    before = file.read_bytes()
    for connect in (connect_writer, connect_reader):
        with pytest.raises(StoreError, match="another program"):
            connect(file)
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(file):
    file.write_bytes(b"this is a letter, not a database" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        connect_writer(file)
    assert file.read_bytes().startswith(b"this is a letter")


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        connect_writer(tmp_path / "file" / "haltline.db")


def test_a_reader_reads_and_never_writes_or_makes_a_file(file):
    with pytest.raises(StoreError, match="cannot be read"):
        connect_reader(file)
    assert not file.exists()
    connect_writer(file).close()
    with closing(connect_reader(file)) as reader:
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM events")


@pytest.mark.parametrize("name", ["a folder?mode=rwc", "50% #1", "späť"])
def test_any_folder_name_is_only_a_name(tmp_path, name):
    (tmp_path / name).mkdir()
    connect_writer(tmp_path / name / "haltline.db").close()
    connect_reader(tmp_path / name / "haltline.db").close()
    assert (tmp_path / name / "haltline.db").exists()


def test_a_store_with_payloads_of_before_keeps_them_and_finds_a_session_s_events(tmp_path):
    file = tmp_path / "haltline.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as old:
        for number, sql in migrations().items():
            if number < 11:
                old.executescript(f"{sql}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};")
        old.execute("INSERT INTO agents (id, handle, tier, created_us) VALUES ('a', 'a', 't', 1)")
        old.execute(
            "INSERT INTO sessions (id, agent_id, task, opened_by, opened_us, expires_us, last_used_us)"
            " VALUES ('s', 'a', 't', 'x', 1, 9, 1)"
        )
        for seq in range(1, 30):
            agent = None if seq % 7 == 0 else "a"
            old.execute(
                "INSERT INTO events (seq, at_us, kind, agent_id, session_id, body, hash) VALUES (?, 1, 'k', ?, 's', x'', x'')",
                (seq, agent),
            )
            for part in ("result", "arguments"):
                old.execute("INSERT INTO payloads VALUES (?, ?, x'01', ?)", (seq, part, f"{part} {seq}".encode()))
    with closing(connect_writer(file)) as led:
        kept = led.execute("SELECT seq, part, salt, data FROM payloads").fetchall()
        assert kept == [
            (seq, part, b"\x01", f"{part} {seq}".encode()) for seq in range(1, 30) for part in ("arguments", "result")
        ]
        of_session = (
            "SELECT count(*) FROM events WHERE seq IN (SELECT seq FROM events WHERE agent_id = 'a' AND session_id = 's'"
        )
        alone = " UNION ALL SELECT seq FROM events WHERE agent_id IS NULL AND session_id = 's')"
        assert led.execute(of_session + alone).fetchone() == (29,)
        plans = [row[3] for row in led.execute(f"EXPLAIN QUERY PLAN {of_session}{alone}")]
        assert not [plan for plan in plans if plan.startswith("SCAN")], plans
        assert led.execute("PRAGMA foreign_key_check").fetchall() == []
