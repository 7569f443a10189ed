"""`Broker.call`: the path of one call, from a token and a raw message to an answer. Enforcement is this one function.

    transaction 1   identify · decide · reserve · record      committed before anything leaves the process (P1)
    dispatch        the only await on the outside world
    transaction 2   settle · record                           shielded from cancellation (P7)
    respond         the upstream's answer, or a refusal

Anything that is not a clean Allow is a Deny (P6). Knows no transport and no SQL.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from haltline.calls import dispatch, records
from haltline.calls.admission import Dead
from haltline.calls.call import Admitted, NoSuchTool
from haltline.calls.dispatch import Outcome
from haltline.calls.refusals import as_error, refusal
from haltline.calls.rounds import BadState, Round, asks_for_input, new_nonce
from haltline.calls.running import StoppedCall
from haltline.errors import NotFound, StoreUnavailable
from haltline.facts import gather
from haltline.identity import Unknown
from haltline.ledger import Hold
from haltline.policy.model import Allow, Deny, Facts, Halt, Principal, Reason, ToolCall
from haltline.quarantine import comes_first, not_served

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
        running = self._parts.calls.open()
        request.attach(running)
        try:
            admitted = await self._admit(running, request)
            if not isinstance(admitted, Admitted):
                return admitted
            outcome: Outcome | None = None
            try:
                outcome = await self._dispatch(running, admitted, request)
            finally:
                with anyio.CancelScope(shield=True):
                    answer = await self._settle(running, request, admitted, outcome or dispatch.interrupted(running))
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
        if self._parts.halts.on(tx, who.session_id, who.agent_id):
            return None
        tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id))
        return who

    # transaction 1

    async def _admit(self, running: Running, request: CallRequest) -> Admitted | Answer | Unknown | NoSuchTool:
        if self._unrecorded.waiting:
            return _unavailable("outcomes of earlier calls are not recorded yet")
        try:
            return await self._parts.writer.run(lambda tx: self._decide(tx, running, request))
        except StoreUnavailable as error:
            # A COMMIT that failed may still have reached the disk: what is there is undone, for nothing was sent.
            self._unrecorded.add(
                running.id, lambda tx: records.undo(tx, self._parts, running.id, self._continued(request))
            )
            log.error("call_not_recorded", call=running.id, error=str(error))
            return _unavailable("this call could not be recorded")

    def _decide(self, tx: Tx, running: Running, request: CallRequest) -> Admitted | Answer | Unknown | NoSuchTool:
        """Identify, decide, reserve and record: one unit of work (P1, P2, P3)."""
        tool = request.target
        policy = self._parts.policies.current
        who = self._doorman.principal(tx, request.token, request.session_key, policy, open_session=True)
        if isinstance(who, Unknown):
            return who
        if isinstance(who, Dead):
            records.denied_dead(tx, self._parts, running.id, who, request)
            return refusal("denied", [who.reason], call=running.id)
        facts = Facts()
        closed = self._closed()
        if closed is not None:
            decision: Decision = Deny((closed,))
        elif policy is None:
            reason = Reason(
                "policy.error", "the policy cannot be read, so nothing is allowed until an operator repairs it"
            )
            decision = Deny((reason,))
        elif tool is None:
            decision = self._unlisted(who, policy, request.tool)
        else:
            facts = gather(tx, self._parts, who, policy)
            asked = ToolCall(
                tool.name,
                tool.upstream,
                request.arguments,
                tool.input_schema,
                free=request.method != "tools/call",  # unless priced (R25)
                follows=request.method.startswith("tasks/"),
            )
            decision = _decided(lambda: policy.decide(asked, who, facts, tx.now_us))
            if request.method == "tools/call":
                decision = self._as_pinned(tx, tool, decision)
        said = records.Said(who, request, running.id, tool, policy.version if policy else None, facts)
        state = request.params.get("requestState")
        if (
            closed is None
            and policy is not None
            and tool is not None
            and isinstance(state, str)
            and not request.peer.handshake
        ):
            return self._go_on(tx, running, said, decision, policy, state)
        if not isinstance(decision, Allow):
            return self._refuse(tx, said, decision)
        assert policy is not None
        assert tool is not None
        self._parts.ledger.hold(tx, _hold(running.id, who, tool, decision, tx.now_us))
        records.allowed(tx, self._parts, said, decision)
        tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id))
        return Admitted(who, tool, decision, policy.version, tx.now_us, policy.doubt_charges_after_s, request.params)

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
    ) -> Admitted | Answer:
        """Another round of an admitted call: halts, scope and arguments are asked again, money is not (R14)."""
        who, request, rounds = said.who, said.request, self._parts.rounds
        assert said.tool is not None
        refused = () if isinstance(decision, Allow) else tuple(one for one in decision.reasons if _still_asked(one))
        if refused:
            records.refused(tx, self._parts, said, Deny(refused))
            return refusal("halted" if refused[0].code.endswith(".halted") else "denied", refused, call=said.call)
        try:
            one = rounds.open(state)
            hold = self._parts.ledger.get(tx, one.call)
            rounds.take(tx, one, who, f"{request.method} {request.tool}", request.arguments)
        except (BadState, NotFound) as error:
            reason = Reason("args.request_state", f"the requestState is not valid: {error}; start this call anew")
            records.refused(tx, self._parts, said, Deny((reason,)))
            return as_error(refusal("denied", [reason], call=said.call))
        records.continued(tx, self._parts, replace(said, call=one.call))
        tx.after_commit(lambda: self._parts.calls.bind(running, who.agent_id, who.session_id, one.call))
        deadline_s = decision.deadline_s if isinstance(decision, Allow) else dispatch.DEADLINE_S
        allow = Allow(hold.amount_micros, "", hold.charge_on_error, hold.read_only, deadline_s)
        rest = {key: value for key, value in request.params.items() if key != "requestState"}
        params = rest if one.state is None else {**rest, "requestState": one.state}
        after_s = policy.doubt_charges_after_s
        return Admitted(who, said.tool, allow, policy.version, hold.admitted_us, after_s, params)

    def _as_pinned(self, tx: Tx, tool: Tool, decision: Decision) -> Decision:
        """A tool whose definition is not the approved one is refused, whatever it would cost; nobody is halted for it."""
        reason = not_served(self._parts.pins.get(tx, tool.upstream, tool.own_name), tool)
        if reason is None or (not isinstance(decision, Allow) and comes_first(decision.reasons[0])):
            return decision
        return Deny((reason,))

    def _unlisted(self, who: Principal, policy: Policy, tool: str) -> Deny:
        """A name that is not listed: nobody has it, or the upstream that it names is away."""
        owner = self._parts.catalog.owner(tool)
        away = [state.name for state in self._parts.catalog.states() if state.name == owner and state.state != "ready"]
        if not away:
            return Deny((Reason("tool.unknown", f"no upstream has a tool {tool[:80]}"),))
        if not policy.grants(who, tool, away[0]):
            return Deny((Reason("scope.tool", f"{tool[:80]} is not among the tools of this session"),))
        return Deny((Reason("upstream.unavailable", f"{away[0]} cannot be reached now", retryable=True),))

    def _refuse(self, tx: Tx, said: records.Said, decision: Deny | Halt) -> Answer | NoSuchTool:
        records.refused(tx, self._parts, said, decision)
        if decision.reasons[0].code == "tool.unknown":
            return NoSuchTool(said.request.tool)
        halted = isinstance(decision, Halt) or decision.reasons[0].code.endswith(".halted")
        return refusal("halted" if halted else "denied", decision.reasons, call=said.call)

    # dispatch

    async def _dispatch(self, running: Running, admitted: Admitted, request: CallRequest) -> Outcome:
        return await dispatch.send(
            self._parts.catalog.upstream(admitted.tool.upstream),
            running,
            who=admitted.who,
            request=request,
            params=admitted.params,
            deadline_s=admitted.allow.deadline_s,
        )

    # transaction 2

    async def _settle(self, running: Running, request: CallRequest, admitted: Admitted, outcome: Outcome) -> Answer:
        """End the hold, unless the call waits for input, and record it; the answer that the caller may have."""
        asked, nonce = asks_for_input(outcome.answer), new_nonce()

        def record(tx: Tx) -> None:
            if asked is None:
                records.ended(tx, self._parts, running, admitted, outcome)
            else:
                records.waits_for_input(tx, self._parts, running.id, nonce, admitted, request, asked)

        try:
            await self._parts.writer.run(record)
        except StoreUnavailable as error:
            self._unrecorded.add(running.id, record)
            log.error("outcome_not_recorded", call=running.id, error=str(error))
            if outcome.kind == "unsent":
                return _unavailable("nothing was sent")
            reason = Reason("store.unavailable", "it ran; the outcome is not recorded; do not retry")
            return refusal("unknown", [reason], call=running.id)
        if asked is None:
            return outcome.answer_for(running.id)
        sealed = self._parts.rounds.seal(Round(running.id, nonce, asked.get("requestState")))
        return {"result": {**asked, "requestState": sealed}}

    # respond

    @staticmethod
    async def _respond(running: Running, request: CallRequest, answer: Answer) -> Answer | None:
        """Deliver, unless it was stopped meanwhile: then whatever came back is withheld (R17)."""
        with running.delivery:
            await request.drain()
            if running.stopped is None:
                await request.respond(answer)
        if running.stopped is None:
            return None
        return refusal("halted" if "halted" in running.stopped.code else "denied", [running.stopped], call=running.id)


def _still_asked(reason: Reason) -> bool:
    """Whether a reason also stops a call that was admitted, and so paid for, before."""
    return reason.code.partition(".")[0] in {"everything", "agent", "session", "scope", "args", "policy", "upstream"}


def _decided(decide: Callable[[], Decision]) -> Decision:
    """The decision; whatever breaks in it is a refusal (P6)."""
    try:
        return decide()
    except Exception as error:
        log.error("policy_failed", exc_info=error)
        return Deny((Reason("policy.error", "the policy failed on this call; an operator must look at it"),))


def _hold(call: str, who: Principal, tool: Tool, allow: Allow, now_us: int) -> Hold:
    return Hold(
        id=call,
        agent_id=who.agent_id,
        session_id=who.session_id,
        tool=tool.name,
        upstream=tool.upstream,
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
