"""The shape of haltline.yaml, as pydantic models: which keys there are, their types, ranges and defaults.

Owns nothing that needs the environment or another file; `settings` turns these into the values the broker works with.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from haltline.policy.durations import parse_duration
from haltline.policy.price_entry import parse_price
from haltline.setup.settings_alerts import AlertsEntry
from haltline.setup.settings_credentials import CredentialsEntry

__all__ = ["HOST_KEYS", "SYNONYMS", "HaltlineFile", "LimitsEntry", "ListenerEntry", "UpstreamEntry"]

HOST_KEYS = {
    "autoApprove": "ignored: the policy says who may call what",
    "alwaysAllow": "ignored: the policy says who may call what",
    "trust": "ignored: the policy says who may call what",
    "includeTools": "ignored: the policy says who may call what",
    "excludeTools": "ignored: the policy says who may call what",
    "disabledTools": "ignored: the policy says who may call what",
    "timeout": "ignored: hosts differ in its unit; set timeout_s",
    "description": "ignored",
    "icon": "ignored",
    "gallery": "ignored",
}
"""Keys that hosts write into `mcpServers` entries, and what becomes of them. `disabled` is honoured, see below."""
SYNONYMS = {
    "serverUrl": "url",
    "httpUrl": "url",
    "transport": "type",
    "transportType": "type",
    "envFile": "env_file",
}
"""Other hosts' names for keys of ours."""

KINDS = {
    "command": "a program to start",
    "url": "a server to call",
    "python": "a file or module of functions",
    "entry_point": "functions of an installed package",
    "openapi": "an HTTP API by its description",
}
"""The keys that say what an upstream is, one for each entry."""
_IN_THE_BROKER = ("python", "entry_point")
_OF_OPENAPI = {"base_url", "query", "operations", "allow_private", "remote_refs"}

