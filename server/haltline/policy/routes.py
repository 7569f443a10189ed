"""Routes: which alert goes to which channels, and to whom next when nobody acknowledges it. Pure; knows no channel.

    alerts:
      quiet: 15m
      routes:
        production: {when: {tier: [production], severity: [critical]}, channels: [pager], then: managers, after: 5m}
        managers:   {channels: [phone]}
        others:     {when: {}, channels: [ops]}

The first route in the order of the file whose `when` holds takes an alert; one without `when` is reached by `then` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from haltline.policy.patterns import any_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from haltline.errors import Problem
    from haltline.policy.folder import Merged

__all__ = ["AFTER_S", "Route", "Routing", "compile_routes", "route_problems"]

AFTER_S = 300.0
"""How long somebody has to acknowledge, where the route does not say."""


@dataclass(frozen=True, slots=True)
class Route:
    """`then` is the route that it goes to when nobody acknowledged it after so long."""

    name: str
    where: str
    channels: tuple[str, ...]
    then: str | None
    after_s: float
    holds: Callable[[str, str, str, str], bool] | None
    """Takes severity, tier, agent's handle and owner; None: reached by `then` alone."""


@dataclass(frozen=True, slots=True)
class Routing:
    quiet_s: float | None
    routes: Mapping[str, Route]

    def first(self, severity: str, tier: str | None, agent: str | None, owner: str | None) -> Route | None:
        """The route that takes this alert; None: every channel does."""
        said = (severity, tier or "", agent or "", owner or "")
        return next((one for one in self.routes.values() if one.holds is not None and one.holds(*said)), None)

    def route(self, name: str | None) -> Route | None:
        return None if name is None else self.routes.get(name)


def compile_routes(merged: Merged) -> Routing:
    entry = merged.content.alerts
    routes = {}
    for name, one in entry.routes.items():
        when = one.when
        holds = None if when is None else _condition(when.severity, when.tier, when.agent, when.owner)
        where = merged.where("alerts", "routes", name)
        routes[name] = Route(name, where, tuple(one.channels), one.then, one.after or AFTER_S, holds)
    return Routing(entry.quiet, routes)


def route_problems(merged: Merged, channels: Collection[str] | None) -> Iterator[Problem]:
    """Names that nothing has, and routes that lead back to themselves. `channels`: those there are, where that is known."""
    routes, here = merged.content.alerts.routes, ("alerts", "routes")
    for name, one in routes.items():
        if one.then is not None and one.then not in routes:
            near = get_close_matches(one.then, routes, n=1)
            hint = f"did you mean {near[0]}?" if near else "write it under alerts.routes"
            yield merged.problem((*here, name, "then"), f"there is no route {one.then!r}; {hint}")
        for index, channel in enumerate(one.channels):
            if channels is not None and channel not in channels:
                names = ", ".join(sorted(channels))
                problem = f"there is no alert channel {channel!r} in haltline.yaml; there are: {names}"
                yield merged.problem((*here, name, "channels", index), problem)
        for index, tier in enumerate((one.when.tier if one.when else None) or ()):
            if tier not in merged.content.tiers:
                yield merged.problem((*here, name, "when", "tier", index), f"there is no tier {tier!r}")
        yield from _loop(merged, name)


def _loop(merged: Merged, name: str) -> Iterator[Problem]:
    """Told at the first route of the loop in the order of the file."""
    routes, order = merged.content.alerts.routes, list(merged.content.alerts.routes)
    path, at = [name], routes[name].then
    while at is not None and at in routes and at not in path:
        path.append(at)
        at = routes[at].then
    if at == name and name == min(path, key=order.index):
        text = " -> ".join([*path, name])
        yield merged.problem(("alerts", "routes", name, "then"), f"these routes lead in a circle: {text}; let one end")


def _condition(
    severity: Sequence[str] | None, tier: list[str] | None, agent: list[str] | None, owner: list[str] | None
) -> Callable[[str, str, str, str], bool]:
    named = None if agent is None else any_of(tuple(agent))

    def holds(of_severity: str, of_tier: str, of_agent: str, of_owner: str) -> bool:
        return (
            (severity is None or of_severity in severity)
            and (tier is None or of_tier in tier)
            and (named is None or named(of_agent))
            and (owner is None or of_owner in owner)
        )

    return holds
