"""What every test shares: async tests run on asyncio, as the broker does."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("short", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("proofs", parent=settings.get_profile("short"), max_examples=10_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
