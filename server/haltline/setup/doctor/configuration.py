"""What the doctor looks at in the configuration: settings, policy, upstreams, listeners. Starts and calls no upstream."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from haltline.errors import ConfigError, StoreError
from haltline.policy.destination import missing_from
from haltline.policy.policy import Policy, ToolDefaults, load_policy
from haltline.setup.doctor.descriptions import description
from haltline.setup.doctor.finding import Finding
from haltline.setup.doctor.functions import functions
from haltline.setup.listeners import Listener, is_loopback
from haltline.setup.seen_tools import seen_tools
from haltline.setup.settings import Settings
from haltline.upstreams.credentials import NONE
from haltline.upstreams.model import UpstreamSpec

__all__ = ["listeners", "policy", "problems", "upstreams"]

_WAIT_S = 2.0


def problems(check: str, error: ConfigError) -> Iterator[Finding]:
    """A finding for each problem of a configuration."""
    for text in [str(problem) for problem in error.problems] or [str(error)]:
        yield Finding(check, "fail", text, "mend it and run haltline doctor again")


def policy(settings: Settings) -> Iterator[Finding]:
    defaults = {one.name: ToolDefaults(one.price, one.read_only, one.timeout_s) for one in settings.upstreams}
    try:
        loaded = load_policy(settings.policies, defaults, settings.alerts.names)
    except ConfigError as error:
        yield from problems("policy", error)
    else:
        files, _, _ = loaded.version.partition("+")  # code of tools adds to the rest, and is not loaded here
        mode = "" if loaded.mode == "enforce" else f", mode {loaded.mode}: nothing is refused by its rules"
        yield Finding("policy", "warn" if mode else "ok", f"{settings.policies}, version {files}{mode}")
        yield from _astray(settings, loaded)


def _astray(settings: Settings, policy: Policy) -> Iterator[Finding]:
    """Tools of which whom a call reaches is to be read where they have no such argument."""
    database = settings.data / "haltline.db"
    try:
        seen = seen_tools(database) if database.is_file() else []
    except StoreError:  # the check of the database says what is wrong with it
        return
    for tool in seen:
        reaches = policy.reaches(tool.name, tool.upstream)
        missing = None if reaches is None else missing_from(tool.schema, reaches)
        if missing is not None and tool.schema is not None:
            text = f"{tool.name}: destination {reaches}: its inputSchema has no {missing}, so every call is refused"
            yield Finding(
                "policy", "warn", text, "mend its entry under tools; haltline policy check names file and line"
            )


def upstreams(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    active = [spec for spec in settings.upstreams if not spec.disabled]
    if not active:
        to_do = "name one under `upstreams:` in haltline.yaml, then: haltline tools import NAME"
        yield Finding("upstreams", "warn", "none: agents have no tools", to_do)
    for spec in active:
        yield _upstream(spec, environ)
    yield from _credentials(active)


def _credentials(active: Sequence[UpstreamSpec]) -> Iterator[Finding]:
    """Who shares one, and who has one of their own. Names only."""
    for spec in active:
        if spec.credentials is not None:
            names = ", ".join(one.name for one in spec.credentials.all() if one is not NONE)
            shared_by = spec.shared_by
            text = f"{spec.name}: {names}" + (f"; shared by {shared_by}" if shared_by else "; none is shared")
            if spec.credentials.default is None:
                text += "; agents that have none are refused"
            yield Finding("upstream credentials", "ok", text)
    shared = sorted(spec.name for spec in active if spec.credentials is None and spec.shared_by)
    if shared:
        yield Finding(
            "upstream credentials",
            "warn",
            f"what {', '.join(shared)} is given in env or headers is one credential for all agents: "
            "the upstream cannot tell them apart, only Haltline's records can",
            "give it a credential that can do no more than the tools that agents are granted, or one for each agent or tier "
            "under credentials",
        )


def listeners(settings: Settings) -> Iterator[Finding]:
    running = _running(settings.data / "endpoints.json")
    for name, listener in (("agents", settings.agents), ("control", settings.control)):
        shown = f"{listener.host}:{listener.port}"
        if listener.port == 0:
            yield Finding(f"{name} listener", "ok", f"{listener.host}, any free port")
            continue
        refused = _why_not_free(listener)
        if refused is None:
            yield Finding(f"{name} listener", "ok", f"{shown} is free")
        elif refused == errno.EADDRINUSE and listener.port == running.get(name) and _healthy(settings.control, running):
            yield Finding(f"{name} listener", "ok", f"a broker answers on {shown}")
        else:
            to_do = f"stop what uses it, or set {name}: {{listen: HOST:PORT}}"
            yield Finding(f"{name} listener", "fail", f"{shown}: {os.strerror(refused)}", to_do)


def _upstream(spec: UpstreamSpec, environ: Mapping[str, str]) -> Finding:
    if spec.kind == "python":
        return functions(spec)
    if spec.kind == "openapi":
        return description(spec)
    return _command(spec, environ) if spec.kind == "stdio" else _address(spec)


def _command(spec: UpstreamSpec, environ: Mapping[str, str]) -> Finding:
    command = str(spec.command)
    path = spec.env.get("PATH", environ.get("PATH", os.defpath))
    at = Path(command) if Path(command).is_absolute() else Path(spec.cwd or ".") / command
    found = str(at) if os.sep in command and os.access(at, os.X_OK) else shutil.which(command, path=path)
    if found is None:
        to_do = "install it, or write its full path as command"
        return Finding("upstreams", "fail", f"{spec.name}: the program {command} is not found", to_do)
    if spec.cwd is not None and not Path(spec.cwd).is_dir():
        return Finding("upstreams", "fail", f"{spec.name}: cwd {spec.cwd} is not a folder", "make it, or name another")
    return Finding("upstreams", "ok", f"{spec.name}: {found}, isolation {spec.isolation}")


def _address(spec: UpstreamSpec) -> Finding:
    parts = urlsplit(str(spec.url))
    # Without its query and path, which may hold a key.
    shown = f"{spec.name}: {parts.scheme}://{parts.netloc}"
    secret = spec.headers or (spec.credentials and any(one.headers for one in spec.credentials.all()))
    if secret and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        text = f"{shown}: its headers travel in the clear"
        return Finding("upstreams", "warn", text, "use https://")
    return Finding("upstreams", "ok", f"{shown}, isolation {spec.isolation}")


def _why_not_free(listener: Listener) -> int | None:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((listener.host, listener.port))
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return None


def _running(endpoints: Path) -> Mapping[str, int | None]:
    """The ports that a running broker wrote down."""
    try:
        written = json.loads(endpoints.read_text(encoding="utf-8"))
        return {name: urlsplit(str(written[name])).port for name in ("agents", "control")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _healthy(control: Listener, running: Mapping[str, int | None]) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(control.host, control.host)  # noqa: S104 - asked, not listened on
    try:
        if control.tls_cert is None:
            connection = http.client.HTTPConnection(host, running.get("control"), timeout=_WAIT_S)
        else:
            trusted = ssl.create_default_context(cafile=str(control.tls_cert))
            trusted.check_hostname = False
            connection = http.client.HTTPSConnection(host, running.get("control"), timeout=_WAIT_S, context=trusted)
        named = {"Host": control.allowed_hosts[0]} if control.allowed_hosts else {}
        connection.request("GET", "/healthz", headers=named)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
