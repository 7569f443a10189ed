"""Whether there is a desktop here that could be told, and by which program: `notify-send` on Linux, `osascript` on a Mac."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Program", "desktop_here", "program"]

LINUX, MAC = "notify-send", "osascript"


@dataclass(frozen=True, slots=True)
class Program:
    """Which one it is decides how it is told."""

    name: str
    path: str


def program(environ: Mapping[str, str], platform: str = sys.platform) -> Program | None:
    """The one that is installed here, wherever it would lead."""
    name = MAC if platform == "darwin" else LINUX
    path = shutil.which(name, path=environ.get("PATH"))
    return None if path is None else Program(name, path)


def desktop_here(environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether somebody would see it: the program, and a session of a desktop that this process belongs to.

    A service, a container or a shell over the network has none, and is left alone.
    """
    if program(environ, platform) is None:
        return False
    if platform == "darwin":
        return "SSH_CONNECTION" not in environ
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return False
    runtime = environ.get("XDG_RUNTIME_DIR")
    return bool(environ.get("DBUS_SESSION_BUS_ADDRESS")) or (runtime is not None and (Path(runtime) / "bus").exists())
