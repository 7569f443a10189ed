"""Who may share an upstream's process or handshake session (R32): a key, equal for those who may."""

from __future__ import annotations

import hashlib

from haltline.upstreams.messages import dumps
from haltline.upstreams.model import Caller, Isolation, Peer

__all__ = ["OWN", "Key", "for_caller_alone", "introduction", "key_of"]

Key = tuple[str, str]
"""(agent id or "", session id or "")."""
OWN: Key = ("", "")
"""The broker's own, with which it lists tools; under `shared` it serves everyone."""


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
