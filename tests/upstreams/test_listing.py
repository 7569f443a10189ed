"""Reading whole lists of tools."""

from __future__ import annotations

from typing import Any

import pytest

from haltline.upstreams.listing import MAX_PAGES, MAX_TOOLS, all_tools
from haltline.upstreams.model import OutcomeUnknown


class Pages:
    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(params)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def page(tools: Any, following: Any = None) -> dict[str, Any]:
    return {"result": {"tools": tools, **({} if following is None else {"nextCursor": following})}}


async def test_all_pages_in_order() -> None:
    pages = Pages(page([1], "a"), page([2], "b"), page([3]))
    assert await all_tools("shop", pages) == [1, 2, 3]
    assert pages.asked == [{}, {"cursor": "a"}, {"cursor": "b"}]


async def test_an_upstream_without_tools_has_none() -> None:
    assert await all_tools("shop", Pages({"error": {"code": -32601, "message": "Method not found"}})) == []


@pytest.mark.parametrize(
    "answers",
    [
        [{"error": {"code": -32603, "message": "secret"}}],
        [page(None)],
        [page({})],
        [page([1], "a"), page([1], "a")],
        [page([0] * (MAX_TOOLS + 1))],
        [page(["x" * 9_000_000], "a"), page(["x" * 9_000_000])],
        [page([1], f"c{n}") for n in range(MAX_PAGES)],
    ],
    ids=["error", "none", "object", "circle", "many", "large", "endless"],
)
async def test_a_list_that_cannot_be_used_says_why(answers: list[dict[str, Any]]) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await all_tools("shop", Pages(*answers))
    assert caught.value.code == "upstream.malformed"
    assert "secret" not in str(caught.value)
