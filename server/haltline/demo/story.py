"""The story: which scenes there are and in which order, from setting the stage to taking it down.

Owns the order, the signals that end it early, and its outcome. What happens in a scene is `scenes`' and `reckoning`'s.
"""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from haltline.demo import reckoning, scenes
from haltline.demo.agents import Agent, Era, connected
from haltline.demo.play import Cast, Operator, Play
from haltline.demo.revocation import revoked_in_the_middle
from haltline.demo.runaway import runaway
from haltline.demo.stage import Stage, set_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haltline.demo.printing import Teller
    from haltline_client.client import ControlClient
    from haltline_client.results import OpenedSession

__all__ = ["Outcome", "as_json", "perform"]

LONGEST_S = 120.0
UPSTREAMS_WITHIN_S = 20.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One agent's part: its tier, its task, the tools of its session and how its client speaks."""

    handle: str
    tier: str
    task: str
    tools: tuple[str, ...]
    era: Era


PARTS = (
    Part(
        "scout",
        "experimental",
        "pay the open invoices",
        ("payments__charge", "payments__balance", "tasks__*"),
        "auto",
    ),
    Part("research", "staging", "sort the supplier list", ("payments__balance", "tasks__*"), "legacy"),
    Part("billing", "production", "pay today's suppliers", ("payments__*", "tasks__*"), "auto"),
)


@dataclass(slots=True)
class Outcome:
    """How it ended: by itself or by a signal."""

    interrupted: bool = False
    played: bool = False


async def perform(tell: Teller, folder: Path | None, *, keep: bool) -> Outcome:
    """Play everything; a signal ends it early. Whatever happens, everything that was started is ended."""
    outcome = Outcome()
    # Held until the stage is down, so that a second Ctrl-C cannot leave a process behind.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def end_on_signal() -> None:
                async for _ in signals:
                    outcome.interrupted = not outcome.played
                    tasks.cancel_scope.cancel()

            tasks.start_soon(end_on_signal)
            await _guarded(tell, folder, outcome, keep=keep)
            tasks.cancel_scope.cancel()
    return outcome


async def _guarded(tell: Teller, folder: Path | None, outcome: Outcome, *, keep: bool) -> None:
    try:
        async with set_up_and_cast(tell, folder) as play:
            with anyio.fail_after(LONGEST_S):
                await _play(play)
            outcome.played = True
            tell.end()
            if keep:
                await reckoning.keep_running(play)
    except Exception as error:
        log.debug("demo_failed", exc_info=error)
        tell.check(False, f"it stopped here: {_why(error)}")
        tell.end()


@asynccontextmanager
async def set_up_and_cast(tell: Teller, folder: Path | None) -> AsyncIterator[Play]:
    """The stage with the three agents on it."""
    async with AsyncExitStack() as stack:
        tell.heading("Haltline demo: say which agent did what and what it cost, and stop exactly that one.")
        tell.scene("Two upstreams, a receiver of alerts and a broker start")
        stage = await stack.enter_async_context(set_up(folder))
        person = Operator(stage.control_url, stage.person_token)
        stack.callback(person.close)
        await _opening(tell, stage, person)
        tell.scene("Three agents of three tiers get a session each")
        yield Play(stage, tell, person, await _cast(tell, stage, person, stack))


async def _opening(tell: Teller, stage: Stage, person: Operator) -> None:
    status = await person.until(
        lambda control: control.status(),
        lambda said: all(one["state"] == "ready" for one in said["upstreams"]),
        UPSTREAMS_WITHIN_S,
    )
    upstreams = {one["name"]: one for one in status["upstreams"]}
    tell.labelled("agents", [stage.agents_url])
    tell.labelled("operators", [stage.control_url])
    tell.labelled("data", [str(stage.data)])
    ready = [f"{name} ({one['kind']}, {one['tools']} tools)" for name, one in upstreams.items()]
    held = set(upstreams) == {"payments", "tasks"} and all(one["state"] == "ready" for one in upstreams.values())
    tell.check(held and status["ready"], f"ready, with the upstreams {' and '.join(ready)}")


async def _cast(tell: Teller, stage: Stage, person: Operator, stack: AsyncExitStack) -> Cast:
    opened: dict[str, OpenedSession] = {}
    agents: dict[str, Agent] = {}
    for part in PARTS:
        opened[part.handle] = session = await person.ask(_opening_of(part))
        agents[part.handle] = await stack.enter_async_context(
            connected(part.handle, session["session"], stage.agents_url, session["token"], part.era)
        )
    cast = Cast(agents["scout"], agents["research"], agents["billing"], opened)
    scenes.introduce(tell, cast)
    tell.check(
        [agent.era for agent in cast.all] == ["2026-07-28", "2025-11-25", "2026-07-28"],
        "their clients speak both eras of the protocol",
    )
    return cast


def _opening_of(part: Part) -> Any:
    def request(control: ControlClient) -> OpenedSession:
        control.add_agent(part.handle, part.tier, owner="demo")
        return control.open_session(part.handle, part.task, tools=part.tools, expires_in="1h")

    return request


async def _play(play: Play) -> None:
    await scenes.normal_work(play)
    await runaway(play)
    await scenes.out_of_scope(play)
    await revoked_in_the_middle(play)
    await scenes.resumed(play)
    await reckoning.records(play)
    await reckoning.books(play)
    await reckoning.verified(play)
    await reckoning.connect_your_own(play)


def as_json(tell: Teller, outcome: Outcome) -> dict[str, Any]:
    """Everything that `--json` prints."""
    return {
        "held": tell.held and outcome.played,
        "took_s": tell.took_s,
        "checks": [asdict(check) for check in tell.checks],
        "facts": tell.facts,
    }


def _why(error: BaseException) -> str:
    """The first cause in words: a group says nothing by itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
