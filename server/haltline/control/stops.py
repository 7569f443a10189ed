"""The kill switch and its undoing: revoke, halt, resume (R16 to R19).

A stop is one unit: the state, its event and its alert, and from its commit the calls that run. When it returns, no send
and no delivery can start for what was stopped; streams and processes end beside the answer, within a second (R17).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.alarm import alarm, resolve
from haltline.audit import Kind
from haltline.clock import iso
from haltline.control.outlook import outlook
from haltline.control.views import Shown
from haltline.errors import Conflict, NotFound, RequestError
from haltline.halts import EVERYTHING
from haltline.lineage import family, parents
from haltline.policy.drill import is_drill
from haltline.policy.model import CapKind, Principal, Reason
from haltline.policy.money import parse_amount
from haltline.upstreams.model import Caller

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.halts import HaltRow, HaltScope
    from haltline.identity import AgentRow, SessionRow
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["OPERATOR_CODE", "Stops"]

OPERATOR_CODE = "operator.halt"
"""The reason code of a halt that a person or a program with an operator credential set."""
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
SESSION_PREFIX = "ses_"
_HALTED: dict[HaltScope, Kind] = {
    "session": Kind.SESSION_HALTED,
    "agent": Kind.AGENT_HALTED,
    "everything": Kind.EVERYTHING_HALTED,
}
_RESUMED: dict[HaltScope, Kind] = {
    "session": Kind.SESSION_RESUMED,
    "agent": Kind.AGENT_RESUMED,
    "everything": Kind.EVERYTHING_RESUMED,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a stop is about. `subject_id` is what halts are keyed by."""

    name: str
    scope: HaltScope
    subject_id: str
    agent: AgentRow | None = None
    session: SessionRow | None = None


@dataclass(slots=True)
class Stopped:
    """What one stop did. `calls` is known once the commit has run."""

    already: bool
    at_us: int
    sessions: list[str]
    callers: list[Caller]
    calls: int = 0


