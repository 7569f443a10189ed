"""The control tool that proves the stop path, as a model or a person meets it. A table and nothing else."""

from __future__ import annotations

from haltline.control_tools.tool import AGENT, ControlTool, flag
from haltline_client import drill_results as d

__all__ = ["DRILL_TOOLS"]

DRILL_TOOLS = (
    ControlTool(
        "run_drill",
        "Run a drill",
        "Prove that stopping works, now: sessions of the drill's own agent loop, work and stand by with real clients, one of "
        "them is revoked, and each thing that a stop promises is shown and timed. Costs nothing, touches no real agent, "
        "takes a few seconds. `ok` false: read `failed` and tell a person; the stop path cannot be trusted.",
        {
            "agent": {
                **AGENT,
                "description": "Drill this agent instead, in a session of its own that reaches no real tool.",
            },
            "halt": flag("Halt and resume instead of revoking. Needs a person's own operator credential."),
        },
        d.Drilled,
    ),
)
