"""What the proofs share. `HALTLINE_PROOFS=full` runs them in full length; without it each takes some seconds."""

from __future__ import annotations

import os

import pytest

__all__ = ["long"]


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether the full form is wanted."""
    return os.environ.get("HALTLINE_PROOFS", "short") == "full"
