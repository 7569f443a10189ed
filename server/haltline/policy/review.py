"""What is valid in a policy but probably not meant: warnings for `haltline policy check`. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.policy.patterns import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from haltline.errors import Problem
    from haltline.policy.folder import Merged

__all__ = ["review"]


def review(merged: Merged) -> tuple[Problem, ...]:
    """Every warning, in the order of files and lines."""
    if not merged.content.tiers:
        return (merged.problem(("tiers",), "there is no tier, so no agent can be added and nothing is allowed"),)
    found = (
        *_tiers(merged),
        *_unused_scopes(merged),
        *_idle_rules(merged),
        *_idle_prices(merged),
        *_prices_for_nobody(merged),
        *_rules_for_nobody(merged),
    )
    return tuple(sorted(found, key=lambda problem: (problem.file, problem.line or 0)))


def _tiers(merged: Merged) -> Iterator[Problem]:
    for name, tier in merged.content.tiers.items():
        caps, here = tier.caps, ("tiers", name)
        if not tier.tools:
            yield merged.problem(here, "no tools, so agents of this tier can call nothing")
        if caps.task is None and caps.hour is None and caps.day is None:
            yield merged.problem(here, "no task, hour or day cap, so nothing bounds what its agents spend")
        for scope in tier.scopes:
            allowed = merged.content.scopes[scope].tools
            for index, pattern in enumerate(tier.tools):
                if allowed is not None and not _any_overlap(pattern, allowed):
                    path = (*here, "tools", index)
                    yield merged.problem(path, f"{pattern} can never be called: scope {scope} allows none of it")


def _unused_scopes(merged: Merged) -> Iterator[Problem]:
    used = {scope for tier in merged.content.tiers.values() for scope in tier.scopes}
    for name in merged.content.scopes:
        if name not in used:
            message = "no tier uses this scope, so only agents that were given it by name are held to it"
            yield merged.problem(("scopes", name), message)


def _idle_rules(merged: Merged) -> Iterator[Problem]:
    for name, scope in merged.content.scopes.items():
        for index, rule in enumerate(scope.arguments):
            for number, pattern in enumerate(rule.tools or ()):
                if scope.tools is not None and not _any_overlap(pattern, scope.tools):
                    path = ("scopes", name, "arguments", index, "tools", number)
                    yield merged.problem(path, f"{pattern} never matches: it is not among the tools of scope {name}")


def _idle_prices(merged: Merged) -> Iterator[Problem]:
    granted = [pattern for tier in merged.content.tiers.values() for pattern in tier.tools]
    for pattern in merged.content.tools:
        if not _any_overlap(pattern, granted):
            yield merged.problem(("tools", pattern), f"no tier grants {pattern}, so this entry is never used")


def _prices_for_nobody(merged: Merged) -> Iterator[Problem]:
    for pattern, entry in merged.content.tools.items():
        for tier in entry.price_for.tiers:
            if tier not in merged.content.tiers:
                path = ("tools", pattern, "price_for", "tiers", tier)
                yield merged.problem(path, f"there is no tier {tier}, so this price is never used")


def _rules_for_nobody(merged: Merged) -> Iterator[Problem]:
    for name, rule in merged.content.rules.items():
        tiers = merged.content.tiers if rule.tiers is None else rule.tiers
        granted = [pattern for tier in tiers for pattern in merged.content.tiers[tier].tools]
        for index, pattern in enumerate(rule.tools or ()):
            if not _any_overlap(pattern, granted):
                whom = "no tier" if rule.tiers is None else f"none of its tiers ({', '.join(rule.tiers)})"
                path = ("rules", name, "tools", index)
                yield merged.problem(path, f"{whom} grants {pattern}, so this watches no call")


def _any_overlap(pattern: str, patterns: Iterable[str]) -> bool:
    return any(overlap(pattern, other) for other in patterns)
