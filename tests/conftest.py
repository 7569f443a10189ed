"""What every test shares: async tests run on asyncio, as the broker does."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("short", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("proofs", parent=settings.get_profile("short"), max_examples=10_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A seed of its own for each run, said at the top and passed to every worker, so that what failed can be run again."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = random.randrange(1 << 32)


def pytest_report_header(config: pytest.Config) -> str:
    return f"hypothesis seed: {config.option.hypothesis_seed} (the same again: --hypothesis-seed=N)"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
