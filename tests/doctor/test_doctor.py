"""`haltline doctor` and `haltline init`: what each finding says, beside a broker or without one."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from haltline.cli import main
from haltline.setup.doctor import machine, records
from haltline.setup.doctor.finding import Finding
from haltline.setup.starter import write_starter
from haltline.store.database import connect_writer, migrations
from haltline.store.folder import DataFolder

Examine = Callable[..., dict[str, list[Finding]]]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and no setting of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HALTLINE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def examine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Examine:
    """The findings of a folder with these settings, by what was checked; the exit code must go with them."""

    def examine(settings: str = "") -> dict[str, list[Finding]]:
        write_starter(tmp_path)
        (tmp_path / "haltline.yaml").write_text(f"agents: {{listen: '127.0.0.1:0'}}\n{settings}")
        code = main(["doctor", "--json"])
        said = json.loads(capsys.readouterr().out)
        found: dict[str, list[Finding]] = {}
        for one in said["findings"]:
            found.setdefault(one["check"], []).append(Finding(**one))
        failed = any(finding.status == "fail" for findings in found.values() for finding in findings)
        assert (code, said["ok"]) == (int(failed), not failed)
        assert all(finding.to_do for findings in found.values() for finding in findings if finding.status == "fail")
        return found

    return examine


def only(found: dict[str, list[Finding]], check: str) -> Finding:
    assert len(found[check]) == 1, found[check]
    return found[check][0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as a first start leaves it, with its broker stopped."""
    folder = DataFolder.claim(tmp_path / "haltline-data")
    for name in ("pepper", "signing"):
        folder.key(name, may_create=True)
    connect_writer(folder.database).close()
    folder.release()
    return folder.path


