"""What is decided about one call, inside its first transaction: the policy's answer, and the facts it was made from (R30).

Reads the catalogue, the pins and the ledger; reserves nothing and records nothing. Whatever breaks here is a refusal (P6).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import structlog

from haltline.facts import gather
from haltline.policy.decide import for_child
from haltline.policy.drill import DRILL, as_drilled, is_drill
from haltline.policy.model import Allow, Deny, Facts, Reason, ToolCall
from haltline.policy.tiers import OPEN_SESSION
from haltline.quarantine import comes_first, not_served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.calls.call import CallRequest
    from haltline.parts import Parts
    from haltline.policy.model import Decision, Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx
    from haltline.upstreams.catalog import Tool

__all__ = ["Judged", "judged", "lasting", "still_asked"]

log = structlog.get_logger(__name__)
_STILL_ASKED = frozenset({"everything", "agent", "session", "scope", "args", "policy", "upstream"})


class Judged(NamedTuple):
    """The decision, and what it was made from."""

    decision: Decision
    facts: Facts = Facts()
    owner: Principal | None = None
    """Whose caps and halts refused it, where that is a session above the caller's (R20)."""
    above: Mapping[str, Facts] = MappingProxyType({})
    """What was read of the sessions above, by their ids."""


def judged(tx: Tx, parts: Parts, who: Principal, request: CallRequest, policy: Policy | None) -> Judged:
    tool = request.target
    if policy is None:
        text = "the policy cannot be read, so nothing is allowed until an operator repairs it"
        return Judged(Deny((Reason("policy.error", text),)))
    if tool is None or (tool.upstream == DRILL and not is_drill(who)):
        return Judged(_unlisted(parts, who, policy, request.tool))
    own = parts.catalog.is_own(tool)
    asked = ToolCall(
        tool.name,
        tool.upstream,
        request.arguments,
        tool.input_schema,
        free=own or request.method != "tools/call",  # unless priced (R25)
        follows=request.method.startswith("tasks/"),
    )
    facts = gather(tx, parts, who, policy)
    above = {owner.session_id: gather(tx, parts, owner, policy) for owner in who.above[::-1]}
    if who.above and facts.halts:  # before any cap of a session above is asked: a stopped session breaks none (R22)
        return Judged(_decide(policy, asked, who, facts, tx.now_us), facts, above=above)
    root_first = who.above[::-1]
    for owner in sorted(root_first, key=lambda one: not above[one.session_id].halts):
        refused = _decide(policy, asked, owner, above[owner.session_id], tx.now_us)
        if not isinstance(refused, Allow):
            return Judged(for_child(owner, refused), above[owner.session_id], owner, above)
    decision = _decide(policy, asked, who, facts, tx.now_us)
    if request.method == "tools/call" and not own:
        decision = _as_pinned(tx, parts, tool, decision)
    return Judged(decision, facts, above=above)


def still_asked(reason: Reason) -> bool:
    """Whether a reason also stops a call that was admitted, and so paid for, before."""
    return reason.code.partition(".")[0] in _STILL_ASKED


def lasting(decision: Decision) -> bool:
    """Whether a refusal also stands before an answer that was given before: a stop, the scope, a name that nobody has."""
    return not isinstance(decision, Allow) and any(
        reason.code == "tool.unknown" or (still_asked(reason) and reason.code != "upstream.unavailable")
        for reason in decision.reasons
    )


def _as_pinned(tx: Tx, parts: Parts, tool: Tool, decision: Decision) -> Decision:
    """A tool whose definition is not the approved one is refused, whatever it would cost; nobody is halted for it."""
    reason = not_served(parts.pins.get(tx, tool.upstream, tool.own_name), tool)
    if reason is None or (not isinstance(decision, Allow) and comes_first(decision.reasons[0])):
        return decision
    return Deny((reason,))


def _unlisted(parts: Parts, who: Principal, policy: Policy, tool: str) -> Deny:
    """A name that is not listed: nobody has it, or the upstream that it names is away."""
    owner = parts.catalog.owner(tool)
    away = [state.name for state in parts.catalog.states() if state.name == owner and state.state != "ready"]
    if not away:
        return Deny((Reason("tool.unknown", f"no upstream has a tool {tool[:80]}"),))
    if not policy.grants(who, tool, away[0]):
        return Deny((Reason("scope.tool", f"{tool[:80]} is not among the tools of this session"),))
    return Deny((Reason("upstream.unavailable", f"{away[0]} cannot be reached now", retryable=True),))


def _decide(policy: Policy, asked: ToolCall, who: Principal, facts: Facts, now_us: int) -> Decision:
    """The decision; whatever breaks in it is a refusal (P6)."""
    try:
        drilled = asked.upstream == DRILL or (asked.tool == OPEN_SESSION and is_drill(who))
        return policy.decide(asked, as_drilled(who) if drilled else who, facts, now_us)
    except Exception as error:
        log.error("policy_failed", exc_info=error)
        return Deny((Reason("policy.error", "the policy failed on this call; an operator must look at it"),))