_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,6})?")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,40}")
_DAY_S = 86_400.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _number(value: Any) -> Any:
    """In strict mode YAML's `60` is no float; nothing else about a number is bent."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0, le=_DAY_S, allow_inf_nan=False)]


class OperationsEntry(_Strict):
    """Which operations of an API become tools: patterns of operationIds, or of method and path (`GET /contacts/*`)."""

    include: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=list, max_length=500)
    exclude: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=list, max_length=500)


class UpstreamEntry(_Strict):
    """One upstream: what hosts write under `mcpServers`, and what Haltline adds to it."""

    type: Literal["stdio", "http", "streamable-http", "streamableHttp", "streamable_http"] | None = None
    command: str | None = Field(None, min_length=1)
    args: list[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)
    env_file: str | None = None
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    headers_file: str | None = None
    credentials: CredentialsEntry | None = None
    python: str | None = None
    entry_point: str | None = Field(None, min_length=1, max_length=200)
    openapi: str | None = Field(None, min_length=1)
    base_url: str | None = None
    query: dict[str, str] = Field(default_factory=dict)
    operations: OperationsEntry = OperationsEntry()
    allow_private: bool = False
    remote_refs: bool = False
    disabled: bool = False
    prefix: str | None = None
    isolation: Literal["session", "agent", "shared"] = "agent"
    timeout_s: Seconds = 60.0
    connect_timeout_s: Seconds = 10.0
    max_result_bytes: int = Field(8 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    max_concurrent: int = Field(32, ge=1, le=1024)
    price: str | dict[str, str] | None = None
    read_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _legacy(cls, entry: Any) -> Any:
        if isinstance(entry, dict) and entry.get("type") == "sse":
            raise ValueError(
                "type sse is the HTTP+SSE transport that MCP replaced in 2025; point url at the server's streamable HTTP "
                "endpoint (often /mcp) and write type: http, or put a stdio bridge in front of it"
            )
        return entry

    @field_validator("price", mode="before")
    @classmethod
    def _quoted_amount(cls, price: Any) -> Any:
        if isinstance(price, dict):
            parse_price(price)
        elif price is not None and not (isinstance(price, str) and _AMOUNT.fullmatch(price)):
            raise ValueError('must be a quoted amount with at most six decimals, such as "0.05"')
        return price

    @field_validator("prefix")
    @classmethod
    def _plain_prefix(cls, prefix: str | None) -> str | None:
        if prefix is None or _PREFIX.fullmatch(prefix):
            return prefix
        raise ValueError("may hold letters, digits, - and _ only, 40 at most; an empty text means no prefix")

    @field_validator("python")
    @classmethod
    def _file_or_module(cls, python: str | None) -> str | None:
        if python is None or python.endswith(".py") or _MODULE.fullmatch(python):
            return python
        raise ValueError(f"{python!r} is neither a file that ends in .py nor the name of a module, such as acme.tools")

    @model_validator(mode="after")
    def _one_kind(self) -> UpstreamEntry:
        said = [key for key in KINDS if getattr(self, key) is not None]
        if len(said) != 1:
            keys = ", ".join(f"{key} ({what})" for key, what in KINDS.items())
            given = f", but {' and '.join(said)} are given" if said else ""
            raise ValueError(f"needs either {keys}, exactly one of them{given}")
        if self.type is not None and said[0] != ("command" if self.type == "stdio" else "url"):
            raise ValueError(f"type {self.type} does not go with {said[0]}")
        if self.url is None and self.openapi is None and (self.headers or self.headers_file):
            raise ValueError("headers go with url and openapi only; a program gets its secrets through env")
        ours = _OF_OPENAPI & self.model_fields_set
        if self.openapi is None and ours:
            raise ValueError(f"{min(ours)} goes with openapi only")
        if self.command is None and (self.args or self.env or self.env_file or self.cwd):
            raise ValueError(
                "args, env, env_file and cwd go with command only; a server gets its secrets through headers"
            )
        if said[0] in _IN_THE_BROKER and self.credentials is not None:
            raise ValueError(
                f"credentials do not go with {said[0]}: its functions know who calls, and choose themselves"
            )
        if said[0] in _IN_THE_BROKER and self.isolation != "shared" and "isolation" in self.model_fields_set:
            raise ValueError(
                f"isolation does not go with {said[0]}: its functions run in the broker, once for all agents"
            )
        return self


class TlsEntry(_Strict):
    cert: str
    key: str


class ListenerEntry(_Strict):
    """`agents:` and `control:`."""

    listen: str | None = None
    allowed_hosts: list[str] = Field(default_factory=list)
    allowed_origins: list[str] = Field(default_factory=list)
    tls: TlsEntry | None = None
    behind_proxy: bool = False


class LimitsEntry(_Strict):
    """`limits:`: how long things may take."""

    drain_s: Seconds = 10.0
    grace_s: Annotated[float, BeforeValidator(_number), Field(ge=0, le=_DAY_S, allow_inf_nan=False)] = 900.0


class DrillEntry(_Strict):
    """How often the drill runs by itself; left out: only when it is asked for."""

    every: Annotated[float, BeforeValidator(parse_duration), Field(ge=60)] | None = None


class HaltlineFile(_Strict):
    """The whole file. `upstreams` is looked into entry by entry, so that each can say what is wrong with it."""

    version: Literal["1"] = "1"
    data: str | None = Field(None, min_length=1)
    policies: str | None = Field(None, min_length=1)
    checkpoint_to: str | None = Field(None, min_length=1)
    agents: ListenerEntry = ListenerEntry()
    control: ListenerEntry = ListenerEntry()
    upstreams: dict[str, Any] = Field(default_factory=dict)
    alerts: AlertsEntry = AlertsEntry()
    limits: LimitsEntry = LimitsEntry()
    drill: DrillEntry = DrillEntry()

    @field_validator("version", mode="before")
    @classmethod
    def _known_version(cls, version: Any) -> Any:
        if str(version) == "1":
            return "1"
        raise ValueError('this haltline reads version "1" only')

    @field_validator("upstreams", "agents", "control", "alerts", "limits", "drill", mode="before")
    @classmethod
    def _nothing_yet(cls, value: Any) -> Any:
        # `upstreams:` with everything below it commented out is null in YAML.
        return {} if value is None else value
