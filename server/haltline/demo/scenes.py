"""The quieter scenes: the agents are introduced, work as they should, one reaches too far, and a person resumes another.

What happens in a stop is `runaway`'s and `revocation`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from haltline.demo.play import Operator
from haltline_client.commands.page import Column
from haltline_client.commands.words import caps
from haltline_client.errors import Refused

if TYPE_CHECKING:
    from haltline.demo.agents import Answer
    from haltline.demo.play import Cast, Play
    from haltline.demo.printing import Teller

__all__ = ["introduce", "normal_work", "out_of_scope", "resumed"]

ALLOWANCE = "0.20"
OFFERED = 8
"""Tools of both upstreams together."""


def introduce(tell: Teller, cast: Cast) -> None:
    """The agents in a table."""
    columns = [Column(title) for title in ("agent", "tier", "session", "protocol", "caps")]
    opened = [cast.opened[agent.handle] for agent in cast.all]
    tell.table(
        columns,
        [
            [agent.handle, session["tier"], agent.session, agent.era, caps(session["caps"])]
            for agent, session in zip(cast.all, opened, strict=True)
        ],
    )


async def normal_work(play: Play) -> None:
    """Lists, charges and a task with progress, each priced."""
    tell, cast = play.tell, play.cast
    tell.scene("Normal work")
    lists = {agent.handle: await agent.tools() for agent in cast.all}
    for handle, names in lists.items():
        tell.say(f"{handle:<9} sees {_grouped(names)}")
    granted = [len(names) for names in lists.values()]
    tell.check(
        granted == [6, 5, OFFERED] and "payments__refund" not in lists["scout"] + lists["research"],
        f"each agent lists only the tools granted to it ({', '.join(map(str, granted))} of {OFFERED})",
    )
    async with anyio.create_task_group() as group:
        group.start_soon(_invoices, play)
        group.start_soon(_task_with_progress, play)
        # Scout only looks, which is free; it also has its own process of the queue started by that.
        group.start_soon(cast.scout.call, "tasks__list")


def _grouped(names: list[str]) -> str:
    """`payments: balance, charge; tasks: add, list`: shorter than each name in full."""
    upstreams = dict.fromkeys(name.partition("__")[0] for name in names)
    own = {key: [name.partition("__")[2] for name in names if name.startswith(f"{key}__")] for key in upstreams}
    return "; ".join(f"{key}: {', '.join(tools)}" for key, tools in own.items())


async def _invoices(play: Play) -> None:
    billing = play.cast.billing
    charged = [await billing.call("payments__charge", play.invoice(billing)) for _ in range(3)]
    ids = [answer.data["id"] for answer in charged if answer.ok and answer.data]
    play.tell.check(
        len(ids) == 3, f"billing paid 3 invoices at 0.05 USD a call, with structured answers: {', '.join(ids)}"
    )


async def _task_with_progress(play: Play) -> None:
    research = play.cast.research
    told: list[float] = []
    added = await research.call("tasks__add", {"title": "sort the supplier list"})
    task = (added.data or {}).get("id", 0)
    worked = await research.call("tasks__work", {"task_id": task, "seconds": 0.4}, progress=told.append)
    closed = await research.call("tasks__done", {"task_id": task})
    play.tell.check(
        added.ok and worked.ok and closed.ok and len(told) > 1,
        f"research added a task (0.01), worked on it (0.02) with {len(told)} notices of progress, and closed it (0.01)",
    )


async def out_of_scope(play: Play) -> None:
    """A tool that exists and is not granted."""
    tell, research = play.tell, play.cast.research
    tell.scene("Research reaches for a tool outside its scope")
    reach = {"charge_id": "ch_of_somebody_else"}
    answer = await research.call("payments__refund", reach)
    tell.quote(answer.text)
    tell.check(not answer.ok and answer.code == "scope.tool", "refused, with a reason the model can read and act on")
    page = await play.person.ask(
        lambda control: control.query_audit(session=research.session, kind="call.denied", newest=True)
    )
    logged: list[dict[str, Any]] = [dict(event) for event in page["events"] if event.get("tool") == "payments__refund"]
    seq = logged[0]["seq"] if logged else "none"
    tell.check(
        [event.get("arguments") for event in logged] == [reach],
        f"and in the audit log all the same: event {seq}, with its arguments",
    )


async def resumed(play: Play) -> None:
    """What was halted works again once a person says so, and only a person can."""
    tell, scout = play.tell, play.cast.scout
    tell.scene("A person resumes scout, with a reason")
    tell.check(await _local_is_refused(play), "the credential that lies on this machine may stop, not resume")
    command = ("resume", scout.session, "--allow", ALLOWANCE, "--reason", "a retry loop, fixed")
    tell.command(*command)
    done = await play.stage.command(*command, as_person=True)
    tell.quote(done.out + done.err)
    tell.check(done.code == 0, "resumed by a person's own credential; who, when and why are in the log")
    answers: list[Answer] = [await scout.call("payments__charge", play.invoice(scout)) for _ in range(2)]
    tell.check(all(answer.ok for answer in answers), f"scout works again, with {ALLOWANCE} USD more for this task")


async def _local_is_refused(play: Play) -> bool:
    local = Operator(play.stage.control_url, play.stage.local_token)
    try:
        await local.ask(lambda control: control.resume(play.cast.scout.session, reason="trying"))
    except Refused as refusal:
        return refusal.code == "operator.forbidden"
    finally:
        local.close()
    return False
