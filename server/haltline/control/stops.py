"""The kill switch: revoke and halt (R16 to R19). Its undoing is `resume`'s.

A stop is one unit: the state, its event and its alert, and from its commit the calls that run. When it returns, no send
and no delivery can start for what was stopped; streams and processes end beside the answer, within a second (R17).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.alarm import alarm
from haltline.audit import Kind
from haltline.clock import iso
from haltline.control.aftermath import HALTED
from haltline.control.targets import Target
from haltline.control.targets import found as found_target
from haltline.errors import RequestError
from haltline.lineage import family
from haltline.policy.model import Reason
from haltline.upstreams.model import Caller

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["OPERATOR_CODE", "Stops"]

OPERATOR_CODE = "operator.halt"
"""The reason code of a halt that a person or a program with an operator credential set."""


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
            found = found_target(tx, self._parts.identity, target)
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
            found = found_target(tx, self._parts.identity, target)
            fresh = self._parts.halts.set(
                tx, found.scope, found.subject_id, code=OPERATOR_CODE, text=why, by=operator.actor
            )
            done = Stopped(not fresh, tx.now_us, [], self._callers(tx, found))
            subject = "the broker" if found.scope == "everything" else f"this {found.scope}"
            text = f"an operator halted {subject}: {why}"
            self._stop(tx, done, found, Reason(f"{found.scope}.halted", text))
            self._record(tx, operator, request, found, HALTED[found.scope], Reason(OPERATOR_CODE, why), done)
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

    # what they share

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
        event = self._desk.event(kind, operator, request, agent=found.agent, session=found.session_id, body=body)
        seq = self._parts.audit.append(tx, event)
        if not done.already:
            alarm(
                tx,
                self._parts,
                kind=kind.value,
                reason=reason,
                by=operator.actor,
                event_seq=seq,
                who=found.principal(tx, self._parts.identity),
            )
