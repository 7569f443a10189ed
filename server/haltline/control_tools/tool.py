"""One control tool: what it is called, takes and answers, and the words in which arguments are described.

The other files of this room are tables of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haltline.shapes import answer_schema

__all__ = [
    "AGENT",
    "MOST",
    "PERSON",
    "REASON",
    "SESSION",
    "ControlTool",
    "flag",
    "money",
    "number",
    "text",
    "texts",
]


@dataclass(frozen=True, slots=True)
class ControlTool:
    """`reads`: it changes nothing. `destroys`: it ends or stops something. `repeatable`: twice is as once."""

    name: str
    title: str
    description: str
    arguments: dict[str, Any]
    result: Any
    required: tuple[str, ...] = ()
    reads: bool = False
    destroys: bool = False
    repeatable: bool = False

    def input_schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": self.arguments,
            "required": list(self.required),
            "additionalProperties": False,
        }

    def definition(self) -> dict[str, Any]:
        """As `tools/list` shows it."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.input_schema(),
            "outputSchema": answer_schema(self.result),
            "annotations": {
                "title": self.title,
                "readOnlyHint": self.reads,
                "destructiveHint": self.destroys,
                "idempotentHint": self.repeatable or self.reads,
                "openWorldHint": False,
            },
        }


def text(description: str, longest: int = 200) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": longest, "description": description}


def flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def number(description: str, least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most, "description": description}


def texts(description: str) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
        "minItems": 1,
        "maxItems": 200,
        "description": description,
    }


_AMOUNT = r"^[0-9]{1,10}(\.[0-9]{1,6})?$"
MOST = 1_000_000_000
PERSON = "Needs a person's own operator credential."
REASON = text("Why, in a few words. The audit log and the alert will tell it.", 500)
AGENT = text("The agent's handle, such as research-bot.")
SESSION = text("A session's id, ses_….")


def money(description: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _AMOUNT, "description": description}
