"""`Broker.call`: the path of one call, from a token and a raw message to an answer. Enforcement is this one function.

    transaction 1   identify · decide · reserve · record      committed before anything leaves the process (P1)
    dispatch        the only await on the outside world
    transaction 2   settle · record                           shielded from cancellation (P7)
    respond         the upstream's answer, or a refusal

Anything that is not a clean Allow is a Deny (P6). Knows no transport and no SQL.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from haltline.calls import dispatch, records
from haltline.calls.admission import Dead
from haltline.calls.call import Admitted, NoSuchTool
from haltline.calls.dispatch import Outcome
from haltline.calls.judging import Judged, judged, lasting, still_asked
from haltline.calls.refusals import as_error, refusal, refused_code
from haltline.calls.replays import Again, Keyed, used_before
from haltline.calls.rounds import BadState, Round, asks_for_input, new_nonce
from haltline.calls.running import StoppedCall
from haltline.calls.watching import marks, watched
from haltline.errors import NotFound, StoreUnavailable
from haltline.identity import Unknown
from haltline.ledger import Hold
from haltline.policy.drill import is_drill
from haltline.policy.model import Allow, Deny, Halt, Principal, Reason
from haltline.rules.afterwards import ask_at_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haltline.calls.admission import Doorman
    from haltline.calls.call import CallRequest
    from haltline.calls.recovery import Unrecorded
    from haltline.calls.running import Running
    from haltline.health import Health
    from haltline.parts import Parts
    from haltline.policy.model import Decision
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx
    from haltline.upstreams.catalog import Tool

__all__ = ["Broker"]

log = structlog.get_logger(__name__)
Answer = dict[str, Any]


class Broker:
    def __init__(self, parts: Parts, doorman: Doorman, unrecorded: Unrecorded, health: Health) -> None:
        self._parts = parts
        self._doorman = doorman
        self._unrecorded = unrecorded
        self._health = health

    async def call(self, request: CallRequest) -> Answer | Unknown | NoSuchTool | None:
        """Broker one call. None: the answer was delivered through `request.respond`; the rest is for the face to say."""
        running, begun = self._parts.calls.open(), time.perf_counter()
        request.attach(running)
        try:
            admitted = await self._admit(running, request)
            self._parts.telemetry.decided(time.perf_counter() - begun)
            if isinstance(admitted, Again):
                return await self._respond(running, request, self._first_answer(admitted))
            if not isinstance(admitted, Admitted):
                self._span(running, request, None, refused_code(admitted), begun)
                return admitted
            outcome: Outcome | None = None
            try:
                outcome = await self._dispatch(running, admitted, request)
            finally:  # its one await, on the writer, is awaited to its end whatever cancels it (P7)
                answer = await self._settle(running, request, admitted, outcome or dispatch.interrupted(running))
            self._span(running, request, admitted, None if outcome.succeeded else f"call.{outcome.kind}", begun)
            return await self._respond(running, request, answer)
        finally:
            self._parts.calls.close(running)

    async def look(
        self, request: CallRequest, ask: Callable[[Principal, Running], Awaitable[list[dict[str, Any]]]]
    ) -> list[dict[str, Any]] | Unknown:
        """A list that upstreams must be asked for: nobody is asked for who is stopped, and nothing of it after a stop."""
        running = self._parts.calls.open()
        request.attach(running)
        try:
            who = await self._parts.writer.run(lambda tx: self._looker(tx, running, request))
            if who is None or isinstance(who, Unknown):
                return who or []
            items: list[dict[str, Any]] = []
            if not running.scope.cancel_called:
                with running.scope, suppress(StoppedCall):
                    items = await ask(who, running)
            return [] if running.stopped is not None else items
        finally:
            self._parts.calls.close(running)

    def _looker(self, tx: Tx, running: Running, request: CallRequest) -> Principal | Unknown | None:
        """Who looks; None: somebody for whom no upstream is asked now."""
        policy = self._parts.policies.current
        who = self._doorman.principal(tx, request.token, request.session_key, policy, open_session=False)
        if isinstance(who, Unknown):
            return who
        if isinstance(who, Dead) or policy is None or self._closed() is not None or self._unrecorded.waiting:
            return None
        if self._parts.halts.on(tx, who.session_id, who.agent_id, who.sessions_above):
            return None
        tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id))
        return who

    # transaction 1

    async def _admit(self, running: Running, request: CallRequest) -> Admitted | Again | Answer | Unknown | NoSuchTool:
        if self._unrecorded.waiting:
            return _unavailable("outcomes of earlier calls are not recorded yet")
        try:
            return await self._parts.writer.run(lambda tx: self._decide(tx, running, request), from_memory=True)
        except StoreUnavailable as error:
            # A COMMIT that failed may still have reached the disk: what is there is undone, for nothing was sent.
            self._unrecorded.add(
                running.id, lambda tx: records.undo(tx, self._parts, running.id, self._continued(request))
            )
            log.error("call_not_recorded", call=running.id, error=str(error))
            return _unavailable("this call could not be recorded")

    def _decide(
        self, tx: Tx, running: Running, request: CallRequest
    ) -> Admitted | Again | Answer | Unknown | NoSuchTool:
        """Identify, decide, reserve and record: one unit of work (P1, P2, P3)."""
        tool = request.target
        policy = self._parts.policies.current
        who = self._doorman.principal(tx, request.token, request.session_key, policy, open_session=True)
        if isinstance(who, Unknown):
            return who
        if isinstance(who, Dead):
            records.denied_dead(tx, self._parts, running.id, who, request)
            return refusal("denied", [who.reason], call=running.id)
        closed = self._closed()
        judgement = Judged(Deny((closed,))) if closed else judged(tx, self._parts, who, request, policy)
        decision = judgement.decision
        keyed = self._parts.replays.keyed(who, request)
        key = keyed if isinstance(keyed, Keyed) else None
        said = records.Said(who, request, running.id, tool, policy.version if policy else None, judgement, key)
        if closed is None and policy is not None:
            state = request.params.get("requestState")
            goes_on = tool is not None and isinstance(state, str) and not request.peer.handshake
            if keyed is not None and not lasting(decision) and (key is None or not goes_on):
                before = self._before(tx, running, said, policy, keyed)
                if before is not None:
                    return before
            if goes_on:
                return self._go_on(tx, running, said, decision, policy, str(state))
        if closed is None and policy is not None:
            said = said._replace(marks=marks(self._parts, policy, who, request))
            judgement = watched(tx, self._parts, policy, who, request, judgement, said.marks)
            said, decision = said._replace(judged=judgement), judgement.decision
        if not isinstance(decision, Allow):
            return self._refuse(tx, said, decision)
        assert policy is not None
        assert tool is not None
        self._parts.ledger.hold(tx, _hold(running.id, who, tool, decision, tx.now_us))
        if key is not None:
            self._parts.replays.begin(tx, key, running.id)
        records.allowed(tx, self._parts, said, decision)
        tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id))
        after_s = policy.doubt_charges_after_s
        return Admitted(who, tool, decision, policy.version, tx.now_us, after_s, request.params, key)

    def _before(
        self, tx: Tx, running: Running, said: records.Said, policy: Policy, keyed: Keyed | Reason
    ) -> Again | Answer | None:
        """What an idempotency key says that was used before; None: it is free, and this is a new call (R13)."""
        found = keyed if isinstance(keyed, Reason) else used_before(tx, self._parts, keyed, policy.currency)
        if isinstance(found, Again):
            who = said.who
            records.replayed(tx, self._parts, said._replace(call=found.call))
            tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id))
        elif found is not None:
            records.refused(tx, self._parts, said, Deny((found,)))
            return refusal("unknown" if found.code == "call.in_doubt" else "denied", [found], call=said.call)
        return found

    def _first_answer(self, found: Again) -> Answer:
        answer = self._parts.replays.open(found)
        return refusal("denied", [found.gone], call=found.call) if answer is None else answer

    def _continued(self, request: CallRequest) -> str | None:
        """The call that a request would go on with."""
        try:
            return self._parts.rounds.open(str(request.params.get("requestState"))).call
        except BadState:
            return None

    def _closed(self) -> Reason | None:
        """Why nothing at all is dispatched now."""
        if self._health.draining:
            return _DRAINING
        return _CLOCK if self._parts.clock.stepped_us else None  # a wrong time would judge windows and expiries (R9)

    def _go_on(
        self, tx: Tx, running: Running, said: records.Said, decision: Decision, policy: Policy, state: str
    ) -> Admitted | Again | Answer:
        """Another round of an admitted call: halts, scope and arguments are asked again, money is not (R14)."""
        who, request, rounds, key = said.who, said.request, self._parts.rounds, said.keyed
        assert said.tool is not None
        refused = () if isinstance(decision, Allow) else tuple(one for one in decision.reasons if still_asked(one))
        if refused:
            records.refused(tx, self._parts, said, Deny(refused))
            return refusal("halted" if refused[0].code.endswith(".halted") else "denied", refused, call=said.call)
        try:
            one = rounds.open(state)
            hold = self._parts.ledger.get(tx, one.call)
            new_key = key is not None and self._parts.replays.free_for(tx, key, one.call)
            rounds.take(tx, one, who, f"{request.method} {request.tool}", request.arguments)
        except (BadState, NotFound) as error:
            before = None if key is None else self._before(tx, running, said, policy, key)
            if before is not None:  # a round whose answer was lost
                return before
            reason = Reason("args.request_state", f"the requestState is not valid: {error}; start this call anew")
            records.refused(tx, self._parts, said, Deny((reason,)))
            return as_error(refusal("denied", [reason], call=said.call))
        if key is not None and new_key:
            self._parts.replays.begin(tx, key, one.call)
        records.continued(tx, self._parts, said._replace(call=one.call))
        tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id, one.call))
        deadline_s = decision.deadline_s if isinstance(decision, Allow) else dispatch.DEADLINE_S
        # Where the policy that admitted it is not at hand any more, no bill can be read: the full hold is charged (R26, R7).
        admitting = self._parts.policies.of(one.policy)
        price = None if admitting is None else admitting.terms_for(who, said.tool.name, said.tool.upstream).price
        allow = Allow(
            hold.amount_micros,
            "",
            hold.charge_on_error,
            hold.read_only,
            deadline_s,
            rate=None if price is None else price.rate,
        )
        rest = {key: value for key, value in request.params.items() if key != "requestState"}
        params = rest if one.state is None else {**rest, "requestState": one.state}
        after_s = policy.doubt_charges_after_s
        return Admitted(
            who, said.tool, allow, one.policy or policy.version, hold.admitted_us, after_s, params, key, one.kept
        )

    def _refuse(self, tx: Tx, said: records.Said, decision: Deny | Halt) -> Answer | NoSuchTool:
        records.refused(tx, self._parts, said, decision)
        if decision.reasons[0].code == "tool.unknown":
            return NoSuchTool(said.request.tool)
        halted = isinstance(decision, Halt) or decision.reasons[0].code.endswith(".halted")
        return refusal("halted" if halted else "denied", decision.reasons, call=said.call)

    # dispatch

    async def _dispatch(self, running: Running, admitted: Admitted, request: CallRequest) -> Outcome:
        params, admitted.params = admitted.params, {}  # what is left is kept for as long as a late answer may come
        running.tool, begun = admitted.tool.name, time.perf_counter()
        try:
            return await dispatch.send(
                self._parts.catalog.upstream(admitted.tool.upstream),
                running,
                who=admitted.who,
                request=request,
                params=params,
                deadline_s=admitted.allow.deadline_s,
                on_late=lambda answer: self._parts.calls.late.add(running.id, admitted, answer),
                shelf=self._parts.calls.kept,
                kept=admitted.kept,
            )
        finally:
            self._parts.telemetry.dispatched(admitted.tool.upstream, time.perf_counter() - begun)

    def _span(
        self, running: Running, request: CallRequest, admitted: Admitted | None, error: str | None, begun: float
    ) -> None:
        """For OpenTelemetry, where it is configured; the name of a tool only where an upstream lists it (P9)."""
        spans = self._parts.telemetry.spans
        if spans is None:
            return
        said = {"haltline.call": running.id}
        if admitted is not None:
            said |= {"gen_ai.agent.id": admitted.who.agent, "haltline.session": admitted.who.session_id}
            said |= {"haltline.drill": "true"} if is_drill(admitted.who) else {}
        if error is not None:
            said["error.type"] = error
        tool = None if request.target is None else request.target.name
        spans.call(request.method, tool, said, took_s=time.perf_counter() - begun)

    # transaction 2

    async def _settle(self, running: Running, request: CallRequest, admitted: Admitted, outcome: Outcome) -> Answer:
        """End the hold, unless the call waits for input, and record it; the answer that the caller may have."""
        asked, nonce = asks_for_input(outcome.answer), ""
        answer = outcome.answer_for(running.id)
        if asked is not None:
            nonce = new_nonce()
            state, version = asked.get("requestState"), admitted.policy_version
            sealed_state = self._parts.rounds.seal(Round(running.id, nonce, state, outcome.kept, version))
            answer = {"result": {**asked, "requestState": sealed_state}}
        kept = None
        if admitted.keyed is not None and outcome.kind == "answered":
            kept = self._parts.replays.seal(admitted.keyed, running.id, answer)

        def record(tx: Tx) -> None:
            if asked is None:
                end = records.ended(tx, self._parts, running, admitted, outcome)
                ask_at_end(tx, self._parts, admitted.who, end)
            else:
                records.waits_for_input(tx, self._parts, running.id, nonce, admitted, request, asked)
            if admitted.keyed is not None:
                # What is withheld is not kept either (R17).
                self._parts.replays.keep(tx, admitted.keyed, running.id, None if running.stopped else kept)

        try:
            # What is kept for a key or for another round is asked for in SQLite, after sums were changed that are not to be read anew.
            await self._parts.writer.run(record, from_memory=asked is None and admitted.keyed is None)
        except StoreUnavailable as error:
            self._unrecorded.add(running.id, record)
            log.error("outcome_not_recorded", call=running.id, error=str(error))
            if outcome.kind == "unsent":
                return _unavailable("nothing was sent")
            reason = Reason("store.unavailable", "it ran; the outcome is not recorded; do not retry")
            return refusal("unknown", [reason], call=running.id)
        return answer

    # respond

    @staticmethod
    async def _respond(running: Running, request: CallRequest, answer: Answer) -> Answer | None:
        """Deliver, unless it was stopped meanwhile: then whatever came back is withheld (R17)."""
        if running.stopped is None:
            with running.delivery:
                await request.drain()
                if running.stopped is None:
                    await request.respond(answer)
        if running.stopped is None:
            return None
        halted = "halted" in running.stopped.code or running.stopped.code.startswith("rule.")
        return refusal("halted" if halted else "denied", [running.stopped], call=running.id)


def _hold(call: str, who: Principal, tool: Tool, allow: Allow, now_us: int) -> Hold:
    return Hold(
        id=call,
        agent_id=who.agent_id,
        session_id=who.session_id,
        tool=tool.name,
        upstream=records.upstream_of(who, tool),
        amount_micros=allow.amount_micros,
        charged_micros=None,
        state="held",
        charge_on_error=allow.charge_on_error,
        read_only=allow.read_only,
        admitted_us=now_us,
        doubt_us=None,
        charges_at_us=None,
        why=None,
    )


_CLOCK = Reason("clock.stepped", "the broker's clock was set forward, so no cap can be judged; nothing was sent")
_DRAINING = Reason("broker.stopping", "the broker is shutting down; nothing was sent", retryable=True)


def _unavailable(why: str) -> Answer:
    reason = Reason("store.unavailable", f"the record cannot be written: {why}; nothing was sent", retryable=True)
    return refusal("denied", [reason])
