"""Snapshots of agents' signals: what was folded up to some event, so that a start folds only what came after it.

Owns the table signals. The log is the truth: a snapshot of another form, or a damaged one, is left aside and said to be.
Knows no memory of agents and folds nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson
import structlog

from haltline.signals.state import AgentSignals

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["FORM", "in_other_zones", "read", "usable", "write"]

FORMAT = 2
"""Count up when a field of `AgentSignals` says something else than before; a field more or less is noticed by itself."""
_FIELDS = " ".join(
    f"{name}:{one.type}" for name, one in sorted(AgentSignals.__dataclass_fields__.items()) if not name.startswith("_")
)
FORM = f"{FORMAT}.{blake2b(_FIELDS.encode(), digest_size=4).hexdigest()}"
log = structlog.get_logger(__name__)


def read(tx: Tx, agent_id: str) -> AgentSignals | None:
    """None where there is none that can be gone on from: then all is folded from the log."""
    row = tx.execute("SELECT form, digest, state FROM signals WHERE agent_id = ?", (agent_id,)).fetchone()
    return AgentSignals.loaded(orjson.loads(row[2])) if row is not None and _can_be_read(agent_id, *row) else None


def usable(tx: Tx, agent_id: str) -> bool:
    """Whether `read` would find one, without decoding it. One that it would leave aside is taken away, and said to be."""
    row = tx.execute("SELECT form, digest, state FROM signals WHERE agent_id = ?", (agent_id,)).fetchone()
    if row is None or _can_be_read(agent_id, *row):
        return row is not None
    tx.execute("DELETE FROM signals WHERE agent_id = ?", (agent_id,))
    return False


def write(tx: Tx, agent_id: str, state: AgentSignals) -> None:
    data = orjson.dumps(state.stored(), option=orjson.OPT_NON_STR_KEYS)
    tx.execute(
        "INSERT INTO signals (agent_id, seq, time_zone, state, form, digest) VALUES (?,?,?,?,?,?) ON CONFLICT (agent_id)"
        " DO UPDATE SET seq = excluded.seq, time_zone = excluded.time_zone, state = excluded.state,"
        " form = excluded.form, digest = excluded.digest",
        (agent_id, state.seq, state.zone if state.week_known else "", data, FORM, _digest(data)),
    )


def in_other_zones(tx: Tx, time_zone: str) -> list[str]:
    """Agents whose snapshot does not have all hours of the week in this zone."""
    return [row[0] for row in tx.execute("SELECT agent_id FROM signals WHERE time_zone != ?", (time_zone,))]


def _can_be_read(agent_id: str, form: str, digest: bytes, data: bytes) -> bool:
    if form != FORM:
        why = f"its form is {form or 'an old one'}, this program reads {FORM}"
    elif digest != _digest(data):
        why = "it is damaged"
    else:
        return True
    log.warning("signals_rebuilt_from_the_log", agent_id=agent_id, why=why)
    return False


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
