"""The catalogue over upstreams that come, go, change and clash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from haltline.errors import ConfigError
from haltline.upstreams.catalog import Catalog
from haltline.upstreams.model import Caller, NotSent, OutcomeUnknown, UpstreamCall, UpstreamSpec
from support.upstream_calls import ANN


class Shelf:
    """An upstream that offers what it is told to."""

    def __init__(
        self, name: str, *tools: Any, prefix: str | None = None, url: str | None = "http://localhost/"
    ) -> None:
        self.spec = UpstreamSpec(name, url=url, command=None if url else "x", prefix=prefix)
        self.tools: list[Any] = [tool(one) if isinstance(one, str) else one for one in tools]
        self.down: Exception | None = None
        self.listed = 0
        self.changed: Callable[[], None] = lambda: None
        self.forgotten: list[tuple[Caller, bool]] = []
        self.stuck = False
        self.closed = False

    def watch(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    async def list_tools(self) -> list[Any]:
        self.listed += 1
        if self.down is not None:
            raise self.down
        return list(self.tools)

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        raise NotImplementedError

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        if self.stuck:
            await anyio.sleep_forever()
        self.forgotten.append((caller, session_only))

    async def aclose(self) -> None:
        self.closed = True


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


@asynccontextmanager
async def running(*shelves: Shelf) -> AsyncIterator[Catalog]:
    catalog = Catalog(shelves)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(catalog.run)
        with anyio.fail_after(30):
            await catalog.tried()
        yield catalog
        tasks.cancel_scope.cancel()


def names(catalog: Catalog) -> list[str]:
    return [one.name for one in catalog.tools()]


async def test_tools_are_listed_by_name_with_their_definition_unchanged_but_for_it() -> None:
    raw = tool("pay", vendor={"x": None}, description="Pay.")
    async with running(
        Shelf("shop", raw, "buy"), Shelf("bare", "zoo", prefix=""), Shelf("c", "x", prefix="other")
    ) as catalog:
        assert names(catalog) == ["other__x", "shop__buy", "shop__pay", "zoo"]
        pay = catalog.tool("shop__pay")
        assert pay is not None
        assert dict(pay.definition) == {**raw, "name": "shop__pay"}
        assert (pay.upstream, pay.own_name, pay.input_schema) == ("shop", "pay", {"type": "object"})
        assert catalog.tools() is catalog.tools()
        assert catalog.upstream("shop").spec.name == "shop"
        with pytest.raises(KeyError):
            catalog.upstream("nobody")


async def test_the_digest_changes_with_every_change_but_not_with_the_order_of_keys() -> None:
    first = {"name": "a", "inputSchema": {"type": "object", "x": 2**70}, "description": "d"}
    again = {"description": "d", "inputSchema": {"x": 2**70, "type": "object"}, "name": "a"}
    digests = []
    for definition in (first, again, {**first, "description": "d\u200b"}, {**first, "title": None}):
        async with running(Shelf("s", definition)) as catalog:
            digests.append(catalog.tools()[0].digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_two_upstreams_with_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two upstreams are named shop"):
        Catalog([Shelf("shop"), Shelf("shop")])


async def test_of_two_tools_with_one_name_the_later_is_left_out_and_its_upstream_says_so() -> None:
    async with running(Shelf("one", "a", prefix=""), Shelf("two", "a", "b", prefix="")) as catalog:
        assert [(one.name, one.upstream) for one in catalog.tools()] == [("a", "one"), ("b", "two")]
        one, two = catalog.states()
        assert (one.tools, one.detail) == (1, None)
        assert two.tools == 1
        assert two.detail == "left out: a (one has that name)"


async def test_what_is_no_tool_definition_is_left_out_and_said() -> None:
    bad = [None, 1, {"name": 5}, {"name": "", "inputSchema": {}}, {"name": "x" * 300}, {"name": "no schema"}, tool("a")]
    async with running(Shelf("shop", *bad, "a", "fine")) as catalog:
        assert names(catalog) == ["shop__a", "shop__fine"]
        (state,) = catalog.states()
        assert state.state == "ready"
        assert "'no schema' (no input schema)" in (state.detail or "")
        assert "'a' (listed twice)" in (state.detail or "")


async def test_one_that_is_down_keeps_no_other_from_being_listed_and_its_state_says_why() -> None:
    down = Shelf("down", url=None)
    down.down = NotSent("upstream.starting_failed", "down does not start", "no licence")
    broken = Shelf("broken")
    broken.down = RuntimeError("secret")
    async with running(down, broken, Shelf("up", "a")) as catalog:
        assert names(catalog) == ["up__a"]
        states = {state.name: (state.kind, state.state, state.detail) for state in catalog.states()}
        assert states["down"] == ("stdio", "down", "no licence")
        assert states["broken"][1] == "down"
        assert "secret" not in str(states)
        assert states["up"] == ("http", "ready", None)
        assert catalog.owner("down__anything") == "down"
        assert catalog.owner("nobody__anything") is None


async def test_the_longest_prefix_owns_a_name() -> None:
    async with running(Shelf("a"), Shelf("b", prefix="a__b"), Shelf("c", "x__y", prefix="")) as catalog:
        assert [catalog.owner(name) for name in ("a__q", "a__b__q", "x__y", "x__z", "a")] == ["a", "b", "c", None, None]


async def test_a_change_is_listed_again_and_told() -> None:
    shelf = Shelf("shop", "a")
    async with running(shelf) as catalog:
        told = anyio.Event()
        before = catalog.tools()
        catalog.on_change(told.set)
        shelf.changed()
        shelf.tools.append(tool("b"))
        with anyio.fail_after(30):
            await told.wait()
        assert names(catalog) == ["shop__a", "shop__b"]
        assert catalog.tools() is not before
        assert shelf.listed == 2


async def test_what_was_offered_stays_listed_while_it_is_away() -> None:
    shelf = Shelf("shop", "a")
    async with running(shelf) as catalog:
        shelf.down = OutcomeUnknown("upstream.lost", "gone")
        with pytest.raises(OutcomeUnknown):
            await catalog.refresh("shop")
        assert names(catalog) == ["shop__a"]
        assert catalog.states()[0].state == "down"
        shelf.down = None
        assert [one.own_name for one in await catalog.refresh("shop")] == ["a"]
        assert catalog.states()[0].state == "ready"


async def test_one_that_failed_is_tried_again_by_itself() -> None:
    shelf = Shelf("shop", "a")
    shelf.down = NotSent("upstream.unreachable", "away")
    async with running(shelf) as catalog:
        shelf.down = None
        with anyio.fail_after(30):
            while not catalog.tools():
                await anyio.sleep(0.02)


@pytest.mark.promise("R17")
async def test_forgetting_reaches_all_and_waits_for_none_longer_than_a_second() -> None:
    stuck, fine = Shelf("stuck"), Shelf("fine")
    stuck.stuck = True
    async with running(stuck, fine) as catalog:
        began = anyio.current_time()
        await catalog.forget(ANN, session_only=True)
        assert anyio.current_time() - began < 10
        assert fine.forgotten == [(ANN, True)]
        await catalog.aclose()
        assert stuck.closed
        assert fine.closed