@contextmanager
def answering(status: int = 200) -> Iterator[int]:
    """Something that answers HTTP on a port of this machine."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_fresh_configuration_has_nothing_that_fails(examine):
    found = examine()
    assert {finding.status for findings in found.values() for finding in findings} <= {"ok", "warn"}
    assert "first start" in only(found, "data folder").text
    assert only(found, "upstreams").status == "warn"


def test_a_used_installation_is_sound(examine, data):
    found = examine()
    assert only(found, "database").text.startswith(f"schema {max(migrations())}, sound")
    assert [finding.text for finding in found["keys"]] == ["pepper: present", "signing: present"]
    assert only(found, "storage").status in {"ok", "warn"}


def test_it_works_beside_a_process_that_holds_the_folder_and_writes(examine, data):
    holder = DataFolder.claim(data)
    with closing(connect_writer(data / "haltline.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO meta VALUES ('a', 'b')")
        assert only(examine(), "database").status == "ok"
        writer.execute("COMMIT")
    holder.release()


def test_it_changes_nothing(examine, data):
    def content() -> dict[Path, bytes]:
        # The shared memory beside the database is every reader's, not a record.
        return {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.suffix != ".db-shm"}

    examine()
    before = content()
    examine()
    assert content() == before


# The machine


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 44, 5), (3, 50, 6), (3, 51, 2), (3, 45, 0), (3, 50, 0)])
def test_a_sqlite_with_the_wal_reset_bug_is_a_warning_that_says_why_one_writer_is_safe(version):
    (finding,) = machine.sqlite(version)
    assert finding.status == "warn"
    assert "one connection of one process ever writes" in finding.text


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 44, 7), (3, 50, 7), (3, 51, 3), (3, 52, 0), (4, 0, 0)])
def test_a_sqlite_without_the_bug_is_well(version):
    assert [finding.status for finding in machine.sqlite(version)] == ["ok"]


def test_a_sqlite_that_is_too_old_fails():
    assert [finding.status for finding in machine.sqlite((3, 34, 1))] == ["fail"]
    assert not machine.wal_reset_bug((3, 6, 23))


@pytest.mark.parametrize(
    ("now_us", "newest_us", "status"),
    [
        (1_800_000_000_000_000, None, "ok"),
        (1_800_000_000_000_000, 1_799_999_999_000_000, "ok"),
        (1_800_000_000_000_000, 1_800_000_060_000_000, "warn"),
        (0, None, "fail"),
        (4_000_000_000_000_000, None, "fail"),
    ],
)
def test_a_clock_that_cannot_be_right_is_told(now_us, newest_us, status):
    assert [finding.status for finding in machine.clock(now_us, newest_us)] == [status]


# The data folder


def test_a_folder_that_others_can_read_fails_with_the_command_that_mends_it(examine, data):
    data.chmod(0o755)
    finding = only(examine(), "data folder")
    assert (finding.status, finding.to_do) == ("fail", f"chmod 700 {data}")


def test_a_folder_that_cannot_be_made_fails(examine, tmp_path):
    (tmp_path / "file").write_text("")
    found = examine("data: file/data\n")
    assert only(found, "data folder").status == "fail"


def test_a_missing_or_open_key_fails(examine, data):
    (data / "keys" / "pepper").unlink()
    (data / "keys" / "signing").chmod(0o644)
    found = examine()["keys"]
    assert [finding.status for finding in found] == ["fail", "fail"]
    assert "restore it from a backup" in found[0].to_do


def test_a_damaged_database_fails(examine, data):
    file = data / "haltline.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = bytearray(file.read_bytes())
    whole[4096 * 3 : 4096 * 4] = b"\xaa" * 4096
    file.write_bytes(whole)
    assert only(examine(), "database").status == "fail"


def test_a_foreign_or_newer_database_fails(examine, data):
    with closing(sqlite3.connect(data / "haltline.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "schema 99" in only(examine(), "database").text
    with closing(sqlite3.connect(data / "haltline.db")) as connection:
        connection.execute("PRAGMA application_id = 1")
    assert "another program" in only(examine(), "database").text


def test_the_time_of_the_newest_event_is_read(data):
    assert records.newest_event_us(data) is None
    with closing(sqlite3.connect(data / "haltline.db")) as connection:
        connection.execute("INSERT INTO events (seq, at_us, kind, body, hash) VALUES (1, 77, 'x', x'', x'')")
        connection.commit()
    assert records.newest_event_us(data) == 77


# The configuration


def test_each_problem_of_the_settings_is_a_finding(examine):
    found = examine("datas: x\nlimits: {drain: 1}\n")["settings"]
    assert [finding.status for finding in found] == ["fail", "fail"]
    assert "did you mean 'data'?" in found[0].text


def test_a_destination_that_a_tool_seen_here_does_not_have_is_told(examine, data, tmp_path):
    schema = json.dumps({"inputSchema": {"properties": {"to": {}}}})
    with closing(connect_writer(data / "haltline.db")) as connection:
        row = ("pay", "charge", "pay__charge", "quarantined", "d", schema, 1, 1)
        columns = "upstream, tool, name, state, seen, seen_text, first_us, seen_us"
        connection.execute(f"INSERT INTO pins ({columns}) VALUES (?,?,?,?,?,?,?,?)", row)
        connection.commit()
    examine()
    (tmp_path / "policies" / "more.yaml").write_text('tools: {pay__charge: {price: "1", destination: args.payee}}')
    told = [one for one in examine()["policy"] if one.status == "warn"]
    assert [one.text for one in told] == [
        "pay__charge: destination args.payee: its inputSchema has no payee, so every call is refused"
    ]


def test_a_broken_policy_fails_with_its_place(examine, tmp_path):
    write_starter(tmp_path)
    (tmp_path / "policies" / "tiers.yaml").write_text("tiers: [")
    finding = examine()["policy"][0]
    assert finding.status == "fail"
    assert "tiers.yaml:1" in finding.text


@pytest.mark.parametrize(
    ("entry", "status", "says"),
    [
        ("python: tools.py", "ok", "tools.py, in the broker's own process"),
        ("python: gone.py", "fail", "gone.py cannot be read: No such file or directory"),
        ("python: broken.py", "fail", "broken.py:2 is not Python: invalid syntax"),
        ("python: json.tool", "ok", "functions of json.tool, in the broker's own process"),
        ("python: nothing_of_that_name.tools", "fail", "there is no module nothing_of_that_name where haltline is"),
        ("entry_point: nobody", "fail", "no installed package offers 'nobody' in the group haltline.tools"),
    ],
)
def test_python_functions_are_looked_at_and_never_run(examine, tmp_path, entry, status, says):
    (tmp_path / "tools.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    finding = only(examine(f"upstreams: {{a: {{{entry}}}}}"), "upstreams")
    assert finding.status == status
    assert says in finding.text


API = '{"openapi": "3.1.0", "servers": [{"url": "SERVER"}], "paths": {}, "components": {"securitySchemes": SCHEMES}}'


@pytest.mark.parametrize(
    ("entry", "status", "says"),
    [
        ("openapi: api.json", "ok", "https://crm.example, described by api.json"),
        ("openapi: asking.json", "warn", "asks for k (apiKey in header X-Key), and no headers"),
        ("openapi: asking.json, headers: {X-Key: a}", "ok", "https://crm.example"),
        ("openapi: clear.json, headers: {X-Key: a}", "warn", "travel in the clear"),
        ("openapi: none.json", "fail", "cannot be read: No such file"),
        ("openapi: old.json", "fail", "Swagger 2.0"),
        ("openapi: relative.json", "fail", "set base_url"),
        ("openapi: relative.json, base_url: 'https://crm.example'", "ok", "https://crm.example"),
        ("openapi: 'https://crm.example/api.json'", "ok", "https://crm.example"),
    ],
)
def test_the_description_of_an_api_is_looked_at_and_nothing_is_fetched(examine, tmp_path, entry, status, says):
    key = '{"k": {"type": "apiKey", "in": "header", "name": "X-Key"}}'
    for name, server, schemes in (
        ("api", "https://crm.example/v1", "{}"),
        ("asking", "https://crm.example/v1", key),
        ("clear", "http://crm.example", key),
        ("relative", "/v1", "{}"),
    ):
        (tmp_path / f"{name}.json").write_text(API.replace("SERVER", server).replace("SCHEMES", schemes))
    (tmp_path / "old.json").write_text('{"swagger": "2.0"}')
    finding = only(examine(f"upstreams: {{crm: {{{entry}}}}}\n"), "upstreams")
    assert (finding.status, says in finding.text) == (status, True), finding


def test_a_program_that_is_not_there_fails_and_a_disabled_one_is_not_looked_for(examine):
    found = examine("upstreams:\n  a: {command: no-such-program}\n  b: {command: neither, disabled: true}\n")
    assert only(found, "upstreams").text == "a: the program no-such-program is not found"
    assert only(found, "upstreams").status == "fail"


def test_a_program_is_found_on_the_path_it_will_have(examine, tmp_path):
    program = tmp_path / "own" / "server"
    program.parent.mkdir()
    shutil.copy("/bin/sh", program)
    found = examine(
        f"upstreams: {{a: {{command: server, env: {{PATH: '{program.parent}'}}}}, b: {{command: ./own/server, cwd: .}}}}"
    )
    assert [finding.status for finding in found["upstreams"]] == ["ok", "ok"]


@pytest.mark.promise("P9")
def test_credentials_that_all_agents_share_are_said_to_be_shared_and_never_shown(examine):
    found = examine(
        "upstreams: {a: {url: 'http://127.0.0.1:1/mcp?key=s3cret', headers: {Authorization: Bearer s3cret}}}"
    )
    finding = only(found, "upstream credentials")
    assert finding.status == "warn"
    assert "one credential for all agents" in finding.text
    assert "s3cret" not in str(found)


@pytest.mark.promise("P9", "R32")
def test_credentials_per_agent_or_tier_are_named_with_who_shares_them(examine, monkeypatch):
    monkeypatch.setenv("ITS_TOKEN", "s3cret")
    given = "{headers: {Authorization: '${ITS_TOKEN}'}}"
    found = examine(f"upstreams: {{a: {{url: 'http://127.0.0.1:1/', credentials: {{agents: {{billing: {given}}}}}}}}}")
    finding = only(found, "upstream credentials")
    assert (finding.status, finding.text) == (
        "ok",
        "a: agent billing; none is shared; agents that have none are refused",
    )
    found = examine(f"upstreams: {{a: {{url: 'http://x.example/', credentials: {{default: {given}}}}}}}")
    assert only(found, "upstream credentials").text == "a: default; shared by all agents without one of their own"
    assert "in the clear" in only(found, "upstreams").text
    assert "s3cret" not in str(found)


def test_headers_that_travel_in_the_clear_are_told(examine):
    found = examine("upstreams: {a: {url: 'http://a.example.org/mcp', headers: {X: y}}}")
    assert "in the clear" in only(found, "upstreams").text


def test_a_free_port_is_well_and_one_that_another_program_has_fails(examine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = examine(f"control: {{listen: '127.0.0.1:{port}'}}\n")
    assert only(found, "control listener").status == "fail"
    assert "in use" in only(found, "control listener").text
    assert only(examine(f"control: {{listen: '127.0.0.1:{port}'}}\n"), "control listener").text.endswith("is free")


@pytest.mark.parametrize(("status", "expected"), [(200, "ok"), (404, "fail")])
def test_a_port_on_which_the_broker_of_this_data_folder_answers_is_well(examine, data, status, expected):
    with answering(status) as port:
        (data / "endpoints.json").write_text(
            json.dumps({"agents": "http://127.0.0.1:1/mcp", "control": f"http://127.0.0.1:{port}", "pid": 1})
        )
        finding = only(examine(f"control: {{listen: '127.0.0.1:{port}'}}\n"), "control listener")
    assert finding.status == expected


def test_the_text_says_what_to_do_under_each_finding(examine, capsys):
    examine("upstreams: {a: {command: no-such-program}}")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "fail  upstreams: a: the program no-such-program is not found\n      -> install it" in shown
    assert " 1 failed, " in shown.splitlines()[-1]


# init


def test_init_writes_a_configuration_that_the_doctor_finds_well(tmp_path, capsys):
    assert main(["init", "new"]) == 0
    shown = capsys.readouterr().out
    assert "wrote new/haltline.yaml" in shown
    assert "cd new && haltline serve" in shown
    assert main(["init", "new"]) == 0
    assert "nothing was changed" in capsys.readouterr().out


def test_init_where_nothing_can_be_written_exits_3(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["init", "file/new"]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_alerts_that_wait_were_given_up_or_that_nobody_has_in_hand_are_told(data: Path, examine: Examine) -> None:
    assert (only(examine(), "alerts").status, only(examine(), "alerts").text) == ("ok", "all delivered and seen")
    with closing(sqlite3.connect(data / "haltline.db")) as rows, rows:
        rows.execute("INSERT INTO events VALUES (1, 1, 'agent.halted', NULL, NULL, NULL, NULL, x'7b7d', x'00')")
        rows.execute(
            "INSERT INTO episodes (id, public_id, about, cause, state, severity, opened_us, last_us, told_us)"
            " VALUES (1, 'epi_1', 'everything', 'c', 'open', 'critical', 1, 1, 1)"
        )
        rows.execute(
            "INSERT INTO alerts (id, public_id, event_seq, at_us, kind, body, episode_id)"
            " VALUES (1, 'alt_1', 1, 1, 'agent.halted', x'7b7d', 1)"
        )
        for state, ended_us in (("pending", None), ("parked", 1)):
            rows.execute(
                "INSERT INTO deliveries (alert_id, channel, lane, state, next_us, ended_us) VALUES (1, 'c', 'l', ?, 1, ?)",
                (state, ended_us),
            )
    found = examine()["alerts"]
    assert [one.status for one in found] == ["warn"] * 3
    assert found[0].text == "1 delivery was given up"
    assert found[1].text.startswith("1 delivery waits, the oldest for ")
    assert found[2].text == "1 episode that nobody acknowledged"
