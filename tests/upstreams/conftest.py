"""Upstreams are tried on the event loop that the broker runs on, and on the one that ships with Python."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param
