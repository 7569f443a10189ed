"""How much memory a process took at most since a moment, from /proc."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Peak"]

_RESET_PEAK = "5"


class Peak:
    """From when it is made. `grown_mb` is the highest resident memory since, over that at the start."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        (self._proc / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        self._before = self._mb("VmRSS:")

    def grown_mb(self) -> float:
        return max(0.0, self._mb("VmHWM:") - self._before)

    def _mb(self, name: str) -> float:
        lines = (self._proc / "status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
