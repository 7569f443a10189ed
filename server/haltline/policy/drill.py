"""The tier of drills: built in, so that a drill needs nothing of the policy's files, and reaches no tool but its own and
the one that opens sessions for sub-agents.

Which sessions are a drill's is told by their tools: a drill narrows each session that it opens to these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from haltline.policy.model import NO_CAPS
from haltline.policy.tiers import OPEN_SESSION, Children, Tier

if TYPE_CHECKING:
    from haltline.policy.model import Principal

__all__ = ["DRILL", "DRILL_TIER", "DRILL_TOOLS", "as_drilled", "is_drill"]

DRILL = "haltline-drill"
"""The tier, the upstream that has its tools, and the agent that is drilled by itself."""
DRILL_TOOLS = (f"{DRILL}__*", OPEN_SESSION)
SESSION_S = 600.0
"""Longer than a drill can take; what is left of one that broke off ends by itself."""

DRILL_TIER = Tier(
    name=DRILL,
    where="built in",
    audit=False,
    tools=DRILL_TOOLS,
    scopes=(),
    caps=NO_CAPS,
    cap_places={},
    hours=None,
    single_charge_micros=None,
    single_charge_where="",
    on_deny="",
    auto_session_idle_s=SESSION_S,
    auto_session_longest_s=SESSION_S,
    session_expires_s=SESSION_S,
    children=Children(most=1, depth=1),
)


def is_drill(who: Principal) -> bool:
    """Whether a drill opened this session; below any other session no agent makes one (R20)."""
    # Asked several times of each call; of nearly all of them the first look tells.
    return who.tools == DRILL_TOOLS and all(one.tools == DRILL_TOOLS for one in who.above)


def as_drilled(who: Principal) -> Principal:
    """The same under the tier of drills: a real agent that is drilled needs no grant for it, and spends nothing of its own."""
    return replace(who, tier=DRILL, scopes=(), hours=None, agent_caps=NO_CAPS)
