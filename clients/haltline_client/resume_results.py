"""The shapes of what a resume says: what was lifted, what ran since it was halted, and what lies ahead. See `results`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from haltline_client.cap_results import Balance
    from haltline_client.results import Event, HaltCause, Money, Quantity

__all__ = ["Resumed", "SinceHalt"]


class SinceHalt(TypedDict):
    """What became of calls after the halt: those that ran at the time and ended since, and those that were refused.

    `more`: there was more than is counted. `running`: sent before the halt and without an outcome yet. `last`: the newest
    events, one for each call, the oldest first.
    """

    succeeded: int
    failed: int
    in_doubt: int
    refused: int
    running: int
    charged: Money
    more: bool
    last: list[Event]


class Resumed(TypedDict):
    """A lifted halt, or with `preview` the one that stands: what it was, what was added to which cap and until when.

    `balances`: of a session or an agent, with what was added. `allowance` is money, or a count for the cap on calls. `ahead` says what happens if nothing else changes.
    """

    target: str
    scope: str
    was: HaltCause
    since_halt: NotRequired[SinceHalt]
    balances: NotRequired[list[Balance]]
    allowance: NotRequired[Quantity]
    allowance_cap: NotRequired[str | None]
    allowance_until: NotRequired[str | None]
    ahead: NotRequired[str]
    preview: NotRequired[bool]
    at: str
