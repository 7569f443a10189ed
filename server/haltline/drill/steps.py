"""A drill's timeline: what was to be shown, whether it held, and how long it took. Knows nothing of what a drill does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio

from haltline.drill.clients import Gone
from haltline.errors import HaltlineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from haltline_client.drill_results import DrillStep

__all__ = ["Fault", "Timeline", "all_refused", "since_ms"]

WITHIN_S = 5.0
"""What a step may take; what takes longer did not happen."""


class Fault(Exception):
    """A step did not show what it had to; the message says what was seen instead."""


class Timeline:
    def __init__(self) -> None:
        self._begun = time.monotonic()
        self.steps: list[DrillStep] = []

    @property
    def failed(self) -> str | None:
        """The first step that did not hold."""
        return next((one["step"] for one in self.steps if one["state"] == "failed"), None)

    @property
    def took_ms(self) -> int:
        return since_ms(self._begun)

    async def step(self, name: str, show: Callable[[], Awaitable[str]], within_s: float = WITHIN_S) -> bool:
        """Do one, and note what it showed. Whether it held."""
        begun = time.monotonic()
        try:
            with anyio.fail_after(within_s):
                text, held = await show(), True
        except TimeoutError:
            text, held = f"it did not happen within {within_s:g} s", False
        except (Fault, Gone, HaltlineError) as error:
            text, held = str(error), False
        self._note(name, "ok" if held else "failed", text, begun)
        return held

    def broken_off(self, why: str) -> None:
        self._note("the whole drill", "failed", why, self._begun)

    def _note(self, name: str, state: Any, text: str, begun: float) -> None:
        step: DrillStep = {
            "step": name,
            "state": state,
            "text": text,
            "took_ms": since_ms(begun),
            "at_ms": self.took_ms,
        }
        self.steps.append(step)


def since_ms(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)


def all_refused(answers: Sequence[dict[str, Any]], code: str) -> None:
    """Raises Fault unless each of these was refused with this code."""
    wrong = [one for one in answers if one["ok"] or one["code"] != code]
    if wrong or not answers:
        seen = "no call was made" if not answers else f"a call was answered: {wrong[0]['text'] or wrong[0]['code']}"
        raise Fault(f"refusals with {code} were wanted; {seen}")
