"""A cancelled scope ends what runs in it and nothing around it, whoever cancels it and whenever."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from haltline.calls.scope import Scope


async def _within(scope: Scope, entered: asyncio.Event, work: asyncio.Future[str]) -> str:
    said = "cancelled"
    with scope:
        entered.set()
        said = await work
    await asyncio.sleep(0)  # what strikes here came from outside
    return said


async def _begun(scope: Scope) -> tuple[asyncio.Task[str], asyncio.Future[str]]:
    entered, work = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_within(scope, entered, work))
    await entered.wait()
    return task, work


async def test_what_runs_in_it_ends_and_what_follows_goes_on():
    scope = Scope()
    task, _ = await _begun(scope)
    scope.cancel()
    scope.cancel()
    assert await task == "cancelled"
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_goes_through_also_beside_its_own():
    for both in (False, True):
        scope = Scope()
        task, _ = await _begun(scope)
        task.cancel()
        if both:
            scope.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_one_that_is_over_cancels_nothing():
    scope = Scope()
    task, work = await _begun(scope)
    work.set_result("done")
    await asyncio.sleep(0)
    scope.cancel()
    assert await task == "done"


async def test_a_result_that_came_in_the_same_moment_does_not_outrun_it():
    scope = Scope()
    task, work = await _begun(scope)
    work.set_result("done")
    scope.cancel()
    assert await task == "cancelled"


@pytest.mark.parametrize("waits", [True, False])
async def test_cancelled_from_within_it_strikes_at_the_next_await_in_it_and_never_after_it(waits):
    async def work() -> list[str]:
        scope, went_on = Scope(), []
        with scope:
            scope.cancel()
            if waits:
                await asyncio.get_running_loop().create_future()
            went_on.append("in it")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return went_on

    task = asyncio.create_task(work())
    assert await task == ([] if waits else ["in it"])
    assert task.cancelling() == 0


async def test_what_swallows_it_in_there_leaves_nothing_behind():
    scope, went_on = Scope(), []
    entered = asyncio.Event()

    async def work() -> None:
        with scope:
            try:
                entered.set()
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                went_on.append("swallowed")
        await asyncio.sleep(0)
        went_on.append("after")

    task = asyncio.create_task(work())
    await entered.wait()
    scope.cancel()
    await task
    assert (went_on, task.cancelling()) == (["swallowed", "after"], 0)


async def test_scopes_of_anyio_around_it_and_in_it_keep_their_own():
    scope = Scope()
    with anyio.move_on_after(0) as outer:
        with scope:
            await anyio.sleep_forever()
    assert outer.cancelled_caught
    task = asyncio.create_task(_inner(scope := Scope()))
    await asyncio.sleep(0)
    scope.cancel()
    assert await task is False


async def _inner(scope: Scope) -> bool:
    inner = anyio.CancelScope()
    with scope, inner:
        await anyio.sleep_forever()
    return inner.cancelled_caught
