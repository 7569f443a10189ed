"""The names of the alert channels that a haltline.yaml has, for whoever checks a policy where no broker runs.

Reads the names alone: secrets and what they refer to need not be at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from haltline.alerts.model import DESKTOP, STDERR
from haltline.errors import ConfigError
from haltline.policy.yaml_text import parse_yaml

__all__ = ["channel_names", "config_of"]


def config_of(policies: Path, environ: Mapping[str, str]) -> Path | None:
    """The haltline.yaml at hand whose policies these are: that of HALTLINE_CONFIG, the one here, or the one beside them."""
    named = environ.get("HALTLINE_CONFIG")
    places = [*([Path(named)] if named else []), Path("haltline.yaml"), policies.resolve().parent / "haltline.yaml"]
    for place in places:
        content = _content(place)
        if content is not None and (place.parent / _folder(content)).resolve() == policies.resolve():
            return place
    return None


def channel_names(config: Path) -> frozenset[str] | None:
    """All that routes may name. None where the file cannot be read: what is wrong with it is said by `haltline doctor`."""
    content = _content(config)
    if content is None:
        return None
    alerts = content.get("alerts")
    said = alerts if isinstance(alerts, Mapping) else {}
    channels, webhooks = said.get("channels"), said.get("webhooks")
    names = {str(name) for name in channels} if isinstance(channels, Mapping) else set()
    names |= {str(one.get("name")) for one in webhooks or () if isinstance(one, Mapping)}
    return frozenset({STDERR, DESKTOP, *names})


def _content(place: Path) -> Mapping[str, Any] | None:
    try:
        content = parse_yaml(place.read_text(encoding="utf-8"), str(place)).content
    except (OSError, UnicodeDecodeError, ConfigError):
        return None
    return content if isinstance(content, Mapping) else None


def _folder(content: Mapping[str, Any]) -> Path:
    return Path(str(content.get("policies") or "policies")).expanduser()
