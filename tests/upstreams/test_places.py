"""Fair shares of an upstream's places."""

from __future__ import annotations

import anyio
import pytest

from haltline.upstreams.model import NotSent
from haltline.upstreams.places import MAX_WAITING_OF_ONE, Places


def soon(seconds: float = 5) -> float:
    return anyio.current_time() + seconds


class Table:
    """Who holds a place, in the order in which they got it, until told to leave."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.order: list[str] = []
        self.leave: list[tuple[str, anyio.Event]] = []
        self.now = 0
        self.most: dict[str, int] = {}
        self.held: dict[str, int] = {}

    async def sit(self, agent: str) -> None:
        async with self.places.held(agent, soon()):
            self.order.append(agent)
            self.held[agent] = self.held.get(agent, 0) + 1
            self.most[agent] = max(self.most.get(agent, 0), self.held[agent])
            event = anyio.Event()
            self.leave.append((agent, event))
            await event.wait()
            self.held[agent] -= 1

    async def one_leaves(self) -> None:
        self.leave.pop(0)[1].set()
        await anyio.wait_all_tasks_blocked()


@pytest.mark.promise("R32", "P5")
async def test_one_agent_holds_half_at_most_and_another_gets_the_rest() -> None:
    table = Table(Places("shop", 5))
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(table.sit, "greedy")
        await anyio.wait_all_tasks_blocked()
        assert table.order == ["greedy"] * 3
        tasks.start_soon(table.sit, "modest")
        await anyio.wait_all_tasks_blocked()
        assert table.order[-1] == "modest"
        tasks.cancel_scope.cancel()
    assert table.most["greedy"] == 3


@pytest.mark.promise("R32")
async def test_those_who_wait_take_turns() -> None:
    table = Table(Places("shop", 2))
    async with anyio.create_task_group() as tasks:
        for agent in ["x", "y"]:
            tasks.start_soon(table.sit, agent)
        await anyio.wait_all_tasks_blocked()
        for agent in ["a"] * 6 + ["b"] * 3 + ["c"]:
            tasks.start_soon(table.sit, agent)
        await anyio.wait_all_tasks_blocked()
        for _ in range(12):
            await table.one_leaves()
    waited = table.order[2:]
    assert sorted(waited) == ["a"] * 6 + ["b"] * 3 + ["c"]
    assert waited.index("c") < 4
    assert waited.index("b") < 3
    assert table.most["a"] == 1


async def test_a_single_place_can_be_had() -> None:
    places = Places("shop", 1)
    async with places.held("a", soon()):
        pass
    async with places.held("b", soon()):
        pass


@pytest.mark.promise("R11")
async def test_none_in_time_is_busy() -> None:
    places = Places("shop", 1)
    async with places.held("a", soon()):
        with pytest.raises(NotSent) as caught:
            async with places.held("b", soon(0.05)):
                pass
    assert caught.value.code == "upstream.busy"
    async with places.held("b", soon()):
        pass
    assert places.waiting == 0


async def test_the_queue_is_bounded_for_each_agent() -> None:
    table = Table(Places("shop", 1))
    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_WAITING_OF_ONE + 1):
            tasks.start_soon(table.sit, "a")
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(4):
            with pytest.raises(NotSent, match="too many"):
                async with table.places.held("a", soon()):
                    pass
        tasks.start_soon(table.sit, "b")
        await anyio.wait_all_tasks_blocked()
        assert table.places.waiting == MAX_WAITING_OF_ONE + 1
        tasks.cancel_scope.cancel()


async def test_cancelling_gives_back_what_was_held_and_what_was_just_given() -> None:
    places = Places("shop", 1)

    async def wait() -> None:
        async with places.held("b", soon()):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        async with places.held("a", soon()):
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()  # the place was given to b in this same moment
    async with places.held("c", soon()):
        pass
