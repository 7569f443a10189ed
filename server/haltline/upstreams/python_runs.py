"""Running a function outside of the broker's own event loop: in a thread for each call, or as a task of a loop of its own.

A blocking function holds up nothing but its own thread; an async one that blocks holds up the async functions of its
upstream. A thread cannot be ended: what it returns after its call was given up is dropped, and logged.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import structlog

from haltline.authoring import Context
from haltline.upstreams.messages import progress_token
from haltline.upstreams.python_tools import error_result

if TYPE_CHECKING:
    from haltline.upstreams.model import UpstreamCall
    from haltline.upstreams.python_tools import PythonTool

__all__ = ["MAX_PROGRESS", "Begin", "Job", "TaskThread", "in_thread"]

log = structlog.get_logger(__name__)

MAX_PROGRESS = 10_000
"""Messages of one call; what is reported beyond is dropped."""
MAX_MESSAGE = 1_000
Begin = Callable[[bool], None]
"""True: run it now. False: it shall not run."""


class Job:
    """One call of a function. Made on the broker's loop, where `result` is awaited and `ended` is called, once."""

    def __init__(self, upstream: str, tool: PythonTool, call: UpstreamCall, ended: Callable[[Job], None]) -> None:
        self.tool = tool
        arguments = call.params.get("arguments")
        self.arguments: Mapping[str, Any] = arguments if isinstance(arguments, dict) else {}
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._token = progress_token(call.params)
        self._notify = call.on_notification
        self._on_late = call.on_late
        self._told = 0
        who = call.caller
        self._said = {"upstream": upstream, "tool": tool.name, "agent": who.agent, "session": who.session_id}
        self.context = Context(agent=who.agent, session=who.session_id, task=who.task, report=self._report)
        self._ended = ended
        self._call_off: Callable[[], None] = lambda: None

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self.context.cancelled.set()
        self._call_off()

    def on_give_up(self, call_off: Callable[[], None]) -> None:
        self._call_off = call_off

    def finish(self, result: dict[str, Any] | None) -> None:
        """From any thread: it has ended. None: it did not run, or was cancelled."""
        self._soon(self._finished, result)

    def _finished(self, result: dict[str, Any] | None) -> None:
        self._ended(self)
        if not self.result.done():
            self.result.set_result(error_result(f"{self.tool.name} was cancelled") if result is None else result)
        elif result is not None:
            log.warning("late_result_dropped", **self._said, is_error=bool(result.get("isError")))
            self._on_late({"result": result})

    def _report(self, done: float, total: float | None, message: str | None) -> None:
        params: dict[str, Any] = {"progressToken": self._token, "progress": _number(done)}
        if total is not None:
            params["total"] = _number(total)
        if message is not None:
            params["message"] = str(message)[:MAX_MESSAGE].encode("utf-8", "replace").decode("utf-8")
        self._told += 1
        if self._token is not None and self._told <= MAX_PROGRESS:
            self._soon(self._tell, {"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def _tell(self, message: dict[str, Any]) -> None:
        if not self.result.done():
            self._notify(message)

    def _soon(self, what: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the broker has ended meanwhile
            self._loop.call_soon_threadsafe(what, value)


def in_thread(job: Job) -> Begin:
    """A thread that waits for the word. Raises RuntimeError when the system gives none."""
    word: SimpleQueue[bool] = SimpleQueue()

    def run() -> None:
        go = word.get() and not job.context.cancelled
        job.finish(job.tool.run(job.arguments, job.context) if go else None)

    threading.Thread(target=run, name=f"tool-{job.tool.name}", daemon=True).start()
    return word.put


class TaskThread:
    """An event loop in a thread of its own, from its first job until `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()
        self._thread: threading.Thread | None = None

    def job(self, job: Job) -> Begin:
        """Raises RuntimeError when the system gives no thread."""
        loop = self._started()

        def begin(go: bool) -> None:
            if go:
                # In a context of its own: nothing of the broker's is seen by the function.
                loop.call_soon_threadsafe(_start, loop, job, context=contextvars.Context())
            else:
                job.finish(None)

        return begin

    async def close(self, within_s: float) -> None:
        """Cancel what runs in it and let it end; what does not is left to the end of the process."""
        if self._loop is None or self._thread is None:
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._closing.set)
        await asyncio.to_thread(self._thread.join, within_s)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None:
            return self._loop
        loop = asyncio.new_event_loop()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._until_closed())

        thread = threading.Thread(target=run, name=f"tools-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            loop.close()
            raise
        self._loop, self._thread = loop, thread
        return loop

    async def _until_closed(self) -> None:
        await self._closing.wait()


def _start(loop: asyncio.AbstractEventLoop, job: Job) -> None:
    if job.context.cancelled:
        job.finish(None)
        return
    task = loop.create_task(job.tool.run_async(job.arguments, job.context))
    task.add_done_callback(lambda done: job.finish(None if done.cancelled() else done.result()))
    job.on_give_up(lambda: _call_off(loop, task))
    if job.context.cancelled:  # given up while it was being made
        task.cancel()


def _call_off(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with suppress(RuntimeError):  # its loop has ended
        loop.call_soon_threadsafe(task.cancel)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"progress is told in numbers, not as {value!r:.40}")
    return value
