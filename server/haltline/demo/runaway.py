"""The runaway loop: scout pays invoices as fast as it can until its task cap stops it, with a call still running.

A cap halts only when what is settled and the next call exceed it (R3). For a call to be in flight at that moment, scout
first starts slow work (0.02 held) and spends 0.01, so that nine charges (0.45) leave no room for a tenth.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from haltline.demo.play import spent_micros
from haltline.demo.stage import SECRET

if TYPE_CHECKING:
    from haltline.demo.agents import Answer
    from haltline.demo.play import Play
    from haltline_client.results import SessionDetail

__all__ = ["runaway"]

LOOPS = 8
BACK_OFF_S = 0.15
SLOW_S = 3.0
LOOP_WITHIN_S = 30.0
ALERT_WITHIN_S = 10.0
STOPPED = {"budget.task_exceeded", "session.halted"}


@dataclass(slots=True)
class Loop:
    """What the loop has seen so far."""

    paid: int = 0
    held_back: int = 0
    refusals: list[Answer] = field(default_factory=list)
    halted_at: float = 0.0
    halted: anyio.Event = field(default_factory=anyio.Event)
    slow: Answer | None = None
    slow_ended_at: float = 0.0


async def runaway(play: Play) -> None:
    """Play the scene."""
    tell, scout = play.tell, play.cast.scout
    tell.scene(f"Scout runs away: {LOOPS} loops pay invoices, and its task cap is 0.50 USD")
    loop = Loop()
    added = await scout.call("tasks__add", {"title": "reconcile the ledger"})
    task = (added.data or {}).get("id", 0)
    with anyio.fail_after(LOOP_WITHIN_S):
        async with anyio.create_task_group() as group:
            await group.start(_slow_work, play, loop, task)
            for _ in range(LOOPS):
                group.start_soon(_pay_on, play, loop)
            await loop.halted.wait()
            running = await play.person.ask(lambda control: control.show_session(scout.session))
    _tell_halt(play, loop, running)
    await _tell_alert(play)


async def _slow_work(play: Play, loop: Loop, task: int, *, task_status: Any) -> None:
    """A call that is still running when the halt comes."""
    begun = anyio.Event()

    def progress(_: float) -> None:
        if not begun.is_set():
            begun.set()
            task_status.started()

    arguments = {"task_id": task, "seconds": SLOW_S}
    loop.slow = await play.cast.scout.call("tasks__work", arguments, progress=progress)
    loop.slow_ended_at = time.monotonic()
    if not begun.is_set():
        task_status.started()


async def _pay_on(play: Play, loop: Loop) -> None:
    """One loop: pay, pay, pay; wait where it may be retried, stop where it is told to."""
    while True:
        answer = await play.cast.scout.call("payments__charge", play.invoice(play.cast.scout))
        if answer.ok:
            loop.paid += 1
        elif answer.retryable:
            loop.held_back += 1
            await anyio.sleep(BACK_OFF_S)
        else:
            loop.halted_at = loop.halted_at or time.monotonic()
            loop.refusals.append(answer)
            loop.halted.set()
            return


def _tell_halt(play: Play, loop: Loop, seen: SessionDetail) -> None:
    tell = play.tell
    first = min(loop.refusals, key=lambda answer: answer.code != "budget.task_exceeded")
    tell.say(f"{loop.paid} invoices paid; {loop.held_back} calls held back while others were running")
    tell.quote(first.text)
    codes = {answer.code for answer in loop.refusals}
    tell.check(
        first.code == "budget.task_exceeded" and codes <= STOPPED and len(loop.refusals) == LOOPS,
        f"the task cap halted the session, and all {LOOPS} loops were told why and not to retry",
    )
    spent = spent_micros(seen["balances"])
    cap = seen["cap"] or {"micros": 0, "text": "no cap"}
    tell.check(
        seen["state"] == "halted" and 0 < spent <= cap["micros"],
        f"no cap exceeded: spent {seen['spent']['text']}, held {seen['held']['text']} and in doubt"
        f" {seen['in_doubt']['text']} of {cap['text']}",
    )
    in_flight_ms = round((loop.slow_ended_at - loop.halted_at) * 1000)
    tell.check(
        loop.slow is not None and loop.slow.ok and in_flight_ms > 0,
        f"the call in flight at the halt finished and delivered, {max(in_flight_ms, 0)} ms later",
    )
    tell.fact("runaway", {"paid": loop.paid, "held_back": loop.held_back, "refused": len(loop.refusals)})


async def _tell_alert(play: Play) -> None:
    tell, scout = play.tell, play.cast.scout
    found = await play.stage.receiver.wait(lambda alert: scout.session in str(alert), ALERT_WITHIN_S)
    if found is None:
        tell.check(False, f"no alert reached the receiver within {ALERT_WITHIN_S:g} s")
        return
    arrived, alert = found
    notes: dict[str, str] = alert.get("annotations", {})
    tell.say("the alert, as it reached the receiver over HTTP:")
    tell.labelled("agent", [f"{alert['labels'].get('agent')}, session {alert['labels'].get('session')}"])
    for label, name in (
        ("cause", "description"),
        ("last actions", "last_actions"),
        ("balances",) * 2,
        ("commands",) * 2,
    ):
        tell.labelled(label, notes.get(name, "").splitlines())
    text = str(alert)
    told = ("scout", "budget.task_exceeded", "haltline resume", "payments__charge")
    tell.check(
        all(part in text for part in told) and arrived.signed(SECRET),
        "a signed alert was told: agent, cause, last actions, balances and the command to resume",
    )
