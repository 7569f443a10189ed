"""A notification on the desktop of whoever runs the broker, by the program that is there for it."""

from __future__ import annotations

import html
import os
import subprocess
from typing import TYPE_CHECKING

import anyio

from haltline.alerts.here import LINUX, MAC, Program, program
from haltline.alerts.model import Later, Never
from haltline.alerts.text import balance_line, cause
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Delivery
    from haltline.alerts.settings import DesktopSettings

__all__ = ["DesktopChannel"]

_TIMEOUT_S = 5.0
_SCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)
"""What is told are its arguments, never a part of it."""
_URGENCY = {"critical": "critical", "warning": "normal", "info": "low"}


class DesktopChannel:
    kind = "desktop"
    acts: frozenset[Act] = frozenset({"trigger", "notice"})

    def __init__(self, settings: DesktopSettings, found: Program | None = None) -> None:
        """Raises ConfigError where no program is there."""
        self.name = settings.name
        found = found or program(os.environ)
        if found is None:
            raise ConfigError(
                f"alert channel {self.name}: {LINUX} is not installed here; install libnotify, or leave this channel out"
            )
        self._program = found

    async def send(self, delivery: Delivery) -> None:
        alert = delivery.alert
        title = f"{alert.headline or 'Haltline'}: {alert.agent or alert.tool or 'everything'}"
        lines = [cause(alert), *(balance_line(one) for one in alert.balances[:2]), *alert.commands[:1]]
        command = self._program.name
        try:
            with anyio.fail_after(_TIMEOUT_S):
                done = await anyio.run_process(
                    self._arguments(title, "\n".join(lines), alert.severity),
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        except TimeoutError:
            raise Later(f"{command} does not end; is there a desktop session?") from None
        except OSError as error:
            raise Never(f"{command} cannot be started: {os.strerror(error.errno or 0)}") from None
        if done.returncode:
            raise Later(f"{command} failed with exit code {done.returncode}; is there a desktop session?")

    def _arguments(self, title: str, body: str, severity: str) -> list[str]:
        if self._program.name == MAC:
            return [self._program.path, *(part for line in _SCRIPT for part in ("-e", line)), title, body]
        # The body may be read as markup; what follows -- is never read as an option.
        options = ("--app-name=Haltline", f"--urgency={_URGENCY[severity]}")
        return [self._program.path, *options, "--", title, html.escape(body, quote=False)]

    async def aclose(self) -> None:
        """Nothing is held open."""
