"""The data folder: whose it is, who may look into it, one broker at a time, keys that are made once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from haltline.errors import StoreError
from haltline.store.folder import DataFolder, write_private

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from haltline.store.folder import DataFolder
folder = DataFolder.claim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        DataFolder.claim(path)
    return str(caught.value)


@pytest.mark.promise("P9")
def test_a_new_folder_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        folder = DataFolder.claim(tmp_path / "some" / "data")
    finally:
        os.umask(before)
    assert mode(folder.path) == 0o700
    folder.release()


@pytest.mark.promise("P9")
@pytest.mark.parametrize("bits", [0o755, 0o750, 0o701, 0o770])
def test_a_folder_that_others_can_look_into_is_refused_with_the_command_that_mends_it(tmp_path, bits):
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(bits)
    assert f"chmod 700 {data}" in refused(data)
    assert mode(data) == bits, "nothing was changed"


@pytest.mark.parametrize("below", ["data", "some/data"])
def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path, below):
    # Below a file nobody can make a folder, root neither.
    (tmp_path / "file").write_text("")
    data = tmp_path / "file" / below
    said = refused(data)
    assert f"cannot create the data folder {data}" in said
    assert "Not a directory" in said


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    file = tmp_path / "data"
    file.write_text("mine")
    assert str(file) in refused(file)
    assert file.read_text() == "mine"


def test_a_folder_in_which_no_lock_can_be_written_is_refused(tmp_path):
    data = tmp_path / "data"
    (data / "lock").mkdir(parents=True)
    data.chmod(0o700)
    assert str(data) in refused(data)


def test_a_second_process_on_the_same_folder_is_refused_and_told_who_has_it(tmp_path):
    data = tmp_path / "data"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "server"), str(ROOT / "clients")])}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = refused(data)
        assert f"in use by haltline, pid {holder.pid}" in said
        assert "--data" in said
        holder.kill()
    DataFolder.claim(data).release()


def test_a_folder_that_was_released_can_be_claimed_again(tmp_path):
    DataFolder.claim(tmp_path / "data").release()
    DataFolder.claim(tmp_path / "data").release()


def test_a_key_is_made_once_readable_for_its_owner_alone(tmp_path):
    folder = DataFolder.claim(tmp_path / "data")
    key = folder.key("pepper", may_create=True)
    assert len(key) == 32
    assert folder.key("pepper", may_create=False) == key
    assert folder.key("signing", may_create=True) != key
    assert mode(folder.path / "keys") == 0o700
    assert mode(folder.path / "keys" / "pepper") == 0o600
    folder.release()


def test_a_key_that_has_gone_is_never_replaced_by_a_new_one(tmp_path):
    folder = DataFolder.claim(tmp_path / "data")
    with pytest.raises(StoreError, match="restore it from a backup"):
        folder.key("pepper", may_create=False)
    assert not (folder.path / "keys" / "pepper").exists()
    folder.release()


def test_half_a_key_is_no_key(tmp_path):
    folder = DataFolder.claim(tmp_path / "data")
    folder.key("pepper", may_create=True)
    (folder.path / "keys" / "pepper").write_bytes(b"short")
    with pytest.raises(StoreError, match="not a key of 32 bytes"):
        folder.key("pepper", may_create=True)
    folder.release()


@pytest.mark.promise("P9")
def test_a_private_file_is_private_and_whole(tmp_path):
    before = os.umask(0)
    try:
        write_private(tmp_path / "token", b"one")
        write_private(tmp_path / "token", b"two")
    finally:
        os.umask(before)
    assert (tmp_path / "token").read_bytes() == b"two"
    assert mode(tmp_path / "token") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]
