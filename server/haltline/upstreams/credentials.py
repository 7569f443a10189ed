"""Which credential an upstream is given for whom (R32): an agent's own, else its tier's, else the default, else none at all.

Values only, never shown. Where an entry names credentials, whoever has none is refused; the broker lists tools with the one for
`listing`, else with the default, else with none, and never with an agent's or a tier's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haltline.upstreams.model import Caller, UpstreamSpec

__all__ = ["NONE", "Credential", "Credentials", "given"]


@dataclass(frozen=True, slots=True)
class Credential:
    """`name` may be shown: `agent billing`, `tier production`, `default`, `listing`."""

    name: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


NONE = Credential("none")
"""What an upstream is listed with that has credentials for agents or tiers alone."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """By the agent's handle, and by the tier's name."""

    agents: Mapping[str, Credential] = field(default_factory=dict)
    tiers: Mapping[str, Credential] = field(default_factory=dict)
    default: Credential | None = None
    listing: Credential | None = None

    def of(self, caller: Caller) -> Credential | None:
        return self.agents.get(caller.agent) or self.tiers.get(caller.tier) or self.default

    @property
    def for_listing(self) -> Credential:
        return self.listing or self.default or NONE

    def all(self) -> tuple[Credential, ...]:
        """Each with a name of its own."""
        single = (one for one in (self.default, self.for_listing) if one is not None)
        return tuple({one.name: one for one in (*self.agents.values(), *self.tiers.values(), *single)}.values())


def given(spec: UpstreamSpec, credential: Credential) -> UpstreamSpec:
    """The entry as it is for those with this credential; what it says wins over what the entry gives to all."""
    replaced = {name.lower() for name in credential.headers}
    kept = {name: value for name, value in spec.headers.items() if name.lower() not in replaced}
    return replace(spec, headers={**kept, **credential.headers}, env={**spec.env, **credential.env}, credentials=None)
