"""A drill: sessions that loop, work and stand by, one of them stopped, and everything shown that the stop promises.

Goes through what an operator's act goes through, the agents' real endpoint and a real delivery of the alert. Its only tools
are the broker's own, which cost and do nothing; its alerts go to its own receiver, so that nobody is woken by a drill that
held.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import anyio

from haltline.alerts.model import WebhookSettings
from haltline.alerts.outbox import Outbox
from haltline.alerts.webhook import WebhookChannel
from haltline.audit import Kind
from haltline.calls import records
from haltline.control.agents import Agents
from haltline.control.desk import Desk, Operator, Request
from haltline.control.resume import Resumes
from haltline.control.sessions import Sessions
from haltline.control.stops import Stops
from haltline.drill.clients import Clients, clients
from haltline.drill.receiver import Receiver, receiving
from haltline.drill.steps import Fault, Timeline, all_refused, since_ms
from haltline.errors import NotFound
from haltline.policy.drill import DRILL, DRILL_TOOLS
from haltline.policy.tiers import OPEN_SESSION
from haltline.upstreams.drill import TICK, WORK, DrillUpstream, Seen
from haltline.upstreams.tool_names import tool_name
from haltline_client.commands.words import many

if TYPE_CHECKING:
    from haltline.parts import Parts
    from haltline.store.writer import Tx
    from haltline_client.results import OpenedSession

__all__ = ["BYSTANDER", "Drill", "Endpoint", "How"]

How = Literal["revoke", "halt"]
BYSTANDER = f"{DRILL}-bystander"
STARTED_WITHIN_S = 30.0
"""The clients are a Python of their own, on a machine that may be busy."""
FLUSH_S = 2.0
_CODES: dict[How, str] = {"revoke": "session.revoked", "halt": "session.halted"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where agents connect, and the certificate that is shown there, if any."""

    url: str
    certificate: str | None = None


class _DrillDesk(Desk):
    """A desk for the one who asked for the drill; `desk.identify` has seen their credential already."""

    def __init__(self, parts: Parts, operator: Operator) -> None:
        super().__init__(parts)
        self._operator = operator

    def identify(self, tx: Tx, token: str | None) -> Operator:
        del tx, token
        return self._operator


class _DrillOutbox(Outbox):
    async def _park_orphans(self) -> None:
        """What waits for other channels is the broker's own outbox's."""


