"""A notification on the desktop of whoever runs the broker, by `notify-send`, which most Linux desktops have."""

from __future__ import annotations

import html
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import anyio

from haltline.alerts.model import Later, Never
from haltline.alerts.text import balance_line, cause
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from haltline.alerts.model import Act, Delivery
    from haltline.alerts.settings import DesktopSettings

__all__ = ["COMMAND", "DesktopChannel"]

COMMAND = "notify-send"
_TIMEOUT_S = 5.0
_URGENCY = {"critical": "critical", "warning": "normal", "info": "low"}


class DesktopChannel:
    kind = "desktop"
    acts: frozenset[Act] = frozenset({"trigger", "notice"})

    def __init__(self, settings: DesktopSettings, command: str | None = None) -> None:
        """Raises ConfigError where the program is not there."""
        self.name = settings.name
        found = command or shutil.which(COMMAND)
        if found is None:
            raise ConfigError(
                f"alert channel {self.name}: {COMMAND} is not installed here; install libnotify, or leave this channel out"
            )
        self._command = found

    async def send(self, delivery: Delivery) -> None:
        alert = delivery.alert
        title = f"{alert.headline or 'Haltline'}: {alert.agent or alert.tool or 'everything'}"
        # The body may be read as markup; what follows -- is never read as an option.
        lines = [cause(alert), *(balance_line(one) for one in alert.balances[:2]), *alert.commands[:1]]
        body = html.escape("\n".join(lines), quote=False)
        options = ("--app-name=Haltline", f"--urgency={_URGENCY[alert.severity]}")
        try:
            with anyio.fail_after(_TIMEOUT_S):
                done = await anyio.run_process(
                    [self._command, *options, "--", title, body],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        except TimeoutError:
            raise Later(f"{COMMAND} does not end; is there a desktop session?") from None
        except OSError as error:
            raise Never(f"{COMMAND} cannot be started: {os.strerror(error.errno or 0)}") from None
        if done.returncode:
            raise Later(f"{COMMAND} failed with exit code {done.returncode}; is there a desktop session?")

    async def aclose(self) -> None:
        """Nothing is held open."""
