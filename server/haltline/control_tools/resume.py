"""The control tool that lifts a halt: what a person is shown, and what they may add to a cap for a time."""

from __future__ import annotations

from haltline.control_tools.tool import PERSON, REASON, ControlTool, flag, text
from haltline_client import resume_results as rr

__all__ = ["RESUME"]

RESUME = ControlTool(
    "resume",
    "Resume what is halted",
    "Lift exactly one halt. Ask with preview first: it tells the cause, what ran since, and what will happen if nothing "
    "changes. A call needs neither its session, its agent nor everything to be halted, so several may have to be lifted. "
    f"{PERSON}",
    {
        "target": text("A session's id (ses_…), an agent's handle, or \"everything\"."),
        "reason": REASON,
        "preview": flag("Lift nothing; say what will happen if nothing else changes."),
        "allow": text(
            'Added to the cap that caused the halt, such as "0.50" (calls: "20"), or to one that is named: "day=2.00" or '
            '"hour=1.00" of an agent, "task=0.50" or "calls=20" of a session.',
            40,
        ),
        "allow_for": text('How long what allow adds holds, such as "2h"; by default until the cap\'s window ends.', 16),
    },
    rr.Resumed,
    required=("target", "reason"),
)
