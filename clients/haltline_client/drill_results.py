"""The shape of a drill's result: its timeline, for type checkers and readers, and nothing at run time."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["DrillStep", "Drilled"]


class DrillStep(TypedDict):
    """One thing that was to be shown; `at_ms` is when it was done, since the drill began. `not_shown` is no failure."""

    step: str
    state: Literal["ok", "failed", "not_shown"]
    text: str
    took_ms: int
    at_ms: int


class Drilled(TypedDict):
    """A drill that ran. `failed` names the first step that did not hold; `systems` counts what had to be touched to stop."""

    drill: str
    ok: bool
    agent: str
    session: str
    how: Literal["revoke", "halt"]
    failed: str | None
    systems: int
    took_ms: int
    at: str
    steps: list[DrillStep]
