"""What of a policy does not fit the tools and agents that a broker's data folder remembers. Reads, changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from haltline.errors import ConfigError, Problem, StoreError
from haltline.policy.destination import missing_from
from haltline.policy.patterns import matcher, most_specific
from haltline.policy.policy import Policy, ToolDefaults
from haltline.setup.seen_tools import seen_agents, seen_tools
from haltline.setup.settings import load_settings
from haltline_client.discover import data_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haltline.policy.folder import Merged
    from haltline.setup.seen_tools import SeenTool
    from haltline.upstreams.model import UpstreamSpec

__all__ = ["misfits"]


def misfits(merged: Merged, data: str | None) -> tuple[Problem, ...]:
    """A warning for each. None where there is no broker here yet, or its haltline.yaml cannot be read.

    Raises StoreError where `data` is named and holds no database.
    """
    database = data_folder(os.environ, data=data, folder=Path()).path / "haltline.db"
    if not database.is_file():
        if data is not None:
            raise StoreError(f"{database} is not there; name the broker's data folder with --data")
        return ()
    try:
        specs = {spec.name: spec for spec in load_settings().upstreams}
        policy = Policy(merged, {name: _defaults(spec) for name, spec in specs.items()})
    except ConfigError:
        return ()
    tools = [tool for tool in seen_tools(database) if tool.upstream in specs]
    return (
        *_astray(merged, tools),
        *_for_nobody(merged, seen_agents(database)),
        *(
            _unpriced(tool)
            for tool in tools
            if specs[tool.upstream].kind != "python" and policy.price(tool.name, tool.upstream) is None
        ),
    )


def _astray(merged: Merged, tools: list[SeenTool]) -> Iterator[Problem]:
    """Entries that read whom a call reaches where the tool has no such argument."""
    said = [one for one in most_specific(merged.content.tools) if merged.content.tools[one].destination is not None]
    for tool in tools:
        pattern = next((one for one in said if matcher(one)(tool.name)), None)
        if pattern is None or tool.schema is None:
            continue
        missing = missing_from(tool.schema, merged.content.tools[pattern].destination or "")
        if missing is not None:
            told = f"the inputSchema of {tool.name} has no {missing}, so every call of it is refused"
            yield merged.problem(("tools", pattern, "destination"), told)


def _for_nobody(merged: Merged, agents: list[tuple[str, str]]) -> Iterator[Problem]:
    """Rules for agents that are not there, or not of the rule's tiers."""
    tiers = dict(agents)
    for rule, entry in merged.content.rules.items():
        for index, agent in enumerate(entry.agents or ()):
            path = ("rules", rule, "agents", index)
            if agent not in tiers:
                yield merged.problem(path, f"there is no agent {agent}, so this watches nobody")
            elif entry.tiers is not None and tiers[agent] not in entry.tiers:
                yield merged.problem(path, f"{agent} is of tier {tiers[agent]}, so this rule does not watch it")


def _defaults(spec: UpstreamSpec) -> ToolDefaults:
    return ToolDefaults(spec.price, spec.read_only, spec.timeout_s)


def _unpriced(tool: SeenTool) -> Problem:
    told = f"no price covers it, so every call is refused; set one, or run: haltline tools import {tool.upstream}"
    return Problem("upstreams", None, tool.name, told)
