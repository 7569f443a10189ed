"""The shapes of what caps say: how full each is, and what a person added to one for a time. See `results` for the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from haltline_client.results import Quantity

__all__ = ["Allowance", "Balance"]


class Balance(TypedDict):
    """One cap: money, or a count for the caps that count calls; null where it counts nothing of that kind.

    `limit` and `remaining` include the allowance. What is in doubt counts apart from what is held by calls that run.
    """

    cap: str
    limit: Quantity
    settled: Quantity
    held: Quantity
    in_doubt: Quantity
    remaining: Quantity
    resets_at: NotRequired[str | None]
    """When some of it is free again by itself."""
    session: NotRequired[str | None]
    """The session that has it for itself, the asked one or one above it; null: it counts all that the agent does."""
    where: NotRequired[str]
    """Which level or line of the policy sets it."""
    allowance: NotRequired[Quantity]
    """What a person added, in the limit already."""


class Allowance(TypedDict):
    """What one person added to a cap of a session or an agent, in force `until` then.

    `left` is what is not used up: first the cap itself is, then what ends first.
    """

    target: str
    cap: str
    amount: Quantity
    left: Quantity
    until: str
    by: str
