"""The wheel where no checkout is near: the command starts, writes its policies, and its demo holds.

Short form: the wheel is unpacked beside the dependencies of this environment. Full form (HALTLINE_PROOFS=full): it is
installed with its dependencies into a new, empty environment, which needs a package registry.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("HALTLINE_PROOFS") == "full"
PATIENCE_S = 600

Run = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the installed Python with arguments, in a folder far from the checkout."""
    wheels, place, away = (tmp_path_factory.mktemp(name) for name in ("wheel", "installed", "away"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HALTLINE_", "PYTHONPATH"))}
    ran(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, ROOT, folder=away, environ=kept)
    (wheel,) = wheels.glob("*.whl")
    if FULL:
        ran(sys.executable, "-m", "venv", place, folder=away, environ=kept)
        python = place / "bin" / "python"
        ran(python, "-m", "pip", "install", "--quiet", wheel, folder=away, environ=kept)
    else:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(place)
        python, kept = Path(sys.executable), {**kept, "PYTHONPATH": str(place)}
    return lambda *arguments: ran(python, *arguments, folder=away, environ=kept)


def ran(*command: str | Path, folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_what_runs_is_the_wheel_and_not_the_checkout(installed):
    where = installed("-c", "import haltline, haltline_client; print(haltline.__file__, haltline_client.__file__)")
    assert str(ROOT) not in where.replace(str(ROOT / ".venv"), "")


def test_it_writes_the_policies_that_it_carries_and_finds_them_valid(installed):
    assert "wrote here/policies/tiers.yaml" in installed("-m", "haltline", "init", "here")
    assert " 0 failed, " in installed("-m", "haltline", "doctor", "--config", "here/haltline.yaml")


def test_its_demo_holds(installed):
    print(installed("-m", "haltline", "demo"))
