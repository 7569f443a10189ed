"""Haltline brokers every tool an AI agent can invoke. The path of one call, and where each step lives:

    receive    gateway/, wire/        the wire to a raw message: strict parse, both protocol eras
    identify   calls/admission.py     credential to principal (agent, session, task), or a reason
    decide     policy/                pure: Allow, Deny or Halt, with the reasons
    reserve    ledger.py              a hold against every cap that applies
    record     calls/records.py       the event; with the three above one transaction, committed before anything leaves
    dispatch   calls/dispatch.py      the only await on the outside world: deadline, byte cap, one cancel scope a call
    settle     calls/records.py       the hold ends exactly once: settled, voided or in doubt
    respond    broker.py              the upstream's answer, or a refusal; withheld where it was stopped meanwhile

`broker.py` holds that control flow in one function; `app.py` wires the parts. What the author of a tool imports from here
is in `authoring.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline_client.version import __version__

if TYPE_CHECKING:
    from haltline.authoring import Context, ToolError, tool

__all__ = ["Context", "ToolError", "__version__", "tool"]


def __getattr__(name: str) -> Any:
    # Not at once: every command imports this package, and a kill switch must start fast.
    if name not in {"Context", "ToolError", "tool"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from haltline import authoring  # noqa: PLC0415 - see above

    return getattr(authoring, name)
