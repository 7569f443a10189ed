"""An upstream of Python functions: those that one file, module or entry point marks with `@haltline.tool`.

They run in the broker's process, once for all agents, each call in a thread or a task of its own. What cannot be loaded
takes down this upstream alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from haltline.policy.policy import ToolDeclared
from haltline.upstreams import faults
from haltline.upstreams.messages import METHOD_NOT_FOUND
from haltline.upstreams.model import Caller, NotSent, UpstreamCall, UpstreamSpec
from haltline.upstreams.places import Places
from haltline.upstreams.python_loader import LoadFailed, load
from haltline.upstreams.python_runs import Begin, Job, TaskThread, in_thread
from haltline.upstreams.python_tools import PythonTool
from haltline.upstreams.tool_names import tool_name

__all__ = ["PythonUpstream"]

log = structlog.get_logger(__name__)

CLOSE_S = 1.0
_INVALID_PARAMS = -32602
_NONE: Mapping[str, PythonTool] = MappingProxyType({})


class PythonUpstream:
    """`load` first: it runs the author's module, once."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self._spec = spec
        self._places = Places(spec.name, spec.max_concurrent)
        self._tools = _NONE
        self._trouble: str | None = None
        self._loaded = False
        self._loading = asyncio.Lock()
        self._tasks = TaskThread(spec.name)
        self._jobs: set[Job] = set()

    @property
    def spec(self) -> UpstreamSpec:
        return self._spec

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return {}

    @property
    def declared(self) -> dict[str, ToolDeclared]:
        """What the code of each tool says of it, by the name that agents see."""
        prefix = self._spec.name if self._spec.prefix is None else self._spec.prefix
        return {tool_name(prefix, name): _declared(tool) for name, tool in self._tools.items()}

    def watch(self, changed: Callable[[], None]) -> None:
        """Its tools never change."""

    async def load(self) -> None:
        """Never raises: what is wrong is said when its tools are listed."""
        async with self._loading:
            if self._loaded:
                return
            within_s = 3 * self._spec.connect_timeout_s
            try:
                async with asyncio.timeout(within_s):
                    self._tools = await _in_thread(lambda: _tools(self._spec))
            except TimeoutError:
                self._trouble = f"loading it has not ended within {within_s:g} s"
            except LoadFailed as error:
                self._trouble = str(error)
            except Exception as error:  # whatever breaks in loading affects this upstream alone
                log.exception("tools_not_loaded", upstream=self._spec.name)
                self._trouble = f"it cannot be loaded ({type(error).__name__}); see the log"
            self._loaded = True

    async def list_tools(self) -> list[Any]:
        await self.load()
        if self._trouble is not None:
            raise faults.failed_to_start(self._spec.name, self._trouble)
        return [tool.definition for tool in self._tools.values()]

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        if call.method != "tools/call":
            return {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
        await self.load()
        if self._trouble is not None:
            raise faults.failed_to_start(self._spec.name, self._trouble)
        tool = self._tools.get(str(call.params.get("name")))
        if tool is None:
            return {"error": {"code": _INVALID_PARAMS, "message": "Unknown tool"}}
        deadline = asyncio.get_running_loop().time() + call.deadline_s
        await self._places.take(call.caller.agent_id, deadline)
        return {"result": await self._run(tool, call, deadline)}

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """Nothing here belongs to one caller but its calls, and those are cancelled one by one."""

    async def aclose(self) -> None:
        for job in list(self._jobs):
            job.give_up()
        await self._tasks.close(CLOSE_S)

    async def _run(self, tool: PythonTool, call: UpstreamCall, deadline: float) -> dict[str, Any]:
        """Holds a place, which goes back when the function has ended, however late that is."""
        if asyncio.get_running_loop().time() >= deadline:
            self._places.give_back(call.caller.agent_id)
            raise faults.too_late_to_send(self._spec.name)
        job = Job(self._spec.name, tool, call, lambda job: self._end(job, call.caller))
        begin = self._prepared(job, call)
        try:
            call.before_send()
        except BaseException:
            begin(False)
            raise
        begin(True)
        try:
            async with asyncio.timeout_at(deadline):
                return await job.result
        except TimeoutError as error:
            job.give_up()
            raise faults.overdue(self._spec.name, call.deadline_s) from error
        except asyncio.CancelledError:
            job.give_up()
            raise

    def _prepared(self, job: Job, call: UpstreamCall) -> Begin:
        self._jobs.add(job)
        try:
            return self._tasks.job(job) if job.tool.is_async else in_thread(job)
        except RuntimeError as error:
            self._end(job, call.caller)
            raise NotSent(
                "upstream.busy", f"{self._spec.name} is busy: no thread can be started", str(error)
            ) from error

    def _end(self, job: Job, caller: Caller) -> None:
        self._jobs.discard(job)
        self._places.give_back(caller.agent_id)


def _tools(spec: UpstreamSpec) -> dict[str, PythonTool]:
    return {one.name: PythonTool(one, spec.name, spec.max_result_bytes) for one in load(spec)}


def _declared(tool: PythonTool) -> ToolDeclared:
    said = tool.declaration
    read_only = None if said.side_effects is None else not said.side_effects
    return ToolDeclared(f"{Path(said.file).name}:{said.line}", said.price, read_only, said.timeout_s, said.destination)


async def _in_thread(work: Callable[[], dict[str, PythonTool]]) -> dict[str, PythonTool]:
    """In a daemon thread: a module that never ends loading must not keep the broker from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[dict[str, PythonTool]] = loop.create_future()

    def tell(result: dict[str, PythonTool] | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        elif result is not None:
            done.set_result(result)

    def run() -> None:
        try:
            result, error = work(), None
        except Exception as raised:  # noqa: BLE001 - handed on to who waits
            result, error = None, raised
        with suppress(RuntimeError):  # the broker has ended meanwhile
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="tools-loading", daemon=True).start()
    return await done
