"""The errors of a broken world. An expected refusal is never one of these: it is a `Decision` value.

HaltlineError
├── ConfigError          haltline.yaml, a policy file, an environment value     exit 3
├── StoreError           the database cannot be opened, is foreign or is full   exit 1
│   └── StoreUnavailable a commit failed: nothing may be dispatched             exit 1
├── RequestError         an operator asked for something impossible             exit 1
│   ├── NotFound         no such agent, session, call …
│   └── Conflict         it exists already, or is in another state
└── Forbidden            this operator credential may not do that               exit 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ConfigError",
    "Conflict",
    "Forbidden",
    "HaltlineError",
    "NotFound",
    "Problem",
    "RequestError",
    "StoreError",
    "StoreUnavailable",
]


class HaltlineError(Exception):
    """Says what happened and what to do. `exit_code` is the command line's (design, section 6)."""

    exit_code = 1
    code = "error"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration file: where (file, 1-based line, dotted key) and what to do about it."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(HaltlineError):
    """Configuration or policy that cannot be used; carries every problem found, not only the first."""

    exit_code = 3
    code = "config.invalid"

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems: tuple[Problem, ...] = () if isinstance(problems, str) else tuple(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(str(p) for p in problems))


class StoreError(HaltlineError):
    """The data folder or its database cannot be used."""

    code = "store.unusable"


class StoreUnavailable(StoreError):
    """A transaction could not be committed, so nothing that depends on it may happen (P1, R12)."""

    code = "store.unavailable"


class RequestError(HaltlineError):
    """An operator asked for something that cannot be done."""

    code = "request.invalid"


class NotFound(RequestError):
    """No agent, session, call, hold or operator of that name."""

    code = "request.not_found"


class Conflict(RequestError):
    """It exists already, or its state does not allow this."""

    code = "request.conflict"


class Forbidden(HaltlineError):
    """The operator credential is of a class that may not loosen anything (R21)."""

    exit_code = 2
    code = "operator.forbidden"
