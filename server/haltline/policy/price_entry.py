"""A price as it is written: `"0.05"`, or a mapping that says where the amount is read. One form for policy files, for
haltline.yaml and for the code of a tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from haltline.policy.money import MICROS, parse_amount
from haltline.policy.paths import parse_path
from haltline.policy.prices import Fixed, FromArgument, FromResult, Metered, Read

if TYPE_CHECKING:
    from haltline.policy.prices import Rate

__all__ = ["AMOUNT_PATTERN", "Amount", "Price", "PriceEntry", "parse_price"]

AMOUNT_PATTERN = r"^[0-9]+(\.[0-9]{1,6})?$"
Amount = Annotated[
    int,
    BeforeValidator(parse_amount),
    WithJsonSchema({"type": "string", "pattern": AMOUNT_PATTERN, "examples": ["0.50"]}),
]
_KINDS = ("fixed", "argument", "result", "per_second")
_BESIDE = {
    "fixed": frozenset[str](),
    "argument": frozenset({"at_most", "each", "currency"}),
    "result": frozenset({"at_most", "each", "currency"}),
    "per_second": frozenset[str](),
}
_OF_RESULTS = ("structuredContent", "_meta")


class PriceEntry(BaseModel):
    """What one call costs: exactly one of fixed, argument, result and per_second."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fixed: Amount | None = Field(default=None, description="The same for every call.")
    argument: str | None = Field(default=None, description="Where the arguments state the amount: args.amount")
    result: str | None = Field(
        default=None,
        description="Where the result states what it cost; at_most is held until then: structuredContent.usage.cost",
    )
    per_second: Amount | None = Field(default=None, description="By running time; the tool's timeout is the maximum.")
    at_most: Amount | None = Field(default=None, description="More is refused (argument), or halts (result).")
    each: Amount | None = Field(default=None, description="What 1 of the number read is worth; 1.00 where left out.")
    currency: str | None = Field(
        default=None, description="Where the currency is stated beside it, which must be the policy's: args.currency"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"a price is exactly one of {', '.join(_KINDS)}")
        odd = sorted(self.model_fields_set - {kinds[0]} - _BESIDE[kinds[0]])
        if odd:
            raise ValueError(f"{odd[0]} says nothing beside {kinds[0]}; leave it out")
        if self.result is not None and self.at_most is None:
            raise ValueError("a price read from the result needs at_most: what is held until the result says it")
        self.rate("USD")
        return self

    def rate(self, ours: str) -> Rate:
        if self.fixed is not None:
            return Fixed(self.fixed)
        if self.per_second is not None:
            return Metered(self.per_second)
        if self.argument is not None:
            return FromArgument(self._read(self.argument, ours), self.at_most)
        assert self.result is not None
        assert self.at_most is not None
        paths = [self.result] if self.currency is None else [self.result, self.currency]
        for text in paths:
            if parse_path(text)[0] not in _OF_RESULTS or len(parse_path(text)) < 2:
                raise ValueError(
                    f'{text!r} is no path into a result; write it as structuredContent.cost or _meta["com.example/cost"]'
                )
        return FromResult(self._read(self.result, ours), self.at_most)

    def _read(self, text: str, ours: str) -> Read:
        return Read(
            text,
            parse_path(text),
            MICROS if self.each is None else self.each,
            None if self.currency is None else parse_path(self.currency),
            self.currency or "",
            ours,
        )


def _mapping(value: object) -> object:
    """A bare amount is a fixed price; a mapping is looked at key by key."""
    return value if isinstance(value, dict | PriceEntry) else {"fixed": value}


def _schema() -> dict[str, Any]:
    amount = {"type": "string", "pattern": AMOUNT_PATTERN}
    path = {"type": "string"}
    read = {"at_most": amount, "each": amount, "currency": path}
    kinds: list[dict[str, Any]] = [
        {"properties": {"fixed": amount}, "required": ["fixed"]},
        {"properties": {"argument": path, **read}, "required": ["argument"]},
        {"properties": {"result": path, **read}, "required": ["result", "at_most"]},
        {"properties": {"per_second": amount}, "required": ["per_second"]},
    ]
    mappings = [{"type": "object", **kind, "additionalProperties": False} for kind in kinds]
    return {"anyOf": [{**amount, "examples": ["0.05"]}, *mappings]}


Price = Annotated[PriceEntry, BeforeValidator(_mapping), WithJsonSchema(_schema())]


def parse_price(value: object) -> PriceEntry:
    """A price outside of a policy file. Raises ValueError with a sentence."""
    try:
        return PriceEntry.model_validate(_mapping(value))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        unknown = f"unknown key; a price has one of {', '.join(_KINDS)}"
        said = unknown if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ValueError(said if key in {"", "fixed"} else f"{key}: {said}") from error
