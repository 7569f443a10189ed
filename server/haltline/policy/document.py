"""The shape of a policy file: pydantic models, the only place where YAML content becomes typed values.

Owns every key's name, meaning and default; unknown keys are refused. Lines, files and merging are `folder`'s; what is
decided from it is not known here. The same models make the JSON Schema for editors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from haltline.policy.caps import parse_rate
from haltline.policy.destination import check_destination
from haltline.policy.fields import Closed, Count, Duration, HoursEntry, Pattern, Zone, text_schema
from haltline.policy.model import Caps, Rate
from haltline.policy.operators import WITHOUT_VALUE, Op, compile_op
from haltline.policy.paths import parse_path
from haltline.policy.price_entry import Amount, Price
from haltline.policy.schemas import compile_schema
from haltline.policy.watch_entry import WatchEntry

__all__ = [
    "AlertsEntry",
    "AutoSession",
    "CapsEntry",
    "Defaults",
    "HoursEntry",
    "Mode",
    "PolicyFile",
    "RouteEntry",
    "RouteWhen",
    "RuleEntry",
    "ScopeEntry",
    "TierEntry",
    "ToolEntry",
    "json_schema",
]

Mode = Literal["enforce", "audit"]
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_CURRENCY = re.compile(r"[A-Z]{3,8}")


def _name(text: object) -> str:
    if isinstance(text, str) and _NAME.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is no name; use lower-case letters, digits, - and _, starting with a letter or digit")


def _version(text: object) -> str:
    if text == "1" and isinstance(text, str):
        return text
    raise ValueError('this broker reads policy files of version "1"; write version: "1", in quotes')


def _currency(text: object) -> str:
    if isinstance(text, str) and _CURRENCY.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is no currency; write its code in capitals, such as USD")


def _key_name(text: object) -> str:
    if isinstance(text, str) and 0 < len(text) <= 64 and text.isprintable():
        return text
    raise ValueError(f"{text!r} is no key name; write the name of an argument whose value must not be recorded")


def _timeout(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 86_400:
        return float(value)
    raise ValueError(f"{value!r} is no timeout; write seconds, more than 0 and up to 86400")


RateText = Annotated[
    Rate, BeforeValidator(parse_rate), text_schema(r"^[1-9][0-9]*/(second|minute|hour|day|[0-9]+s)$", "5/minute")
]
Timeout = Annotated[float, BeforeValidator(_timeout), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Destination = Annotated[
    str, BeforeValidator(check_destination), text_schema(r"^(host|root)?\(?[^()]+\)?$", "args.recipient")
]
Name = Annotated[str, BeforeValidator(_name), text_schema(r"^[a-z0-9][a-z0-9_-]{0,62}$", "staging")]
KeyName = Annotated[str, BeforeValidator(_key_name), WithJsonSchema({"type": "string"})]


class CapsEntry(Closed):
    """Upper bounds. The strictest of tier, agent and session holds; what is left out sets none."""

    per_call: Amount | None = Field(default=None, description="One call costs at most this; more is refused.")
    task: Amount | None = Field(default=None, description="One session spends at most this; then it is halted.")
    hour: Amount | None = Field(
        default=None, description="One agent spends at most this in any 60 minutes; then it is halted."
    )
    day: Amount | None = Field(
        default=None, description="One agent spends at most this in a calendar day; then it is halted."
    )
    calls: Count | None = Field(default=None, description="One session makes at most so many calls; then it is halted.")
    concurrent: Count | None = Field(
        default=None, description="So many calls of one agent run at once; more may be retried."
    )
    rate: RateText | None = Field(
        default=None, description="So many calls of one agent in a rolling window, as 5/minute."
    )

    def caps(self) -> Caps:
        return Caps(self.per_call, self.task, self.hour, self.day, self.calls, self.concurrent, self.rate)


class RuleEntry(Closed):
    """One demand on a call's arguments: `path`, `op` and `value`, or a JSON Schema for all of them together."""

    tools: list[Pattern] | None = Field(default=None, description="Which of the scope's tools; all where left out.")
    path: str | None = Field(default=None, description="args.amount, args.items[*].price")
    op: Op | None = None
    value: Any = Field(default=None, description="What `op` compares with. Amounts and other decimals in quotes.")
    optional: bool = Field(
        default=False, description="The argument may be left out; otherwise a missing one is refused."
    )
    schema_: dict[str, Any] | None = Field(
        default=None, alias="schema", description="JSON Schema of the whole arguments."
    )
    say: str | None = Field(
        default=None, max_length=500, description="What the agent is told instead of the demand itself."
    )
    mode: Mode | None = Field(default=None, description="audit: recorded as would_deny, never refuses.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.schema_ is not None:
            if self.path is not None or self.op is not None or "value" in self.model_fields_set or self.optional:
                raise ValueError("a rule has either schema, or path and op; write two rules")
            compile_schema(self.schema_)
            return self
        if self.path is None or self.op is None:
            raise ValueError("a rule needs path and op (and value), or schema")
        parse_path(self.path)
        has_value = "value" in self.model_fields_set
        if has_value == (self.op in WITHOUT_VALUE):
            raise ValueError(f"{self.op} takes no value" if has_value else f"{self.op} needs a value")
        if self.op in WITHOUT_VALUE and self.optional:
            raise ValueError(f"optional says nothing beside {self.op}; leave it out")
        compile_op(self.op, self.value)
        return self


class ScopeEntry(Closed):
    """A named restriction. Tiers name scopes, agents may be given more; every one of them must allow a call."""

    description: str | None = None
    tools: list[Pattern] | None = Field(
        default=None, description="Only these tools; left out, this scope restricts none."
    )
    arguments: list[RuleEntry] = Field(default_factory=list, description="Demands on the arguments; all must hold.")
    hours: HoursEntry | None = None
    mode: Mode | None = Field(default=None, description="audit: this scope is recorded as would_deny, never refuses.")


class AutoSession(Closed):
    """How a session opens and ends for an agent that connects with its own credential."""

    idle: Duration | None = Field(default=None, description="A new session after so long without a call.")
    longest: Duration | None = Field(default=None, description="A session lasts at most so long.")


class ChildrenEntry(Closed):
    """Lets an agent open narrower sessions for sub-agents, with the tool haltline__open_session."""

    most: int = Field(default=10, ge=1, le=1000, description="So many open at once below one session of an operator.")
    depth: int = Field(default=1, ge=1, le=8, description="1: a child has no children of its own.")


class HaltsOn(Closed):
    """What halts an agent by itself, beside its caps."""

    single_charge: Amount | None = Field(
        default=None, description="One call that attempts more than this halts the agent."
    )


class TierEntry(Closed):
    """What an agent of this tier may do. Nothing is allowed that is not named."""

    description: str | None = None
    tools: list[Pattern] = Field(
        default_factory=list, description='Tools by name or pattern; "*" for all, [] for none.'
    )
    scopes: list[Name] = Field(default_factory=list, description="Restrictions from `scopes:`; all of them hold.")
    caps: CapsEntry = Field(default_factory=CapsEntry)
    hours: HoursEntry | None = None
    halts_on: HaltsOn = Field(default_factory=HaltsOn)
    on_deny: str | None = Field(
        default=None, max_length=500, description="A sentence added to what a refused agent reads."
    )
    auto_session: AutoSession = Field(default_factory=AutoSession)
    session_expires: Duration | None = Field(
        default=None, description="How long a session lasts that an operator opens."
    )
    children: ChildrenEntry | None = Field(
        default=None, description="Sessions for sub-agents. Without it, an agent opens none."
    )
    mode: Mode | None = Field(
        default=None, description="audit: this tier's own tools and hours are recorded, never refuse."
    )


class PriceFor(Closed):
    """Other prices for some: an agent's own goes before its tier's, and both before `price`."""

    agents: dict[KeyName, Price] = Field(default_factory=dict, description="By handle.")
    tiers: dict[Name, Price] = Field(default_factory=dict)


class ToolEntry(Closed):
    """What is known of a tool, or of all that a pattern matches. Each setting comes from the most specific entry with it."""

    price: Price | None = Field(default=None, description="Per call. A tool without a price is refused.")
    price_for: PriceFor = Field(default_factory=PriceFor, description="Other prices for single agents or tiers.")
    read_only: bool | None = Field(
        default=None, description="It changes nothing. Declared here, never believed from upstream."
    )
    charge_on_error: bool | None = Field(
        default=None, description="Whether a call that answers isError is charged. True by default."
    )
    timeout_s: Timeout | None = Field(default=None, description="How long a call may take.")
    destination: Destination | None = Field(
        default=None, description="Whom or what a call reaches: args.recipient, host(args.url), root(args.path)."
    )
    redact: list[KeyName] = Field(default_factory=list, description="Argument and result keys never recorded.")


class Defaults(Closed):
    """What tiers fall back on, and what holds for all."""

    on_deny: str | None = Field(default=None, max_length=500)
    session_expires: Duration | None = None
    auto_session: AutoSession = Field(default_factory=AutoSession)
    doubt_charges_after: Duration | None = Field(
        default=None, description="A call in doubt is charged in full after this, unless a person decides before."
    )


Severity = Literal["critical", "warning", "info"]


class RouteWhen(Closed):
    """What must hold of an alert; every condition that is given."""

    severity: list[Severity] | None = None
    tier: list[Name] | None = Field(default=None, description="The agent's tier.")
    agent: list[Pattern] | None = Field(default=None, description='The agent by its handle or a pattern: "booking-*".')
    owner: list[str] | None = Field(default=None, description="Who answers for the agent, as it was registered.")


class RouteEntry(Closed):
    """Where alerts go, and where then."""

    when: RouteWhen | None = Field(
        default=None, description="{} for every alert; left out, this route is reached by another's `then` alone."
    )
    channels: Annotated[list[str], Field(min_length=1, max_length=20)] = Field(
        description="Names of channels in haltline.yaml."
    )
    then: Name | None = Field(default=None, description="The route it goes to when nobody acknowledges it.")
    after: Duration | None = Field(default=None, description="How long somebody has for that; 5m where left out.")


class AlertsEntry(Closed):
    """Which alerts go to whom. Without routes every channel is told everything."""

    quiet: Duration | None = Field(
        default=None, description="How long a repeat in an episode is only counted; 15m where left out."
    )
    routes: dict[Name, RouteEntry] = Field(
        default_factory=dict, description="The first in the order of the file whose `when` holds takes an alert."
    )


class PolicyFile(Closed):
    """One policy file. All files of the folder are read together; each may hold any part."""

    version: Annotated[str, BeforeValidator(_version), WithJsonSchema({"const": "1"})] = "1"
    currency: Annotated[str, BeforeValidator(_currency), text_schema(r"^[A-Z]{3,8}$", "USD")] | None = None
    time_zone: Zone | None = Field(
        default=None, description="Of day caps, and of hours that name none. UTC where left out."
    )
    mode: Mode | None = Field(
        default=None,
        description="audit: tools, hours and argument rules are recorded as would_deny and never refuse. Halts, caps, "
        "charges and unpriced tools always refuse.",
    )
    defaults: Defaults = Field(default_factory=Defaults)
    tiers: dict[Name, TierEntry] = Field(default_factory=dict)
    scopes: dict[Name, ScopeEntry] = Field(default_factory=dict)
    tools: dict[Pattern, ToolEntry] = Field(default_factory=dict)
    rules: dict[Name, WatchEntry] = Field(
        default_factory=dict, description="What alerts or halts an agent that behaves unlike itself."
    )
    alerts: AlertsEntry = Field(default_factory=AlertsEntry)
    redact: list[KeyName] = Field(default_factory=list, description="Key names never recorded, whatever the tool.")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file (2020-12), for editors. A key is left out rather than null."""
    made = _without_null(PolicyFile.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "Haltline policy file"}


def _without_null(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _without_null(value) for key, value in part.items() if not (key == "default" and value is None)}
    arms = [arm for arm in kept.pop("anyOf", ()) if arm != {"type": "null"}]
    return {**kept, **arms[0]} if len(arms) == 1 else {**kept, **({"anyOf": arms} if arms else {})}
