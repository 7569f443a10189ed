"""The wheel: what it installs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    ran = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def metadata(wheel: zipfile.ZipFile, name: str) -> Message:
    (file,) = [one for one in wheel.namelist() if one.endswith(f".dist-info/{name}")]
    return Parser().parsestr(wheel.read(file).decode())


def test_it_installs_two_packages_and_nothing_named_after_a_folder(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"haltline", "haltline_client"}


def test_the_policies_travel_as_data(wheel):
    inside = {name.removeprefix("haltline/_policies/") for name in wheel.namelist() if "haltline/_policies/" in name}
    ours = {str(file.relative_to(ROOT / "policies")) for file in (ROOT / "policies").rglob("*") if file.is_file()}
    assert inside == ours
    assert {"tiers.yaml", "tools.yaml"} <= inside


def test_data_that_the_packages_read_travels_too(wheel):
    names = set(wheel.namelist())
    assert {"haltline/setup/starter.yaml", "haltline/py.typed", "haltline_client/py.typed"} <= names
    migrations = {file.name for file in (ROOT / "server/haltline/store/migrations").iterdir()}
    assert {f"haltline/store/migrations/{name}" for name in migrations} <= names


def test_every_module_of_the_checkout_is_in_it(wheel):
    for folder in (ROOT / "server", ROOT / "clients"):
        ours = {str(file.relative_to(folder)) for file in folder.rglob("*.py")}
        assert ours - set(wheel.namelist()) == set()


def test_the_command_and_the_licence_are_in_it(wheel):
    (points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "haltline = haltline.cli:main" in wheel.read(points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert metadata(wheel, "METADATA")["Requires-Python"] == ">=3.11"
