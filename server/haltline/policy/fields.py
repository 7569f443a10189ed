"""The kinds of values that several parts of a policy file share: each parsed once, with its form for editors.

Knows no key and no section; those are `document`'s and its neighbours'.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from haltline.policy.caps import parse_count
from haltline.policy.durations import parse_duration
from haltline.policy.hours import check_zone, hours_from_json
from haltline.policy.model import Hours
from haltline.policy.patterns import check_pattern

__all__ = ["Closed", "Count", "Duration", "HoursEntry", "Pattern", "Zone", "text_schema"]


def text_schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Count = Annotated[int, BeforeValidator(parse_count), WithJsonSchema({"type": "integer", "minimum": 1})]
Duration = Annotated[float, BeforeValidator(parse_duration), text_schema(r"^[0-9]+[smhd]$", "30m")]
Pattern = Annotated[str, BeforeValidator(check_pattern), text_schema(r"^[A-Za-z0-9_./*-]+$", "payments__*")]
Zone = Annotated[str, BeforeValidator(check_zone), text_schema(r"^[A-Za-z0-9_+/-]+$", "Europe/Berlin")]


class Closed(BaseModel):
    """Refuses unknown keys and never guesses a type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)


class HoursEntry(Closed):
    """When something may be used, by the wall clock of a time zone; `from` later than `to` runs past midnight."""

    days: str = Field(description="mon-fri, or mon,wed,fri: the days on which the span starts.")
    start: str = Field(alias="from", description='"08:00"')
    end: str = Field(alias="to", description='"18:00", up to "24:00"; not included.')
    time_zone: Zone | None = Field(default=None, description="The policy's own where left out.")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.hours("UTC")
        return self

    def hours(self, time_zone: str) -> Hours:
        zone = self.time_zone or time_zone
        return hours_from_json({"days": self.days, "from": self.start, "to": self.end, "time_zone": zone})
