"""The control tool that proves the balances, as a model or a person meets it. A table and nothing else."""

from __future__ import annotations

from haltline.control_tools.tool import ControlTool
from haltline_client import ledger_results as g

__all__ = ["LEDGER_TOOLS"]

LEDGER_TOOLS = (
    ControlTool(
        "check_ledger",
        "Check the ledger",
        "Recompute every balance: from the audit events, from the ledger's rows, and as decisions remember it, and name each "
        "difference. `ok` false: somebody changed the database, or the broker is wrong; tell a person. Changes nothing. Takes "
        "about a minute for a million calls.",
        {},
        g.LedgerChecked,
        reads=True,
    ),
)
