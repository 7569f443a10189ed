"""A task queue as an MCP server over stdio: `python -m haltline.demo.tasks --books FILE`.

Owns tasks and its own books of what it billed per call. Several processes may share one file: a broker may start one for
each agent. It is an upstream like any other and knows nothing of Haltline.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from haltline.demo.books import Books, Shelf

if TYPE_CHECKING:
    import sqlite3

__all__ = ["PRICES", "Tasks", "tasks_server"]

PRICES = {"add": 10_000, "work": 20_000, "done": 10_000}
STEP_S = 0.1
LONGEST_S = 300.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'working', 'worked', 'done')),
    worked_s REAL NOT NULL DEFAULT 0
)
"""
READS = ToolAnnotations(read_only_hint=True)
CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=False)

Title = Annotated[str, Field(min_length=1, max_length=200, description="What is to be done.")]
TaskId = Annotated[int, Field(ge=1, description="The id that add answered with.")]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S, description="How long to work on it.")]


class Task(BaseModel):
    """A task as it stands. `state`: open, working, worked or done."""

    id: int
    title: str
    state: str
    worked_s: float


class Queue(BaseModel):
    """All tasks, oldest first."""

    tasks: list[Task]


class Tasks:
    """The state of the queue: what each tool does to it, apart from how it is called."""

    def __init__(self, file: Path) -> None:
        self._shelf = Shelf(file, SCHEMA)
        self._books = Books(self._shelf, PRICES)

    async def add(self, title: Title) -> Task:
        """Put a task into the queue."""
        with self._books.bill("add", title):
            with self._shelf.writing() as connection:
                number = connection.execute("INSERT INTO tasks (title, state) VALUES (?, 'open')", (title,)).lastrowid
            assert number is not None
            return self._task(number)

    async def show(self) -> Queue:
        """Every task with its state."""
        return Queue(tasks=[_as_task(row) for row in self._shelf.rows("SELECT * FROM tasks ORDER BY id")])

    async def work(self, task_id: TaskId, seconds: Seconds, ctx: Context) -> Task:
        """Work on a task for a while, telling the progress. Cancelling it stops the work where it is."""
        with self._books.bill("work", str(task_id)):
            self._set(task_id, "working")
            worked_s = 0.0
            try:
                while worked_s < seconds:
                    await ctx.report_progress(worked_s, seconds, f"task {task_id}: {worked_s:.1f} of {seconds:g} s")
                    step_s = min(STEP_S, seconds - worked_s)
                    await anyio.sleep(step_s)
                    worked_s += step_s
            finally:
                # Also where it was cancelled: the queue never keeps a task that nobody works on as being worked on.
                self._set(task_id, "worked" if worked_s >= seconds else "open", worked_s)
            await ctx.report_progress(seconds, seconds, f"task {task_id}: worked")
            return self._task(task_id)

    async def done(self, task_id: TaskId) -> Task:
        """Close a task."""
        with self._books.bill("done", str(task_id)):
            self._set(task_id, "done")
            return self._task(task_id)

    def close(self) -> None:
        self._shelf.close()

    def _set(self, task_id: int, state: str, worked_s: float = 0) -> None:
        with self._shelf.writing() as connection:
            changed = connection.execute(
                "UPDATE tasks SET state = ?, worked_s = worked_s + ? WHERE id = ?", (state, worked_s, task_id)
            ).rowcount
        if not changed:
            raise ToolError(f"no task {task_id}")

    def _task(self, task_id: int) -> Task:
        return _as_task(self._shelf.rows("SELECT * FROM tasks WHERE id = ?", (task_id,))[0])


def tasks_server(tasks: Tasks) -> MCPServer:
    """The MCP face of the queue."""
    server = MCPServer("tasks", version="1", instructions="A queue of tasks.", log_level="ERROR")
    server.add_tool(tasks.add, annotations=CHANGES)
    server.add_tool(tasks.show, "list", annotations=READS)
    server.add_tool(tasks.work, annotations=CHANGES)
    server.add_tool(tasks.done, annotations=CHANGES)
    return server


def _as_task(row: sqlite3.Row) -> Task:
    return Task(id=row["id"], title=row["title"], state=row["state"], worked_s=round(row["worked_s"], 3))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m haltline.demo.tasks", description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="SQLite file for tasks and books")
    tasks = Tasks(parser.parse_args().books)
    try:
        tasks_server(tasks).run("stdio")
    finally:
        tasks.close()


if __name__ == "__main__":
    main()
