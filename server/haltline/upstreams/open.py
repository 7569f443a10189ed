"""Which kind of upstream a configuration entry means."""

from __future__ import annotations

from haltline.errors import ConfigError
from haltline.upstreams.http import HttpUpstream
from haltline.upstreams.model import Upstream, UpstreamSpec
from haltline.upstreams.openapi import OpenApiUpstream
from haltline.upstreams.stdio import StdioUpstream

__all__ = ["open_upstream"]


def open_upstream(spec: UpstreamSpec) -> Upstream:
    """Nothing is started or connected yet. Raises ConfigError."""
    if spec.openapi is not None:
        return OpenApiUpstream(spec)
    if (spec.command is None) == (spec.url is None):
        raise ConfigError(f"upstream {spec.name}: needs either command or url, and not both")
    return HttpUpstream(spec) if spec.url is not None else StdioUpstream(spec)
