"""Tasks: calls that an upstream answers with a promise, asked about later by the id it gave (2025-11-25, and the extension
io.modelcontextprotocol/tasks of 2026-07-28).

The call that made a task was priced and paid; what asks about it afterwards goes through the broker as every request does,
free, within the scope of the tool that made it. A task belongs to the agent whose call made it; where it is is forgotten at
a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from haltline.gateway.brokered import Brokered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haltline.upstreams.catalog import Tool
    from haltline.wire.exchange import Exchange
    from haltline.wire.messages import Answer

__all__ = ["TASK_METHODS", "TaskMaking", "Tasks"]

TASK_METHODS = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/update"})
_REMEMBERED_MAX = 50_000


class Tasks:
    """Which tool of which upstream made a task, by the agent that it belongs to."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], Tool] = OrderedDict()
        self._of_agent: dict[str, dict[str, None]] = {}

    def learn(self, agent_id: str, answer: Mapping[str, Any], target: Tool) -> None:
        """Note the task that an answer promises, if it promises one."""
        task_id = _task_id(answer.get("result"))
        if task_id is not None:
            self._made[agent_id, task_id] = target
            self._of_agent.setdefault(agent_id, {})[task_id] = None
            if len(self._made) > _REMEMBERED_MAX:
                (owner, oldest), _ = self._made.popitem(last=False)
                del self._of_agent[owner][oldest]

    def made_by(self, agent_id: str, task_id: str) -> Tool | None:
        return self._made.get((agent_id, task_id))

    def of(self, agent_id: str, granted: Callable[[str, str], bool]) -> dict[str, set[str]]:
        """The ids of this agent's tasks by upstream, those of tools that it may (still) use."""
        ids: dict[str, set[str]] = {}
        for task_id in self._of_agent.get(agent_id, ()):
            target = self._made[agent_id, task_id]
            if granted(target.name, target.upstream):
                ids.setdefault(target.upstream, set()).add(task_id)
        return ids


class TaskMaking(Brokered):
    """A `tools/call` whose answer may be a task."""

    def __init__(
        self, tasks: Tasks, exchange: Exchange, tool: str, target: Tool | None, arguments: Mapping[str, Any]
    ) -> None:
        super().__init__(exchange, tool, target, arguments, own="name")
        self._tasks = tasks

    async def respond(self, answer: Answer) -> None:
        if self.target is not None and self.running is not None and self.running.agent_id is not None:
            self._tasks.learn(self.running.agent_id, answer, self.target)
        await super().respond(answer)


def _task_id(result: Any) -> str | None:
    if not isinstance(result, dict):
        return None
    if result.get("resultType") == "task":
        task_id = result.get("taskId")
    else:
        task = result.get("task")
        task_id = task.get("taskId") if isinstance(task, dict) else None
    return task_id if isinstance(task_id, str) else None
