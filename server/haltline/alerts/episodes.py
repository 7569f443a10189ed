"""Episodes: what several alerts are about, from the first until it is resolved. One for each subject and cause at a time.

Owns the table episodes and the legal transitions between its states. Writes no alert and knows no channel: the outbox
tells what it is told here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.errors import Conflict, NotFound

if TYPE_CHECKING:
    from haltline.alerts.model import Alert, Severity
    from haltline.store.writer import Tx

__all__ = ["CLOCK", "EPISODE_PREFIX", "TRANSITIONS", "Episode", "Episodes", "Raised", "about"]

State = Literal["open", "acknowledged", "resolved"]
Step = Literal["raise", "acknowledge", "resolve"]

TRANSITIONS: dict[tuple[State | None, Step], State] = {
    (None, "raise"): "open",
    ("open", "raise"): "open",
    ("acknowledged", "raise"): "acknowledged",
    ("open", "acknowledge"): "acknowledged",
    ("open", "resolve"): "resolved",
    ("acknowledged", "resolve"): "resolved",
}
"""What is not in here is an error and changes nothing. After `resolved` the same cause opens another episode."""

EPISODE_PREFIX = "epi_"
CLOCK = "clock"
"""What the alerts about the machine's clock are about."""
_RANK = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Episode:
    id: int
    public_id: str
    about: str
    cause: str
    agent_id: str | None
    state: State
    severity: Severity
    count: int
    opened_us: int
    last_us: int
    told_us: int
    acknowledged_us: int | None
    acknowledged_by: str | None
    acted_us: int | None
    acted_by: str | None
    resolved_us: int | None
    resolved_by: str | None
    route: str | None
    escalates_us: int | None


@dataclass(frozen=True, slots=True)
class Raised:
    """`tells`: a message is due. `fresh`: the episode began with it."""

    episode: Episode
    tells: bool
    fresh: bool


def about(alert: Alert) -> str:
    """What a resume, a revoke or an approval names: one session, one agent, one tool, the clock, or everything."""
    if alert.kind.startswith("session.") and alert.session:
        return f"session:{alert.session}"
    if alert.agent_id:
        return f"agent:{alert.agent_id}"
    if alert.kind.startswith(f"{CLOCK}."):
        return CLOCK  # no resume ends it, but the clock being right
    return f"tool:{alert.tool}" if alert.tool else "everything"


