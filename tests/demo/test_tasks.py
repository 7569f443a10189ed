"""The task queue over stdio: progress, cancellation and books that several processes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from haltline.demo.books import Billed, read_books
from support.demo_upstreams import ERAS, tasks_command


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


async def until(books: Path, outcome: str) -> list[Billed]:
    """The books once a row says `outcome`: another process writes it."""
    with anyio.fail_after(30):
        while True:
            rows = await anyio.to_thread.run_sync(read_books, books)
            if any(row.outcome == outcome for row in rows):
                return rows


@pytest.mark.parametrize("mode", ERAS)
async def test_a_task_is_added_worked_on_with_progress_and_closed(books: Path, mode: Any) -> None:
    told: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, _: str | None) -> None:
        told.append((done, total))

    async with Client(tasks_command(books), mode=mode) as client:
        assert client.protocol_version == ERAS[mode]
        added = (await client.call_tool("add", {"title": "sweep"})).structured_content
        worked = await client.call_tool("work", {"task_id": 1, "seconds": 0.3}, progress_callback=progress)
        await client.call_tool("done", {"task_id": 1})
        listed = (await client.call_tool("list", {})).structured_content
    assert added == {"id": 1, "title": "sweep", "state": "open", "worked_s": 0.0}
    assert worked.structured_content is not None
    assert worked.structured_content["state"] == "worked"
    assert told[0] == (0.0, 0.3)
    assert sorted(told) == told
    assert listed == {"tasks": [{"id": 1, "title": "sweep", "state": "done", "worked_s": 0.3}]}
    assert [(row.tool, row.cost_micros, row.outcome) for row in read_books(books)] == [
        ("add", 10_000, "done"),
        ("work", 20_000, "done"),
        ("done", 10_000, "done"),
    ]


@pytest.mark.parametrize("mode", ERAS)
async def test_cancelled_work_stops_leaves_the_task_open_and_stays_billed(books: Path, mode: Any) -> None:
    begun = anyio.Event()

    async def progress(*_: object) -> None:
        begun.set()

    async with Client(tasks_command(books), mode=mode) as client:
        await client.call_tool("add", {"title": "sweep"})
        async with anyio.create_task_group() as group:

            async def work() -> None:
                await client.call_tool("work", {"task_id": 1, "seconds": 60}, progress_callback=progress)

            group.start_soon(work)
            with anyio.fail_after(30):
                await begun.wait()
            group.cancel_scope.cancel()
        rows = await until(books, "cancelled")
        listed = (await client.call_tool("list", {})).structured_content
    assert [(row.tool, row.cost_micros, row.outcome) for row in rows] == [
        ("add", 10_000, "done"),
        ("work", 20_000, "cancelled"),
    ]
    assert listed is not None
    assert listed["tasks"][0]["state"] == "open"


async def test_processes_share_one_queue_and_one_set_of_books(books: Path) -> None:
    async with Client(tasks_command(books)) as one, Client(tasks_command(books)) as other:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon((one, other)[number % 2].call_tool, "add", {"title": f"task {number}"})
        seen = [(await client.call_tool("list", {})).structured_content for client in (one, other)]
    assert seen[0] == seen[1]
    assert seen[0] is not None
    assert {task["title"] for task in seen[0]["tasks"]} == {f"task {number}" for number in range(20)}
    assert sum(row.cost_micros for row in read_books(books)) == 20 * 10_000


@pytest.mark.parametrize("tool", ["work", "done"])
async def test_an_unknown_task_is_an_error_that_is_billed(books: Path, tool: str) -> None:
    arguments = {"work": {"task_id": 9, "seconds": 1}, "done": {"task_id": 9}}[tool]
    async with Client(tasks_command(books)) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert [row.outcome for row in read_books(books)] == ["failed"]
