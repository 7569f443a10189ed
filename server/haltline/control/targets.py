"""What a stop or a resume is about: a session by its id, everything, or an agent by its handle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.errors import NotFound
from haltline.halts import EVERYTHING

if TYPE_CHECKING:
    from haltline.halts import HaltScope
    from haltline.identity import AgentRow, Identity, SessionRow
    from haltline.policy.model import Principal
    from haltline.store.writer import Tx

__all__ = ["Target", "found"]

SESSION_PREFIX = "ses_"


@dataclass(frozen=True, slots=True)
class Target:
    """`subject_id` is what halts are keyed by."""

    name: str
    scope: HaltScope
    subject_id: str
    agent: AgentRow | None = None
    session: SessionRow | None = None

    @property
    def session_id(self) -> str | None:
        return None if self.session is None else self.session.id

    def principal(self, tx: Tx, identity: Identity) -> Principal | None:
        """None for everything."""
        if self.agent is None:
            return None
        return (
            identity.sessionless(self.agent)
            if self.session is None
            else identity.principal(tx, self.agent, self.session)
        )


def found(tx: Tx, identity: Identity, target: str) -> Target:
    """Raises NotFound."""
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