class Stops:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    # revoke

    async def revoke(self, request: Request, *, target: str, reason: str) -> r.Revoked:
        """End a session, or an agent with all its sessions, for good. Safe to repeat; each time is recorded."""
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> tuple[Literal["session", "agent"], Stopped]:
            found = self._target(tx, target)
            if found.scope == "everything":
                raise RequestError("revoke takes a session or an agent; to stop everything: haltline halt everything")
            if found.session is not None:
                return "session", self._revoke_session(tx, operator, request, found, why)
            return "agent", self._revoke_agent(tx, operator, request, found, why)

        kind, done = await self._desk.act(request, unit)
        self._desk.tear_down(done.callers)
        return {
            "target": target,
            "kind": kind,
            "sessions": done.sessions,
            "calls_cancelled": done.calls,
            "already": done.already,
            "at": iso(done.at_us),
        }

    def _revoke_session(self, tx: Tx, operator: Operator, request: Request, found: Target, why: str) -> Stopped:
        assert found.session is not None
        assert found.agent is not None
        already = found.session.state == "revoked"
        ended = self._parts.identity.revoke_session(tx, found.session.id)
        text = "this session was revoked by an operator; do not retry, its credential is dead"
        done = Stopped(already, tx.now_us, list(ended), [Caller(found.agent.id, one) for one in ended])
        self._stop(tx, done, found, Reason("session.revoked", text))
        self._record(tx, operator, request, found, Kind.SESSION_REVOKED, Reason("session.revoked", why), done)
        return done

    def _revoke_agent(self, tx: Tx, operator: Operator, request: Request, found: Target, why: str) -> Stopped:
        assert found.agent is not None
        already, sessions = self._parts.identity.revoke_agent(tx, found.agent)
        callers = [Caller(found.agent.id, session) for session in sessions]
        text = "this agent was revoked by an operator; do not retry"
        done = Stopped(already, tx.now_us, sessions, [*callers, Caller(found.agent.id, "")])
        self._stop(tx, done, found, Reason("agent.revoked", text))
        self._record(tx, operator, request, found, Kind.AGENT_REVOKED, Reason("agent.revoked", why), done)
        return done

    # halt

    async def halt(self, request: Request, *, target: str, reason: str) -> r.Halted:
        """Stop a session, an agent or everything until a person resumes it.

        Safe to repeat: the first cause stays, and what runs is cancelled all the same, for a cap's halt lets running calls
        finish and an operator's does not (R18).
        """
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> tuple[Target, Stopped]:
            found = self._target(tx, target)
            fresh = self._parts.halts.set(
                tx, found.scope, found.subject_id, code=OPERATOR_CODE, text=why, by=operator.actor
            )
            done = Stopped(not fresh, tx.now_us, [], self._callers(tx, found))
            subject = "the broker" if found.scope == "everything" else f"this {found.scope}"
            text = f"an operator halted {subject}: {why}"
            self._stop(tx, done, found, Reason(f"{found.scope}.halted", text))
            self._record(tx, operator, request, found, _HALTED[found.scope], Reason(OPERATOR_CODE, why), done)
            return found, done

        found, done = await self._desk.act(request, unit)
        self._desk.tear_down(done.callers)
        return {
            "target": found.name,
            "scope": found.scope,
            "calls_cancelled": done.calls,
            "already": done.already,
            "at": iso(done.at_us),
        }

    def _callers(self, tx: Tx, found: Target) -> list[Caller]:
        """Whose streams and processes end with this halt."""
        if found.session is not None:
            return [Caller(found.session.agent_id, one) for one in family(tx, found.session.id)]
        if found.agent is not None:
            return [Caller(found.agent.id, "")]
        return [Caller(agent.id, "") for agent, sessions_open in self._parts.identity.agents(tx) if sessions_open]

    # resume

    async def resume(
        self, request: Request, *, target: str, reason: str, allow: str | None = None, preview: bool = False
    ) -> r.Resumed:
        """Lift exactly one halt, and with `allow` add to the cap that caused it until its window ends (R16).

        `preview` says what that would do, and does nothing.
        """
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> tuple[Target, HaltRow, int | None, int, str]:
            found = self._target(tx, target)
            halt = self._parts.halts.get(tx, found.scope, found.subject_id)
            if halt is None:
                raise Conflict(self._nothing_to_lift(tx, found))
            allowed = None if allow is None else _allowance(halt, allow)
            ahead = outlook(tx, self._parts, self._principal(tx, found), halt.cap, allowed or 0)
            if preview:
                return found, halt, allowed, tx.now_us, ahead
            self._parts.halts.lift(tx, halt, by=operator.actor, reason=why)
            if allowed is not None:
                self._allow(tx, operator, found, halt, allowed)
            who = self._principal(tx, found)
            body = {
                "target": found.name,
                "reason": why,
                "was": {"code": halt.code, "text": halt.text, "by": halt.by, "since_us": halt.set_us},
                "allowance": allowed,
                "cap": None if allowed is None or halt.cap is None else halt.cap.value,
                "drill": True if who is not None and is_drill(who) else None,
            }
            kind = _RESUMED[found.scope]
            event = self._desk.event(kind, operator, request, agent=found.agent, session=_session_id(found), body=body)
            seq = self._parts.audit.append(tx, event)
            resolve(tx, self._parts, by=operator.actor, event_seq=seq, kind=kind.value, who=who)
            return found, halt, allowed, tx.now_us, ahead

        found, halt, allowed, now_us, ahead = await self._desk.act(request, unit)
        return {
            "target": found.name,
            "scope": found.scope,
            "was": {"code": halt.code, "text": halt.text, "by": halt.by, "since": iso(halt.set_us)},
            "allowance": self._shown_allowance(halt, allowed),
            "ahead": ahead,
            "preview": preview,
            "at": iso(now_us),
        }

    def _nothing_to_lift(self, tx: Tx, found: Target) -> str:
        """Says which other halt stops it, for that one has its own resume."""
        agent_id = "" if found.agent is None else found.agent.id
        above = () if found.session is None else parents(tx, found.session.id)
        halted = [one for one in above if self._parts.halts.get(tx, "session", one) is not None]
        names = {"agent": found.agent.handle if found.agent is not None else "", "everything": EVERYTHING}
        others = [names[halt.scope] for halt in self._parts.halts.on(tx, "", agent_id)]
        hint = ", ".join(f"haltline resume {name}" for name in (*halted, *others))
        return f"{found.name} is not halted by a halt of its own" + (
            f"; what stops it is lifted by: {hint}" if hint else ""
        )

    def _allow(self, tx: Tx, operator: Operator, found: Target, halt: HaltRow, amount: int) -> None:
        assert halt.cap is not None
        until_us = self._window_end(tx, found, halt.cap)
        if until_us <= tx.now_us:
            raise Conflict(f"{found.name} has ended, so nothing can be added to its cap; open a new session")
        self._parts.halts.allow(
            tx, found.scope, found.subject_id, halt.cap, amount, until_us=until_us, by=operator.actor
        )

    def _window_end(self, tx: Tx, found: Target, cap: CapKind) -> int:
        """How long an allowance holds: to the end of the window of the cap it was added to."""
        if cap in {CapKind.TASK, CapKind.CALLS} and found.session is not None:
            return found.session.expires_us
        policy = self._parts.policies.current
        if cap is CapKind.DAY and policy is not None:
            return policy.day_bounds(tx.now_us)[1]
        return tx.now_us + (HOUR_US if cap is CapKind.HOUR else DAY_US)

    def _shown_allowance(self, halt: HaltRow, allowed: int | None) -> r.Quantity:
        if allowed is None or halt.cap is CapKind.CALLS:
            return allowed
        return Shown(self._parts.policies.current).money(allowed)

    # what they share

    def _target(self, tx: Tx, target: str) -> Target:
        """A session by its id, everything, or an agent by its handle. Raises NotFound."""
        identity = self._parts.identity
        if target == EVERYTHING:
            return Target(EVERYTHING, "everything", EVERYTHING)
        if target.startswith(SESSION_PREFIX):
            session = identity.session(tx, target)
            return Target(session.id, "session", session.id, identity.agent_by_id(tx, session.agent_id), session)
        try:
            agent = identity.agent(tx, target)
        except NotFound:
            raise NotFound(
                f"there is no session or agent {target!r}; haltline sessions list and haltline agents list show them"
            ) from None
        return Target(agent.handle, "agent", agent.id, agent)

    def _stop(self, tx: Tx, done: Stopped, found: Target, reason: Reason) -> None:
        """From the commit on, before its result is delivered: no send and no delivery can start any more, nor in any
        session below (R20).
        """
        sessions = () if found.session is None else family(tx, found.session.id)

        def stop() -> None:
            done.calls = self._parts.calls.stop(
                session_ids=sessions,
                agent_id=found.agent.id if found.scope == "agent" and found.agent is not None else None,
                everything=found.scope == "everything",
                reason=reason,
            )

        tx.after_commit(stop)

    def _record(
        self, tx: Tx, operator: Operator, request: Request, found: Target, kind: Kind, reason: Reason, done: Stopped
    ) -> None:
        """The event of a stop and, when it is the first, its alert (every stop is told)."""
        body = {
            "target": found.name,
            "code": reason.code,
            "reason": reason.text,
            "by": operator.actor,
            "sessions": done.sessions or None,
            "already": True if done.already else None,
        }
        event = self._desk.event(kind, operator, request, agent=found.agent, session=_session_id(found), body=body)
        seq = self._parts.audit.append(tx, event)
        if not done.already:
            alarm(
                tx,
                self._parts,
                kind=kind.value,
                reason=reason,
                by=operator.actor,
                event_seq=seq,
                who=self._principal(tx, found),
            )

    def _principal(self, tx: Tx, found: Target) -> Principal | None:
        if found.agent is None:
            return None
        if found.session is None:
            return self._parts.identity.sessionless(found.agent)
        return self._parts.identity.principal(tx, found.agent, found.session)


def _session_id(found: Target) -> str | None:
    return None if found.session is None else found.session.id


def _allowance(halt: HaltRow, allow: str) -> int:
    """What is added to the cap that caused a halt, in its unit. Raises RequestError, Conflict where no cap caused it."""
    if halt.cap is None:
        raise Conflict(f"no cap caused this halt ({halt.code}), so there is none to add to; resume without allow")
    try:
        amount = _count(allow) if halt.cap is CapKind.CALLS else parse_amount(allow)
    except ValueError as error:
        raise RequestError(f"allow: {error}") from None
    if amount <= 0:
        raise RequestError("allow: more than nothing is wanted; to add nothing leave it out")
    return amount


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError(f"the cap is on the number of calls, so a whole number is wanted, such as 20, not {text!r}")
    return int(text)
