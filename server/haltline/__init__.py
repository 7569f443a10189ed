"""Haltline brokers every tool an AI agent can invoke. The path of one call, and where each step lives:

    receive    gateway.py, wire/      the wire to a raw message: strict parse, both protocol eras
    identify   admission.py           credential to principal (agent, session, task), or a reason
    decide     policy/                pure: Allow, Deny or Halt, with the reasons
    reserve    ledger.py              a hold against every cap that applies
    record     records.py, audit.py   the event; with the three above one transaction, committed before anything leaves
    dispatch   dispatch.py, upstreams/
    settle     records.py, ledger.py  the hold ends exactly once: settled, voided or in doubt
    respond    broker.py              the upstream's answer, or a refusal; withheld where it was stopped meanwhile

`broker.py` holds that control flow in one function; `app.py` wires the parts.
"""

from haltline_client.version import __version__

__all__ = ["__version__"]
