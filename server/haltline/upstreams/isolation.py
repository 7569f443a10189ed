"""Who may share an upstream's process or handshake session (R32): a key, equal for those who may.

Also which of those that are open ends for another one: an agent that opens many ends its own, never somebody else's first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from haltline.upstreams.messages import dumps
from haltline.upstreams.model import Caller, Isolation, NotSent, Peer

__all__ = ["INTRODUCTIONS_MAX", "OWN", "Held", "Key", "Whole", "for_caller_alone", "introduction", "key_of", "leaving"]

Key = tuple[str, str]
"""(agent id or "", session id or "")."""
OWN: Key = ("", "")
"""The broker's own, with which it lists tools; under `shared` it serves everyone."""
Whole = tuple[str, str, str]
"""An isolation key, and what the client said of itself."""
INTRODUCTIONS_MAX = 8
"""As so many different clients one agent (or one session of it) may be known to an upstream at once."""


@dataclass(frozen=True, slots=True)
class Held:
    """One process or session that is open or being opened. Under `shared`, `opener` is the agent that it was opened for."""

    key: Whole
    opener: str
    idle: bool

    @property
    def owner(self) -> Key:
        return (self.key[0] or self.opener, self.key[1])


def key_of(isolation: Isolation, caller: Caller) -> Key:
    if isolation == "shared":
        return OWN
    return (caller.agent_id, caller.session_id if isolation == "session" else "")


def for_caller_alone(key: Key, caller: Caller, *, session_only: bool) -> bool:
    """Whether what this key stands for exists for that agent, or for that one session, alone."""
    agent_id, session_id = key
    if not agent_id or agent_id != caller.agent_id:
        return False
    return session_id == caller.session_id if session_only else True


def introduction(peer: Peer) -> str:
    """What a client said of itself, as one word that is equal for those who said the same."""
    if not peer.capabilities and peer.info is None:
        return ""
    return hashlib.sha256(dumps([peer.capabilities, peer.info])).hexdigest()[:16]


def leaving(name: str, wanted: Held, held: Iterable[Held], most: int) -> Whole | None:
    """Which of those held, oldest first, ends so that the wanted one may be opened; None: there is room.

    Raises NotSent where none of those that may end is idle. The broker's own neither counts nor ends.
    """
    others = [one for one in held if one.key != (*OWN, "")]
    own = [one for one in others if one.owner == wanted.owner]
    if wanted.owner[0] and len(own) >= INTRODUCTIONS_MAX:
        others = own
    elif len(others) < most:
        return None
    of_agent = Counter(one.owner[0] for one in others)
    idle = [one for one in others if one.idle]
    if not idle:
        raise NotSent("upstream.busy", f"{name} is in use as often as it may be; retry later")
    return max(idle, key=lambda one: of_agent[one.owner[0]]).key  # the first of equals: the oldest
