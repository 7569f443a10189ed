"""`haltline serve` as a person meets it: the first start, what is in its way, reloading, being told to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from bench import processes
from haltline.store.database import migrations
from support.broker_process import broker_process

POLICY = """
version: "1"
currency: USD
tiers: {t: {tools: ["*"], caps: {day: "5.00"}}}
tools: {"*": {price: "0.05"}}
"""
DEADLINE_S = 30


def serve(folder, *arguments, **more):
    """Run `haltline serve` to its end."""
    command = [sys.executable, "-m", "haltline", "serve", "--control", "127.0.0.1:0", *arguments]
    if "--agents" not in arguments:
        command += ["--agents", "127.0.0.1:0"]
    return subprocess.run(
        command,
        cwd=folder,
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        **more,
    )


def until(holds):
    """Look until it holds; the deadline fails the test, it does not pace it."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        os.sched_yield()


class Serving:
    """A broker started in a folder, until the block ends."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        command = [sys.executable, "-m", "haltline", "serve", "--agents", "127.0.0.1:0", "--control", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=processes.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: (self.folder / "haltline-data" / "endpoints.json").exists() or self.process.poll() is not None)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.out, self.err = self.process.communicate(timeout=DEADLINE_S)


@pytest.mark.promise("P9", "R21")
def test_an_empty_folder_gets_all_it_needs_and_the_credential_is_shown_once(tmp_path):
    with Serving(tmp_path) as first:
        data = tmp_path / "haltline-data"
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert stat.S_IMODE((data / "local-operator.token").stat().st_mode) == 0o600
    assert first.process.returncode == 0
    tokens = [line for line in first.out.splitlines() if line.startswith("hl_o_")]
    assert len(tokens) == 1
    assert (tmp_path / "policies" / "tiers.yaml").exists()
    assert (tmp_path / "haltline.yaml").exists()
    assert not (data / "endpoints.json").exists()
    assert "Haltline is ready." in first.err
    with Serving(tmp_path) as second:
        pass
    assert "hl_o_" not in second.out + second.err
    stored = b"".join(
        file.read_bytes() for file in data.rglob("*") if file.is_file() and file.name != "local-operator.token"
    )
    assert tokens[0].encode() not in stored


def test_a_second_broker_on_the_same_data_says_who_has_it(tmp_path):
    with Serving(tmp_path) as first:
        second = serve(tmp_path)
        assert second.returncode == 1
        assert f"in use by haltline, pid {first.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr


def test_a_busy_port_says_which_and_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = serve(tmp_path, "--agents", f"127.0.0.1:{port}")
    assert ran.returncode == 3
    assert f"127.0.0.1:{port}" in ran.stderr
    assert "--agents HOST:PORT" in ran.stderr


@pytest.mark.parametrize("what", ["newer", "foreign", "readable by others", "a key is missing"])
def test_a_data_folder_that_cannot_be_used_is_left_as_it_is(tmp_path, what):
    with Serving(tmp_path):
        pass
    data = tmp_path / "haltline-data"
    with sqlite3.connect(data / "haltline.db") as connection:
        if what == "newer":
            connection.execute("PRAGMA user_version = 99")
        if what == "foreign":
            connection.execute("PRAGMA application_id = 7")
    connection.close()
    if what == "readable by others":
        data.chmod(0o755)
    if what == "a key is missing":
        (data / "keys" / "pepper").unlink()
    before = (data / "haltline.db").read_bytes()
    ran = serve(tmp_path)
    assert ran.returncode == 1
    words = {
        "newer": "schema 99",
        "foreign": "another program",
        "readable by others": "chmod 700",
        "a key is missing": "backup",
    }
    assert words[what] in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (data / "haltline.db").read_bytes() == before


def test_an_older_schema_is_backed_up_and_migrated(tmp_path):
    with Serving(tmp_path):
        pass
    data = tmp_path / "haltline-data"
    (data / "haltline.db").unlink()
    connection = sqlite3.connect(data / "haltline.db")
    connection.executescript(f"{migrations()[1]} PRAGMA application_id = {0x484C544C}; PRAGMA user_version = 1;")
    connection.close()
    with Serving(tmp_path) as again:
        pass
    assert again.process.returncode == 0
    assert list(data.glob("haltline.db.before-*"))


@pytest.mark.promise("R26")
@pytest.mark.parametrize("signalled", [True, False], ids=["SIGHUP", "on change"])
def test_a_policy_is_taken_once_it_is_valid_and_a_broken_one_changes_nothing(tmp_path, signalled):
    with broker_process(tmp_path / "b", upstreams={}, policy=POLICY) as broker, ExitStack() as stack:
        file = broker.folder / "policies" / "policy.yaml"

        def write(text):
            replacement = broker.folder / "new.yaml"
            replacement.write_text(text)
            replacement.replace(file)
            if signalled:
                os.kill(broker.pid, signal.SIGHUP)

        control = broker.control()
        stack.callback(control.close)

        def policy():
            return control.status()["policy"]

        before = policy()["version"]
        write(POLICY.replace("5.00", "6.00"))
        until(lambda: policy()["version"] != before)
        in_force = policy()["version"]
        write(POLICY.replace("day:", "dya:"))
        until(lambda: policy()["problems"])
        assert policy()["version"] == in_force
        assert "dya" in json.dumps(policy()["problems"])
        write(POLICY)
        until(lambda: policy()["version"] == before)
        kinds = [event["kind"] for event in control.query_audit(kind="policy.loaded")["events"]]
        assert len(kinds) == 3
        assert len(control.query_audit(kind="policy.rejected")["events"]) == 1


@pytest.mark.promise("R26")
def test_a_policy_that_is_broken_at_start_leaves_the_control_face_up(tmp_path):
    with Serving(tmp_path):
        pass
    shutil.rmtree(tmp_path / "policies")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text("version: '1'\ntires: {}\n")
    with Serving(tmp_path) as broken:
        command = [sys.executable, "-m", "haltline", "status", "--json"]
        ran = subprocess.run(
            command, cwd=tmp_path, env=processes.environment(), capture_output=True, text=True, check=False
        )
        assert json.loads(ran.stdout)["ready"] is False
        assert "policy" in json.loads(ran.stdout)["not_ready_because"]
    assert "NOT READY" in broken.err
