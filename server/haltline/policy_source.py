"""The policy in force and the folder it comes from: loading, noticing edits, keeping the old one when the new is broken (R26).

`current` is None only while no policy of this folder has ever been good: then agents are refused. Knows no watcher and no
signal; who calls `reload` and when is the application's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from haltline.errors import ConfigError, Problem
from haltline.policy.policy import Policy, ToolDefaults, load_policy

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

__all__ = ["PolicySource"]

log = structlog.get_logger(__name__)
_NO_DEFAULTS: Mapping[str, ToolDefaults] = MappingProxyType({})
_RECENT = 16
_Seen = tuple[tuple[str, int, int, int], ...]


class PolicySource:
    """Starts empty; `reload` takes up what the folder holds. Values are swapped whole, so any thread may read them."""

    def __init__(
        self,
        folder: Path,
        defaults: Mapping[str, ToolDefaults] = _NO_DEFAULTS,
        channels: Collection[str] | None = None,
    ) -> None:
        self.folder = folder
        self.current: Policy | None = None
        self.problems: tuple[Problem, ...] = ()
        self._defaults = defaults
        self._channels = channels
        self._seen: _Seen | None = None
        self._recent: dict[str, Policy] = {}

    def reload(self) -> bool:
        """Whether another policy is in force now. Never raises: what is wrong stands in `problems`, and nothing changes."""
        self._seen = self._look()  # before reading, so that an edit during it is seen as one
        try:
            policy = load_policy(self.folder, self._defaults, self._channels)
        except ConfigError as error:
            self.problems = error.problems or (Problem(str(self.folder), None, "", str(error)),)
            return False
        except Exception as error:  # named boundary: a policy that cannot be read is a broken one (R26)
            log.exception("policy_unreadable", folder=str(self.folder))
            self.problems = (Problem(str(self.folder), None, "", f"cannot be read: {type(error).__name__}"),)
            return False
        self.problems = ()
        changed = self.current is None or policy.version != self.current.version
        if changed:
            self.current = policy
            self._recent.pop(policy.version, None)
            self._recent[policy.version] = policy
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
        return changed

    def of(self, version: str) -> Policy | None:
        """The policy of this version, while it is among the latest in force: a call settles under the one that admitted it."""
        return self._recent.get(version)

    @property
    def zone(self) -> str:
        """Whose days and hours count; UTC while there is no policy."""
        return "UTC" if self.current is None else self.current.time_zone

    def changed_on_disk(self) -> bool:
        """Whether names, sizes or times differ from what `reload` last saw. Reads no file."""
        return self._look() != self._seen

    def _look(self) -> _Seen | None:
        try:
            found = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
            states = [(path.name, path.stat()) for path in found if path.suffix.lower() in {".yaml", ".yml"}]
        except OSError:
            return None
        return tuple(sorted((name, state.st_size, state.st_mtime_ns, state.st_ino) for name, state in states))