class Drill:
    """One drill, from its agents to the new credential. `timeline` says what it showed."""

    def __init__(self, parts: Parts, upstream: DrillUpstream, endpoint: Endpoint, operator: Operator, how: How) -> None:
        self.timeline = Timeline()
        self.session = ""
        self._own_parts = parts
        self._upstream = upstream
        self._endpoint = endpoint
        self._operator = operator
        self._how: How = how
        self._opened: list[str] = []
        self._stopped_at = 0.0
        self._child = ""

    async def run(self, agent: str) -> None:
        """Raises what forbids a drill at all (Conflict, NotFound); what a step did not show stands in `timeline`."""
        async with AsyncExitStack() as stack:
            receiver = await stack.enter_async_context(receiving())
            channel = WebhookChannel(WebhookSettings(DRILL, receiver.url))
            parts = self._own_parts
            outbox = _DrillOutbox([channel], parts.writer, parts.reader, parts.clock, redact=parts.audit.redactor.text)
            desk = _DrillDesk(replace(parts, outbox=outbox), self._operator)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(outbox.run)
            try:
                drilled, bystander = await self._sessions(desk, agent)
                crew = await stack.enter_async_context(clients())
                await self._show(desk, crew, receiver, drilled, bystander)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._clean_up(desk, outbox)
                tasks.cancel_scope.cancel()

    # before

    async def _sessions(self, desk: Desk, agent: str) -> tuple[OpenedSession, OpenedSession]:
        for handle in (agent, BYSTANDER) if agent == DRILL else (BYSTANDER,):
            await self._add(desk, handle)
        drilled = await self._open(desk, agent)
        self.session = drilled["session"]
        return drilled, await self._open(desk, BYSTANDER)

    async def _add(self, desk: Desk, handle: str) -> None:
        try:
            await desk.act(self._request("show_agent"), lambda tx, _: desk.parts.identity.agent(tx, handle))
        except NotFound:
            await Agents(desk).add_agent(self._request("add_agent"), handle=handle, tier=DRILL, owner="the drill")

    async def _open(self, desk: Desk, agent: str) -> OpenedSession:
        opened = await Sessions(desk).open_session(
            self._request("open_session"), agent=agent, task="drill", tools=DRILL_TOOLS, expires_in="10m"
        )
        self._opened.append(opened["session"])
        return opened

    @staticmethod
    def _request(act: str) -> Request:
        return Request(act, None, "drill", {})

    # what is shown

    async def _show(
        self, desk: Desk, crew: Clients, receiver: Receiver, drilled: OpenedSession, bystander: OpenedSession
    ) -> None:
        seen, step = self._upstream.listen(self.session), self.timeline.step
        held = await step("agents connected", lambda: self._connected(crew, drilled, bystander), STARTED_WITHIN_S)
        held = held and await step("loop and long call running", lambda: self._running(crew, seen), STARTED_WITHIN_S)
        held = held and await step("child session opened", lambda: self._child_works(crew))
        if not held or not await step(f"{self._how} returned", lambda: self._stop(desk, crew)):
            return
        begun = seen.begun
        await step("loop stopped", lambda: self._loop_stopped(crew, seen, begun))
        await step("long call cancelled", lambda: self._cancelled(seen))
        await step("result withheld", lambda: self._withheld(crew, seen))
        await step("bystander untouched", lambda: self._untouched(crew))
        dead = "credential dead on a new connection" if self._how == "revoke" else "refused on a new connection"
        await step(dead, lambda: self._dead(crew, drilled["token"]))
        await step("child session dead", lambda: self._dead(crew, self._child, "child dead"))
        await step("alert delivered", lambda: self._alerted(receiver))
        if self._how == "revoke":
            await step("new credential works", lambda: self._works_anew(desk, crew, drilled["agent"]))
        else:
            await step("works after the resume", lambda: self._works_again(desk, crew, drilled["token"]))

    async def _connected(self, crew: Clients, drilled: OpenedSession, bystander: OpenedSession) -> str:
        tools = {"tick": tool_name(DRILL, TICK), "work": tool_name(DRILL, WORK)}
        tokens = {"drilled": drilled["token"], "bystander": bystander["token"]}
        where = {"url": self._endpoint.url, "certificate": self._endpoint.certificate}
        await crew.tell({**where, **tools, **tokens})
        return f"MCP clients of {' and '.join((await crew.heard('connected'))['eras'])}"

    @staticmethod
    async def _running(crew: Clients, seen: Seen) -> str:
        await crew.heard("looping")
        await crew.heard("standing by")
        await seen.working.wait()
        return f"{seen.begun} calls have arrived, the long one among them"

    async def _child_works(self, crew: Clients) -> str:
        """A session below the drilled one (R20), which its client opens as agents do."""
        await crew.tell({"do": "child"})
        opened = await crew.heard("opened")
        if not opened["ok"]:
            raise Fault(f"{OPEN_SESSION} opened none: {opened['text']}")
        self._child = opened["token"]
        return f"{opened['session']}, by {OPEN_SESSION}: {await self._answered(crew, self._child, 'child')}"

    async def _stop(self, desk: Desk, crew: Clients) -> str:
        stops, reason, begun = Stops(desk), f"drill: {self._how} is shown to work", time.monotonic()
        act = stops.revoke if self._how == "revoke" else stops.halt
        done: Any = await act(self._request(self._how), target=self.session, reason=reason)
        self._stopped_at = time.monotonic()
        took_ms = since_ms(begun)
        await crew.tell({"do": "stopped"})
        return f"{self.session} in {took_ms} ms, {many(done['calls_cancelled'], 'running call')} cancelled"

    async def _loop_stopped(self, crew: Clients, seen: Seen, begun: int) -> str:
        loop = await crew.heard("loop")
        all_refused(loop["refused"], _CODES[self._how])
        if seen.begun != begun:
            raise Fault(f"{seen.begun - begun} calls were dispatched after {self._how} had returned")
        return f"after {loop['calls']} calls; {len(loop['refused'])} more refused, none dispatched"

    async def _cancelled(self, seen: Seen) -> str:
        await seen.ended.wait()
        if seen.cancelled_at is None:
            raise Fault("the long call ran to its end")
        return f"{max(0, round((seen.cancelled_at - self._stopped_at) * 1000))} ms after {self._how} had returned"

    async def _withheld(self, crew: Clients, seen: Seen) -> str:
        if not seen.ended.is_set():
            raise Fault("the long call still runs, and nothing withholds what will come of it")
        answer = (await crew.heard("long"))["answer"]
        all_refused([answer], _CODES[self._how])
        return f"its caller read: {answer['text']}"

    async def _untouched(self, crew: Clients) -> str:
        await crew.tell({"do": "bystander"})
        said = await crew.heard("bystander")
        if said["failed"]:
            raise Fault(f"{len(said['failed'])} of its {said['calls']} calls failed: {said['failed'][0]['text']}")
        return (
            f"{said['calls']} calls, {said['after']} of them after the stop, 0 failed, slowest {said['slowest_ms']} ms"
        )

    async def _dead(self, crew: Clients, token: str, said: str = "dead") -> str:
        await crew.tell({"do": "again", "as": said, "token": token})
        answers = (await crew.heard(said))["answers"]
        all_refused(answers, _CODES[self._how])
        return f"{_CODES[self._how]} in {_eras(answers)}"

    async def _alerted(self, receiver: Receiver) -> str:
        await receiver.body_with(self.session.encode(), self._how.encode())
        return "at the drill's receiver, over HTTP"

    async def _works_anew(self, desk: Desk, crew: Clients, agent: str) -> str:
        opened = await self._open(desk, agent)
        return f"{opened['session']}: {await self._answered(crew, opened['token'])}"

    async def _works_again(self, desk: Desk, crew: Clients, token: str) -> str:
        await Resumes(desk).resume(self._request("resume"), target=self.session, reason="drill: the halt was shown")
        return await self._answered(crew, token)

    @staticmethod
    async def _answered(crew: Clients, token: str, said: str = "alive") -> str:
        await crew.tell({"do": "again", "as": said, "token": token})
        answers = (await crew.heard(said))["answers"]
        failed = [one for one in answers if not one["ok"]]
        if failed:
            raise Fault(f"a call with it failed: {failed[0]['text']}")
        return f"answered in {_eras(answers)}"

    # after

    async def _clean_up(self, desk: Desk, outbox: Outbox) -> None:
        """No session of the drill stays open, and nothing of it waits in the outbox."""
        self._upstream.unlisten(self.session)
        for session in self._opened:
            await Stops(desk).revoke(self._request("revoke"), target=session, reason="drill: it is over")
        await desk.parts.writer.run(self._leave_no_doubt)
        await outbox.flush(FLUSH_S)

    def _leave_no_doubt(self, tx: Tx) -> None:
        """What was cancelled is in doubt; but these tools have no effect, so no person need look into it."""
        parts, why = self._own_parts, "a drill's tool has no effect"
        for hold in parts.ledger.in_doubt(tx):
            if hold.upstream == DRILL and hold.session_id in self._opened:
                parts.ledger.void(tx, hold.id, why)
                body = {"why": why, "charged_micros": 0, "outcome": "void"}
                records.resolved(tx, parts, hold, Kind.CALL_RESOLVED, body)


def _eras(answers: list[dict[str, Any]]) -> str:
    return " and ".join(sorted({one["era"] for one in answers}))
