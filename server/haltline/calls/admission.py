"""From a token to a principal, inside the deciding transaction: who calls, or why nobody does (R23, R24).

Knows credentials and sessions; knows nothing of caps and tools. What it returns is a value, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.audit import Event, Kind
from haltline.identity import Unknown
from haltline.policy.drill import DRILL_TOOLS
from haltline.policy.model import Reason

if TYPE_CHECKING:
    from haltline.audit import Audit
    from haltline.halts import Halts
    from haltline.identity import AgentRow, Identity, SessionRow
    from haltline.identity_credentials import Credential
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx

__all__ = ["AGENT_CLASSES", "Dead", "Doorman"]

AGENT_CLASSES = frozenset({"s", "a"})


@dataclass(frozen=True, slots=True)
class Dead:
    """A credential that is recognised but revoked or expired, within its grace period: it gets readable refusals."""

    agent: AgentRow
    session_id: str | None
    reason: Reason
    drilled: bool = False
    """Its session was a drill's."""


class Doorman:
    """Resolves the credentials of agents. `grace_s`: how long a dead one is told why instead of a 401 (R23)."""

    def __init__(self, identity: Identity, halts: Halts, audit: Audit, grace_s: float) -> None:
        self._identity = identity
        self._halts = halts
        self._audit = audit
        self._grace_us = int(grace_s * 1_000_000)

    def principal(
        self, tx: Tx, token: str | None, session_key: str, policy: Policy | None, *, open_session: bool
    ) -> Principal | Dead | Unknown:
        """Who acts. An agent credential continues its open session, or opens one where `open_session` (R24)."""
        credential = self._identity.verify(tx, token, AGENT_CLASSES)  # type: ignore[arg-type]  # the two are classes
        if isinstance(credential, Unknown):
            return credential
        assert credential.agent_id is not None
        agent = self._identity.agent_by_id(tx, credential.agent_id)
        if credential.session_id is not None:
            return self._of_session(tx, agent, self._identity.session(tx, credential.session_id))
        return self._of_agent(tx, credential, agent, session_key, policy, open_session=open_session)

    def _of_session(self, tx: Tx, agent: AgentRow, session: SessionRow) -> Principal | Dead | Unknown:
        life = session.life(tx.now_us)
        if life == "revoked":
            text = "this session was revoked by an operator; do not retry, its credential is dead"
            return self._dead(tx, agent, session, Reason("session.revoked", text), session.ended_us or 0)
        if life == "expired":
            text = "this session has expired; ask for a new one, its credential is dead"
            return self._dead(tx, agent, session, Reason("session.expired", text), session.expires_us)
        return self._identity.principal(tx, agent, session)

    def _of_agent(
        self,
        tx: Tx,
        credential: Credential,
        agent: AgentRow,
        session_key: str,
        policy: Policy | None,
        *,
        open_session: bool,
    ) -> Principal | Dead | Unknown:
        if credential.revoked_us is not None:
            revoked = agent.state == "revoked"
            text = "this agent was revoked by an operator" if revoked else "this credential was replaced by a newer one"
            reason = Reason("agent.revoked" if revoked else "credential.revoked", f"{text}; do not retry")
            return self._dead(tx, agent, None, reason, credential.revoked_us)
        tier = policy.tier(agent.tier) if policy is not None else None
        idle_s = tier.auto_session_idle_s if tier is not None else 0.0
        session = self._identity.auto_session(tx, credential, session_key, idle_s)
        stopped = self._halts.on(tx, "", agent.id)  # "everything" also stops new sessions (R16)
        halted = self._halts.of_credential(tx, credential.id) if session is None and open_session else None
        if (
            halted is not None
        ):  # a new connection is no way round a halt: a person lifts it, or its session expires (P4)
            session = self._identity.session(tx, halted)
        elif session is None and open_session and tier is not None and not stopped:
            session = self._open(tx, credential, agent, session_key, tier.auto_session_longest_s)
        if session is None:
            return self._identity.sessionless(agent)
        return self._identity.principal(tx, agent, session)

    def _open(self, tx: Tx, credential: Credential, agent: AgentRow, session_key: str, longest_s: float) -> SessionRow:
        expires_us = tx.now_us + int(longest_s * 1_000_000)
        session = self._identity.open_session(
            tx,
            agent,
            task="opened by its own credential",
            expires_us=expires_us,
            opened_by=f"agent:{agent.handle}",
            auto=(credential.id, session_key),
        )
        self._audit.append(
            tx,
            Event(
                Kind.SESSION_OPENED,
                f"agent:{agent.handle}",
                agent=agent.handle,
                agent_id=agent.id,
                session=session.id,
                body={"task": session.task, "expires_us": expires_us, "auto": True},
            ),
        )
        return session

    def _dead(
        self, tx: Tx, agent: AgentRow, session: SessionRow | None, reason: Reason, since_us: int
    ) -> Dead | Unknown:
        if tx.now_us > since_us + self._grace_us:
            return Unknown(reason.code.replace("session.", "credential."), f"{reason.text}.")
        if session is None:
            return Dead(agent, None, reason)
        return Dead(agent, session.id, reason, session.tools == DRILL_TOOLS)
