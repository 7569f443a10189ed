"""A revoke in the middle of a slow call, typed as a command, while a bystander goes on.

After the command is back nothing of the revoked session is delivered any more (P3); the other agent notices nothing (P5).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from haltline.demo.books import read_books

if TYPE_CHECKING:
    from haltline.demo.agents import Answer
    from haltline.demo.books import Billed
    from haltline.demo.play import Play
    from haltline.demo.processes import Ran

__all__ = ["revoked_in_the_middle"]

WORK_S = 60.0
SCENE_WITHIN_S = 30.0
CANCELLED_WITHIN_S = 5.0
LOOK_EVERY_S = 0.05
BYSTANDER_CALLS_BEFORE = 2
BYSTANDER_CALLS_AFTER = 3
FAST_MS = 300


@dataclass(slots=True)
class Watch:
    """What the bystander and the revoked agent saw, and when."""

    bystander: list[tuple[float, Answer]] = field(default_factory=list)
    begun: anyio.Event = field(default_factory=anyio.Event)
    standing_by: anyio.Event = field(default_factory=anyio.Event)
    notices: int = 0
    cut: Answer | None = None
    cut_at: float = 0.0
    revoked_at: float = 0.0
    over: bool = False


async def revoked_in_the_middle(play: Play) -> None:
    """Play the scene."""
    tell, research = play.tell, play.cast.research
    tell.scene("Research is revoked in the middle of a slow call, while billing goes on")
    watch = Watch()
    added = await research.call("tasks__add", {"title": "read every mail ever sent"})
    task = (added.data or {}).get("id", 0)
    with anyio.fail_after(SCENE_WITHIN_S):
        async with anyio.create_task_group() as group:
            group.start_soon(_work, play, watch, task)
            group.start_soon(_stand_by, play, watch)
            await watch.begun.wait()
            await watch.standing_by.wait()
            done = await _revoke(play, watch)
    _tell_revoke(play, watch, done)
    _tell_bystander(play, watch)
    await _tell_what_became_of_it(play, task)


async def _work(play: Play, watch: Watch, task: int) -> None:
    def progress(_: float) -> None:
        watch.notices += 1
        watch.begun.set()

    arguments = {"task_id": task, "seconds": WORK_S}
    watch.cut = await play.cast.research.call("tasks__work", arguments, progress=progress)
    watch.cut_at = time.monotonic()
    watch.begun.set()


async def _stand_by(play: Play, watch: Watch) -> None:
    """Billing pays on, before, during and a few times after the revoke."""
    after = 0
    while after < BYSTANDER_CALLS_AFTER:
        begun = time.monotonic()
        answer = await play.cast.billing.call("payments__charge", play.invoice(play.cast.billing))
        watch.bystander.append((time.monotonic() - begun, answer))
        if len(watch.bystander) >= BYSTANDER_CALLS_BEFORE:
            watch.standing_by.set()
        after += watch.over


async def _revoke(play: Play, watch: Watch) -> Ran:
    session = play.cast.research.session
    command = ("revoke", session, "--reason", "it reads what it should not")
    play.tell.command(*command)
    done = await play.stage.command(*command)
    watch.revoked_at = time.monotonic()
    watch.over = True
    return done


def _tell_revoke(play: Play, watch: Watch, done: Ran) -> None:
    tell = play.tell
    tell.quote(done.out + done.err)
    tell.check(done.code == 0, f"the command was back {done.took_ms} ms after it was typed, interpreter start included")
    cut = watch.cut
    tell.check(
        cut is not None and not cut.ok and cut.code == "session.revoked" and watch.notices > 0,
        f"the running call's result was withheld; research read instead: {cut.text.strip() if cut else 'nothing'}",
    )
    tell.fact("revoke", {"typed_to_back_ms": done.took_ms, "within_300_ms": done.took_ms <= FAST_MS})


def _tell_bystander(play: Play, watch: Watch) -> None:
    calls = len(watch.bystander)
    failed = sum(not answer.ok for _, answer in watch.bystander)
    slowest_ms = round(max(took_s for took_s, _ in watch.bystander) * 1000)
    play.tell.check(
        failed == 0 and calls >= BYSTANDER_CALLS_BEFORE + BYSTANDER_CALLS_AFTER,
        f"billing noticed nothing: {calls} calls meanwhile, {failed} failed, the slowest took {slowest_ms} ms",
    )


async def _tell_what_became_of_it(play: Play, task: int) -> None:
    tell, research = play.tell, play.cast.research
    again = await research.call("tasks__list")
    listed = await research.tools()
    tell.check(
        not again.ok and again.code == "session.revoked" and not listed,
        "its credential is dead: the next call is refused, and it lists no tools any more",
    )
    row = await _cancelled(play, task)
    tell.check(row is not None, "the cancellation reached the task queue: its books say the work was cancelled")
    waiting = await play.person.ask(lambda control: control.list_in_doubt())
    mine: list[Any] = [one for one in waiting["calls"] if one["session"] == research.session]
    amount = mine[0]["amount"]["text"] if mine else "nothing"
    tell.check(
        [one["tool"] for one in mine] == ["tasks__work"],
        f"what it did before is not known here, so {amount} stays in doubt until a person decides (haltline calls in-doubt)",
    )


async def _cancelled(play: Play, task: int) -> Billed | None:
    """The row of the cancelled work in the queue's own books, once it is there."""
    with anyio.move_on_after(CANCELLED_WITHIN_S):
        while True:
            rows = await anyio.to_thread.run_sync(read_books, play.stage.tasks_books)
            for row in rows:
                if (row.tool, row.subject, row.outcome) == ("work", str(task), "cancelled"):
                    return row
            await anyio.sleep(LOOK_EVERY_S)
    return None
