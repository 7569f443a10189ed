"""A stretch of a call's task that can be cancelled from outside it, entered for every call twice.

As anyio's `CancelScope`, with what a call needs of it alone: entered once, by one task, and told once. anyio's own tells a
task again for as long as it does not listen, and costs ten times as much.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Scope"]


class Scope:
    """Swallows the cancellation that it caused, and no other. Not to be entered once it is cancelled."""

    __slots__ = ("_before", "_struck", "_task", "cancel_called")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._before = 0
        self._struck = False
        self.cancel_called = False

    def cancel(self) -> None:
        """Cancel what runs in it at its next await, if it is still in it then."""
        if self.cancel_called:
            return
        self.cancel_called = True
        if self._task is None:
            return
        if self._task is asyncio.current_task():  # it has left this scope, maybe, when it awaits next
            asyncio.get_running_loop().call_soon(self._strike)
        else:
            self._strike()

    def _strike(self) -> None:
        if self._task is not None:
            self._struck = True
            self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert not self.cancel_called
        self._task, self._before = task, task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if not self._struck or task is None:
            return False
        return task.uncancel() <= self._before and kind is asyncio.CancelledError
