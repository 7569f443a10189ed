"""What every scene has at hand: the stage, the teller, the operators and the agents.

Owns nothing of the story. `Operator` carries the synchronous control client into the scenes' event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from haltline_client.client import ControlClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haltline.demo.agents import Agent
    from haltline.demo.printing import Teller
    from haltline.demo.stage import Stage
    from haltline_client.cap_results import Balance
    from haltline_client.results import OpenedSession, Quantity

__all__ = ["Cast", "Operator", "Play", "spent_micros", "usd"]

T = TypeVar("T")
LOOK_EVERY_S = 0.03
MILLION = 1_000_000


class Operator:
    """A person, or the command line of this machine, at the control listener."""

    def __init__(self, url: str, token: str) -> None:
        self._client = ControlClient(url, token)

    async def ask(self, request: Callable[[ControlClient], T]) -> T:
        return await anyio.to_thread.run_sync(request, self._client)

    async def until(self, request: Callable[[ControlClient], T], wanted: Callable[[T], bool], within_s: float) -> T:
        """The answer once it is as wanted, or the last one when the time is over."""
        answer = await self.ask(request)
        with anyio.move_on_after(within_s):
            while not wanted(answer):
                await anyio.sleep(LOOK_EVERY_S)
                answer = await self.ask(request)
        return answer

    def close(self) -> None:
        self._client.close()


@dataclass(slots=True)
class Cast:
    """The three agents, each in its session, and what `open_session` said of it."""

    scout: Agent
    research: Agent
    billing: Agent
    opened: dict[str, OpenedSession]

    @property
    def all(self) -> tuple[Agent, Agent, Agent]:
        return self.scout, self.research, self.billing


@dataclass(slots=True)
class Play:
    """One performance. `references` counts the invoices, so that no two charges share one."""

    stage: Stage
    tell: Teller
    person: Operator
    cast: Cast
    _invoices: int = field(default=0)

    def invoice(self, agent: Agent) -> dict[str, str]:
        """Arguments for a charge that was never made before."""
        self._invoices += 1
        return {"payee": "ACME Paper", "amount": "19.90", "reference": f"{agent.handle}-{self._invoices}"}


def spent_micros(balances: Sequence[Balance]) -> int:
    """What counts against a session's task cap: settled, held and in doubt."""
    task = next((one for one in balances if one["cap"] == "task"), None)
    return 0 if task is None else sum(_micros(task[part]) for part in ("settled", "held", "in_doubt"))


def _micros(value: Quantity) -> int:
    return value["micros"] if isinstance(value, dict) else 0


def usd(micros: int) -> str:
    """Micro-units with all six decimals, so that a difference of one shows."""
    sign = "-" if micros < 0 else ""
    return f"{sign}{abs(micros) // MILLION}.{abs(micros) % MILLION:06d}"
