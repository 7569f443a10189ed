"""The names under which agents see tools."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.upstreams.tool_names import tool_name


@pytest.mark.parametrize(
    ("prefix", "own", "name"),
    [("shop", "pay", "shop__pay"), ("", "pay", "pay"), ("", "a__b", "a__b"), ("a-b", "C_9", "a-b__C_9")],
)
def test_what_fits_is_kept(prefix: str, own: str, name: str) -> None:
    assert tool_name(prefix, own) == name


def test_what_does_not_fit_is_mapped_and_told_apart() -> None:
    assert tool_name("shop", "pay.now") == "shop__pay_now_72f886c3"
    assert tool_name("shop", "pay.now") != tool_name("shop", "pay/now")
    assert tool_name("shop", "x" * 60 + "1") != tool_name("shop", "x" * 60 + "2")


@given(st.from_regex(r"[A-Za-z0-9_-]{0,40}", fullmatch=True), st.text(min_size=1, max_size=256))
def test_every_name_is_one_that_every_client_takes_and_always_the_same(prefix: str, own: str) -> None:
    name = tool_name(prefix, own)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    assert name == tool_name(prefix, own)
