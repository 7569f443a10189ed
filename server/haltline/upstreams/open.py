"""Which kind of upstream a configuration entry means, and what is known of its tools before they are listed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from haltline.errors import ConfigError
from haltline.policy.policy import ToolDefaults
from haltline.upstreams.credentialed import CredentialedUpstream
from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import Upstream, UpstreamSpec
from haltline.upstreams.openapi import OpenApiUpstream
from haltline.upstreams.python import PythonUpstream
from haltline.upstreams.stdio import StdioUpstream

__all__ = ["open_all", "open_upstream", "tool_defaults"]


def open_upstream(spec: UpstreamSpec) -> Upstream:
    """Nothing is started or connected yet. Raises ConfigError."""
    if spec.credentials is not None:
        return CredentialedUpstream(spec, spec.credentials, open_upstream)
    if spec.openapi is not None:
        return OpenApiUpstream(spec)
    if spec.kind == "python":
        return PythonUpstream(spec)
    if (spec.command is None) == (spec.url is None):
        raise ConfigError(f"upstream {spec.name}: needs either command or url, and not both")
    return HttpUpstream(spec) if spec.url is not None else StdioUpstream(spec)


async def open_all(specs: Iterable[UpstreamSpec]) -> list[Upstream]:
    """Those that are not disabled. Python functions are loaded, each upstream's in bounded time, all others are idle."""
    upstreams = [open_upstream(spec) for spec in specs if not spec.disabled]
    await asyncio.gather(*(one.load() for one in upstreams if isinstance(one, PythonUpstream)))
    return upstreams


def tool_defaults(specs: Iterable[UpstreamSpec], upstreams: Sequence[Upstream]) -> dict[str, ToolDefaults]:
    """What haltline.yaml and, where it was loaded, the code of tools say of them, by the name of their upstream."""
    declared = {one.spec.name: one.declared for one in upstreams if isinstance(one, PythonUpstream)}
    return {
        one.name: ToolDefaults(one.price, one.read_only, one.timeout_s, declared.get(one.name, {})) for one in specs
    }
