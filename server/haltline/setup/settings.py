"""Settings: haltline.yaml, the environment and the command line, as one frozen value.

Owns their order (command line, environment, file, default) and what they must fulfil together. Reads the files that the
settings name; opens no socket and no database. Every problem is reported, not only the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from haltline.alerts.model import AlertSettings
from haltline.errors import ConfigError, Problem
from haltline.policy.complaints import problems_of
from haltline.policy.yaml_text import Document, parse_yaml
from haltline.setup.listeners import Listener, listener
from haltline.setup.references import expanded
from haltline.setup.settings_alerts import alert_settings
from haltline.setup.settings_file import HaltlineFile
from haltline.setup.settings_upstreams import unpasted, upstream_specs
from haltline.upstreams.model import UpstreamSpec
from haltline_client.discover import DATA_LINE

__all__ = ["CONFIG_NAME", "Listener", "Settings", "load_settings"]

CONFIG_NAME = "haltline.yaml"
_DEFAULT_DATA = "haltline-data"
_DEFAULT_POLICIES = "policies"
_LISTEN = {"agents": "127.0.0.1:7400", "control": "127.0.0.1:7401"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths are absolute; `config_file` is None when there is no haltline.yaml and defaults are used."""

    config_file: Path | None
    data: Path
    policies: Path
    agents: Listener
    control: Listener
    upstreams: tuple[UpstreamSpec, ...]
    alerts: AlertSettings
    drain_s: float
    grace_s: float
    checkpoint_to: Path | None
    drill_every_s: float | None = None
    """None: no drill runs by itself."""


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, str | None] | None = None,
) -> Settings:
    """The settings that `--config` (or HALTLINE_CONFIG, or ./haltline.yaml), `environ` and `overrides` mean.

    `overrides` are what the command line said, by the names `data`, `policies`, `agents`, `control`; None says nothing.
    Raises ConfigError with file, line and key of every problem.
    """
    given = {key: value for key, value in (overrides or {}).items() if value}
    assert set(given) <= {"data", "policies", "agents", "control"}, f"unknown overrides {sorted(given)}"
    file = _config_file(config, environ)
    document = _read(file)
    return _Loading(file, document, environ, given).settings()


class _Loading:
    """One reading of the settings: what it has found wrong so far, and where relative paths start."""

    def __init__(
        self, file: Path | None, document: Document, environ: Mapping[str, str], given: Mapping[str, str]
    ) -> None:
        self.file = file
        self.document = unpasted(document)
        self.environ = environ
        self.given = given
        self.folder = (file.parent if file else Path()).absolute()
        self.problems: list[Problem] = []

    def settings(self) -> Settings:
        parsed = self._parsed()
        agents, control = self._listener("agents", parsed), self._listener("control", parsed)
        if agents.port == control.port != 0:
            self._report(("control", "listen"), f"port {control.port} is the agents' too; each needs its own")
        settings = Settings(
            config_file=self.file.absolute() if self.file else None,
            data=self._data(parsed),
            policies=self._path("policies", parsed.policies or _DEFAULT_POLICIES),
            agents=agents,
            control=control,
            upstreams=upstream_specs(parsed.upstreams, self.document, self.folder, self.problems),
            alerts=alert_settings(parsed.alerts, self.document, self.folder, self.environ, self._report),
            drain_s=parsed.limits.drain_s,
            grace_s=parsed.limits.grace_s,
            drill_every_s=parsed.drill.every,
            checkpoint_to=self.folder / Path(parsed.checkpoint_to).expanduser() if parsed.checkpoint_to else None,
        )
        if self.problems:
            # The first word about a key is enough: a variable that is not set makes an address that is none.
            first = {(one.file, one.line, one.key): one for one in reversed(self.problems)}
            raise ConfigError(sorted(first.values(), key=lambda one: (one.line or 0, one.key)))
        return settings

    def _report(self, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def _parsed(self) -> HaltlineFile:
        content = {} if self.document.content is None else self.document.content
        if not isinstance(content, dict):
            raise ConfigError([self.document.problem((), "must be a mapping of keys to values")])
        told = {key: value for key, value in content.items() if key not in {"data", "upstreams"}}
        content = {**content, **expanded(told, self.environ, self._report)}
        if isinstance(content.get("upstreams"), dict):
            content["upstreams"] = {
                name: entry if _is_disabled(entry) else expanded(entry, self.environ, self._report, ("upstreams", name))
                for name, entry in content["upstreams"].items()
            }
        try:
            return HaltlineFile.model_validate(content)
        except ValidationError as error:
            self.problems += problems_of(error, self.document, HaltlineFile)
            # What stands in the other blocks is looked at all the same, so that one reading finds every problem.
            broken = {
                detail["loc"][0] for detail in error.errors(include_url=False, include_input=False) if detail["loc"]
            }
            return HaltlineFile.model_validate({key: value for key, value in content.items() if key not in broken})

    def _listener(self, name: str, parsed: HaltlineFile) -> Listener:
        variable = f"HALTLINE_{name.upper()}_LISTEN"
        entry = parsed.agents if name == "agents" else parsed.control
        places: tuple[tuple[str | None, str], ...] = (
            (self.given.get(name), f"--{name}"),
            (self.environ.get(variable), variable),
        )
        address, place = next(((value, place) for value, place in places if value), (entry.listen or _LISTEN[name], ""))

        def report(key: str, message: str) -> None:
            if place and key == "listen":
                self.problems.append(Problem(place, None, "", message))
            else:
                self._report((name, *key.split(".")), message)

        return listener(address, entry, self.folder, report)

    def _data(self, parsed: HaltlineFile) -> Path:
        named = self.given.get("data") or self.environ.get("HALTLINE_DATA")
        if named:
            return Path(named).absolute()
        if parsed.data is None:
            return self.folder / _DEFAULT_DATA
        return self.folder / Path(self._data_line(parsed.data)).expanduser()

    def _data_line(self, written: str) -> str:
        # The client finds this line with a pattern, not with a YAML parser: both must read the same folder from it.
        text = self.file.read_text(encoding="utf-8") if self.file else ""
        line = DATA_LINE.search(text)
        if line is None or line["path"].strip() != written or "\\" in written:
            self._report(("data",), "must stand plainly on one line of its own: data: some/folder")
        found = expanded(written, self.environ, self._report, ("data",))
        if "$" in re.sub(r"\$\{\w+\}", "", written):
            self._report(("data",), "may hold ${NAME} only, without a default: the command line reads this line too")
        return str(found)

    def _path(self, key: str, written: str) -> Path:
        named = self.given.get(key)
        return Path(named).absolute() if named else self.folder / Path(written).expanduser()


def _config_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = config or (Path(environ["HALTLINE_CONFIG"]) if environ.get("HALTLINE_CONFIG") else None)
    if named is None:
        return Path(CONFIG_NAME) if Path(CONFIG_NAME).exists() else None
    if not named.exists():
        how = "--config" if config else "HALTLINE_CONFIG"
        raise ConfigError([Problem(str(named), None, "", f"does not exist ({how}); write one with: haltline init")])
    return named


def _read(file: Path | None) -> Document:
    if file is None:
        return Document(CONFIG_NAME, None, {})
    try:
        return parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([Problem(str(file), None, "", f"cannot be read: {reason}")]) from error


def _is_disabled(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("disabled") is True
