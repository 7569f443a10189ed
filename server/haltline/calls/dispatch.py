"""Sending one admitted call to its upstream, and saying in three layers what became of it. Touches no store.

The one line that decides money: a call is unsent only if no byte of it can have left (R11); anything else that is not a
valid answer is unknown, and stays in doubt (R10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import anyio
import structlog

from haltline.calls.kept import KeptCall, may_be_asked
from haltline.calls.refusals import refusal
from haltline.calls.rounds import ROUND_S, asks_for_input
from haltline.calls.running import StoppedCall
from haltline.policy.model import Reason
from haltline.upstreams import faults
from haltline.upstreams.model import Caller, NotSent, OutcomeUnknown, UpstreamCall

if TYPE_CHECKING:
    from haltline.calls.call import CallRequest
    from haltline.calls.kept import KeptCalls
    from haltline.calls.running import Running
    from haltline.policy.model import Principal
    from haltline.upstreams.model import Upstream

__all__ = ["Outcome", "interrupted", "send"]

DEADLINE_S = 60.0
"""Where no decision names one."""
ROUNDS_MAX = 10
_PASSING = frozenset({"upstream.unreachable", "upstream.busy", "upstream.starting_failed"})
"""What kept a call from being sent, and may be over soon."""
log = structlog.get_logger(__name__)
_LASTING = frozenset({"upstream.no_credential"})
"""Why nothing was sent, where trying again changes nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`answered`: a valid JSON-RPC answer came back. `unsent`: provably nothing left. `unknown`: it may have run."""

    kind: Literal["answered", "unsent", "unknown"]
    answer: Mapping[str, Any] | None = None
    code: str = ""
    text: str = ""
    kept: bool = False
    """It asks for input, and its upstream's call is kept open for that."""

    @property
    def is_error(self) -> bool | None:
        """The tool's own `isError`; None where there was no result."""
        result = (self.answer or {}).get("result")
        return bool(result.get("isError")) if isinstance(result, dict) else None

    @property
    def succeeded(self) -> bool:
        return self.kind == "answered" and self.is_error is False

    def layers(self) -> dict[str, Any]:
        """Transport, protocol and `isError`, as the audit event has them."""
        if self.kind != "answered":
            return {"transport": self.kind, "code": self.code}
        error = (self.answer or {}).get("error")
        protocol = "ok" if error is None else f"error {error.get('code')}" if isinstance(error, dict) else "error"
        return {"transport": "ok", "protocol": protocol, "is_error": self.is_error}

    def answer_for(self, call: str) -> dict[str, Any]:
        """What the caller gets: the upstream's answer unchanged, or a readable account of why there is none."""
        if self.answer is not None:
            return dict(self.answer)
        if self.kind == "unsent":
            reason = Reason(
                self.code, f"{self.text}; nothing was sent and nothing is charged", retryable=self.code not in _LASTING
            )
            return refusal("denied", [reason], call=call)
        return refusal("unknown", [Reason(self.code, f"{self.text}; it may have run")], call=call)


def interrupted(running: Running) -> Outcome:
    """What is known of a call whose dispatch was cancelled."""
    why = running.stopped.code if running.stopped is not None else "call.cancelled"
    text = "it was stopped" if running.stopped is not None else "its caller cancelled it"
    return Outcome("unknown" if running.sent else "unsent", code=why, text=text)


async def send(
    upstream: Upstream,
    running: Running,
    *,
    who: Principal,
    request: CallRequest,
    params: Mapping[str, Any],
    deadline_s: float,
    on_late: Callable[[dict[str, Any]], None],
    shelf: KeptCalls,
    kept: bool = False,
) -> Outcome:
    """Dispatch within the call's cancel scope. Never raises but for a cancellation from outside it.

    `kept`: the call waits on the shelf for what this request brings.
    """
    call = UpstreamCall(
        caller=Caller(who.agent_id, who.session_id, who.agent, who.task, who.tier),
        params=params,
        deadline_s=deadline_s,
        before_send=running.before_send,
        on_notification=request.notify,
        on_late=on_late,
        method=request.method,
        peer=request.peer,
    )
    if running.scope.cancel_called:
        return interrupted(running)
    with running.scope:
        try:
            if kept or may_be_asked(upstream, request):
                return await _in_turns(upstream, call, running, request, shelf, kept=kept)
            answer = await upstream.call(call)
            return Outcome("answered", await _with_input(upstream, call, answer) if call.peer.handshake else answer)
        except StoppedCall:
            return interrupted(running)
        except NotSent as error:
            return Outcome("unknown" if running.sent else "unsent", code=error.code, text=str(error))
        except OutcomeUnknown as error:
            return Outcome("unknown", code=error.code, text=str(error))
        except Exception as error:
            log.error("dispatch_failed", call=running.id, upstream=upstream.spec.name, exc_info=error)
            kind: Literal["unsent", "unknown"] = "unknown" if running.sent else "unsent"
            return Outcome(kind, code="upstream.failed", text=f"the connection to {upstream.spec.name} failed")
    return interrupted(running)


async def _in_turns(
    upstream: Upstream, call: UpstreamCall, running: Running, request: CallRequest, shelf: KeptCalls, *, kept: bool
) -> Outcome:
    """A call that is kept open when its upstream asks for input in the middle of it."""
    one = shelf.take(running.id) if kept else KeptCall(shelf, upstream, call, request)
    if one is None:
        raise OutcomeUnknown("upstream.lost", f"the call to {upstream.spec.name} that waited for this input has ended")
    waits = False
    try:
        if kept:
            one.bring(request.params.get("inputResponses"), request)
        answer = await one.turn(call.deadline_s)
        waits = one.asks
    except TimeoutError as error:
        late = faults.overdue(one.name, call.deadline_s) if running.sent else faults.too_late_to_send(one.name)
        raise late from error
    finally:
        if waits:
            shelf.keep(running.id, one)
        else:
            one.end()
    return Outcome("answered", answer, kept=waits)


async def _with_input(upstream: Upstream, call: UpstreamCall, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A client of the handshake era knows no rounds: it is asked in mid-call, and the broker brings its answers."""
    for _ in range(ROUNDS_MAX):
        asked = asks_for_input(answer)
        if asked is None:
            return answer
        brought: dict[str, Any] = {}
        for key, question in (asked.get("inputRequests") or {}).items():
            said = await _asked(call, question)
            if "result" not in said:
                return _NEEDS_INPUT
            brought[key] = said["result"]
        params = {**call.params, "inputResponses": brought}
        if "requestState" in asked:
            params["requestState"] = asked["requestState"]
        answer = await upstream.call(replace(call, params=params))
    return _NEEDS_INPUT


async def _asked(call: UpstreamCall, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """A client's answer. Raises OutcomeUnknown when it never comes: what was begun stays in doubt."""
    if call.peer.ask is None:
        return {}
    with anyio.move_on_after(ROUND_S):
        return await call.peer.ask({"jsonrpc": "2.0", **question})
    raise OutcomeUnknown("upstream.input_timeout", "the client did not bring the input that was asked for in time")


_NEEDS_INPUT: Mapping[str, Any] = {
    "result": {
        "content": [{"type": "text", "text": "This tool asks for input that its client cannot give."}],
        "isError": True,
    }
}