class Episodes:
    """Every method takes the transaction of its caller; nothing is remembered between transactions."""

    def raised(self, tx: Tx, alert: Alert, quiet_s: float) -> Raised:
        """Open an episode, or count a repeat in the one there is.

        A repeat tells nothing within the quiet period, unless it is graver than all before. One that comes after an
        acknowledged episode has been quiet for that long is a new episode: nobody has seen this one.
        """
        key, cause = about(alert), alert.rule or alert.code
        live = self._live(tx, key, cause)
        quiet_us = int(quiet_s * 1_000_000)
        if live is not None and live.state == "acknowledged" and tx.now_us - live.last_us >= quiet_us > 0:
            self._step(tx, live, "resolve", resolved_us=tx.now_us, resolved_by="broker: went quiet")
            live = None
        if live is None:
            return Raised(self._open(tx, alert, key, cause), tells=True, fresh=True)
        graver = _RANK[alert.severity] > _RANK[live.severity]
        tells = graver or tx.now_us - live.told_us >= quiet_us
        self._step(
            tx,
            live,
            "raise",
            count=live.count + 1,
            last_us=tx.now_us,
            told_us=tx.now_us if tells else live.told_us,
            severity=alert.severity if graver else live.severity,
        )
        return Raised(self.get(tx, live.public_id), tells=tells, fresh=False)

    def acknowledge(self, tx: Tx, episode: Episode, by: str) -> Episode:
        """Somebody has it. Raises Conflict where it is acknowledged or resolved already."""
        return self._step(tx, episode, "acknowledge", acknowledged_us=tx.now_us, acknowledged_by=by, escalates_us=None)

    def resolve(self, tx: Tx, episode: Episode, by: str) -> Episode:
        """It is over. Raises Conflict where it is resolved already."""
        return self._step(tx, episode, "resolve", resolved_us=tx.now_us, resolved_by=by, escalates_us=None)

    def acted(self, tx: Tx, key: str, agent_id: str | None, by: str) -> None:
        """A person did something about what these are about: the first time counts as the time to act."""
        tx.execute(
            "UPDATE episodes SET acted_us = ?, acted_by = ? WHERE state <> 'resolved' AND acted_us IS NULL"
            " AND (about = ? OR agent_id = ?)",
            (tx.now_us, by, key, agent_id),
        )

    def live_about(self, tx: Tx, key: str) -> list[Episode]:
        """What is not resolved of one session, agent or tool, or of everything."""
        return _read(tx, "state <> 'resolved' AND about = ? ORDER BY id", key)

    def live_of_agent(self, tx: Tx, agent_id: str) -> list[Episode]:
        """What is not resolved of an agent and all its sessions."""
        return _read(tx, "state <> 'resolved' AND agent_id = ? ORDER BY id", agent_id)

    def get(self, tx: Tx, public_id: str) -> Episode:
        """Raises NotFound."""
        found = _read(tx, "public_id = ?", public_id)
        if not found:
            raise NotFound(f"there is no episode {public_id!r}; haltline alerts list shows them")
        return found[0]

    def due(self, tx: Tx, most: int) -> list[Episode]:
        """Open ones that nobody acknowledged in time."""
        return _read(tx, "escalates_us <= ? ORDER BY escalates_us LIMIT ?", tx.now_us, most)

    def routed(self, tx: Tx, episode: Episode, route: str | None, escalates_us: int | None, *, again: bool) -> None:
        """Which route it went to last, and when it goes to the next."""
        tx.execute(
            "UPDATE episodes SET route = ?, escalates_us = ?, escalations = escalations + ? WHERE id = ? AND state = 'open'",
            (route, escalates_us, int(again), episode.id),
        )

    def _open(self, tx: Tx, alert: Alert, key: str, cause: str) -> Episode:
        public_id = f"{EPISODE_PREFIX}{secrets.token_hex(8)}"
        now_us = tx.now_us
        tx.execute(
            "INSERT INTO episodes (public_id, about, cause, agent_id, state, severity, opened_us, last_us, told_us)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            (public_id, key, cause, alert.agent_id, TRANSITIONS[None, "raise"], alert.severity, now_us, now_us, now_us),
        )
        return self.get(tx, public_id)

    def _live(self, tx: Tx, key: str, cause: str) -> Episode | None:
        found = _read(tx, "state <> 'resolved' AND about = ? AND cause = ?", key, cause)
        return found[0] if found else None

    def _step(self, tx: Tx, episode: Episode, step: Step, **changed: object) -> Episode:
        after = TRANSITIONS.get((episode.state, step))
        if after is None:
            who = {"acknowledged": episode.acknowledged_by, "resolved": episode.resolved_by}.get(episode.state)
            raise Conflict(f"{episode.public_id} is {episode.state} already" + (f" (by {who})" if who else ""))
        columns = ", ".join(f"{name} = ?" for name in ("state", *changed))
        tx.execute(
            f"UPDATE episodes SET {columns} WHERE id = ?",  # noqa: S608 - names of columns, written above
            (after, *changed.values(), episode.id),
        )
        return self.get(tx, episode.public_id)


_COLUMNS = ", ".join(Episode.__dataclass_fields__)


def _read(tx: Tx, condition: str, *values: object) -> list[Episode]:
    rows = tx.execute(f"SELECT {_COLUMNS} FROM episodes WHERE {condition}", values)  # noqa: S608 - constants
    return [Episode(*row) for row in rows.fetchall()]
