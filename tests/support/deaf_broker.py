"""A build of the broker whose stops cancel nothing that runs: what drills exist to find out. `serve` as the real one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio

from haltline.app import serve
from haltline.calls.running import RunningCalls
from haltline.commands.serve import _announce
from haltline.setup.settings import load_settings

__all__: list[str] = []


class Deaf(RunningCalls):
    def stop(self, **_: Any) -> int:
        return 0


if __name__ == "__main__":
    told = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    settings = load_settings(Path(told["--config"]))
    token_file = Path(told["--operator-token-file"])
    anyio.run(lambda: serve(settings, on_ready=lambda started: _announce(started, token_file), calls=Deaf()))
