"""The files that a first start, or `haltline init`, writes: a commented haltline.yaml and the shipped policies.

Never overwrites anything. Knows where the policies are: in the package of an installed Haltline, at the top of a checkout.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from haltline.errors import ConfigError, Problem
from haltline.setup.settings import CONFIG_NAME

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["shipped_policies", "write_starter"]

_IN_PACKAGE = "_policies"
_IN_CHECKOUT = "policies"


def write_starter(folder: Path) -> list[Path]:
    """Write haltline.yaml, and policies/ if that folder holds none; returns the files that were written.

    Raises ConfigError when the folder cannot be written.
    """
    written: list[Path] = []
    config, policies = folder / CONFIG_NAME, folder / "policies"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            written.append(_write(config, resources.files("haltline.setup") / "starter.yaml"))
        if not policies.is_dir() or not any(policies.rglob("*.yaml")):
            written += _copy(shipped_policies(), policies)
    except OSError as error:
        where = str(error.filename or folder)
        raise ConfigError([Problem(where, None, "", f"cannot be written: {error.strerror}")]) from error
    return written


def shipped_policies() -> Traversable:
    """The folder of the policies that come with this Haltline. Raises ConfigError when it is not there."""
    inside = resources.files("haltline") / _IN_PACKAGE
    if inside.is_dir():
        return inside
    checkout = Path(__file__).parents[3] / _IN_CHECKOUT
    if checkout.is_dir():
        return checkout
    raise ConfigError("this installation of haltline has no policies in it; install it again")


def _copy(source: Traversable, target: Path) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for entry in sorted(source.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            written += _copy(entry, target / entry.name)
        elif entry.name.endswith((".yaml", ".md", ".json")) and not (target / entry.name).exists():
            written.append(_write(target / entry.name, entry))
    return written


def _write(target: Path, source: Traversable) -> Path:
    # "x": a file that appears at the same moment is somebody's, and stays.
    with target.open("xb") as file:
        file.write(source.read_bytes())
    return target
