"""Money: a hold before each dispatch, ended exactly once (P2, P7), and what counts in each window (R1, R2).

Owns the table holds. The rows are the truth; `_Accounts` remembers sums of them for the writer thread alone, loaded from
the rows at first touch and dropped whenever a commit fails. Knows no policy and no identity beyond ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from haltline.errors import Conflict, NotFound
from haltline.policy.model import Usage

if TYPE_CHECKING:
    from haltline.store.writer import Tx

__all__ = ["Hold", "HoldState", "Ledger", "Spent"]

HoldState = Literal["held", "settled", "voided", "in_doubt"]

_LIFE: frozenset[tuple[HoldState, HoldState]] = frozenset(
    {
        ("held", "settled"),
        ("held", "voided"),
        ("held", "in_doubt"),
        ("in_doubt", "settled"),
        ("in_doubt", "voided"),
    }
)
"""A hold's life. A pair that is not here is an error and changes nothing, so no hold ends twice."""

HOUR_US = 3_600_000_000
_ACCOUNTS_MAX = 20_000
"""Idle accounts beyond this are forgotten and loaded again when touched."""


@dataclass(frozen=True, slots=True)
class Hold:
    """One admitted call and its money, as stored."""

    id: str
    agent_id: str
    session_id: str
    tool: str
    upstream: str
    amount_micros: int
    charged_micros: int | None
    state: HoldState
    charge_on_error: bool
    read_only: bool
    admitted_us: int
    doubt_us: int | None
    charges_at_us: int | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What the decision reads: usage of the session (task) and of its agent (hour, day)."""

    task: Usage
    hour: Usage
    day: Usage
    hour_resets_at_us: int | None
    day_resets_at_us: int
    calls_settled: int
    calls_open: int
    rate_counts: dict[int, int]
    agent_running: int


@dataclass(slots=True)
class _Entry:
    """A hold as the accounts remember it while it can still move."""

    agent_id: str
    session_id: str
    amount: int
    admitted_us: int
    state: HoldState
    charged: int = 0

    def settled(self) -> int:
        return self.charged if self.state == "settled" else 0

    def held(self) -> int:
        return self.amount if self.state == "held" else 0


@dataclass(slots=True)
class _Session:
    settled: int = 0
    held: int = 0
    calls_settled: int = 0
    calls_open: int = 0


@dataclass(slots=True)
class _Agent:
    hour: deque[_Entry] = field(default_factory=deque)
    day_start_us: int = 0
    day_end_us: int = 0
    day_settled: int = 0
    day_held: int = 0
    in_doubt: int = 0
    running: int = 0
    hour_settled: int = 0
    hour_held: int = 0
    admissions: dict[int, deque[int]] = field(default_factory=dict)


class Ledger:
    """Every method runs inside the writer's transaction. `day_bounds(now_us)` gives the calendar day in the policy's zone."""

    def __init__(self, day_bounds: Callable[[int], tuple[int, int]]) -> None:
        self._day_bounds = day_bounds
        self._sessions: dict[str, _Session] = {}
        self._agents: dict[str, _Agent] = {}
        self._open: dict[str, _Entry] = {}

    def forget(self) -> None:
        """Drop all that is remembered (a commit failed, or the policy's zone changed); rows are read again."""
        self._sessions.clear()
        self._agents.clear()
        self._open.clear()

    # facts

    def spent(self, tx: Tx, agent_id: str, session_id: str, rate_windows_s: Iterable[int]) -> Spent:
        """Usage now, each amount in the windows of its admission; in doubt counts in every current window (R1)."""
        session = self._session(tx, session_id)
        agent = self._agent(tx, agent_id)
        self._roll(agent, tx.now_us)
        oldest = agent.hour[0].admitted_us if agent.hour else None
        return Spent(
            task=Usage(session.settled, session.held),
            hour=Usage(agent.hour_settled, agent.hour_held + agent.in_doubt),
            day=Usage(agent.day_settled, agent.day_held + agent.in_doubt),
            hour_resets_at_us=None if oldest is None else oldest + HOUR_US,
            day_resets_at_us=agent.day_end_us,
            calls_settled=session.calls_settled,
            calls_open=session.calls_open,
            rate_counts={window: self._admissions(tx, agent_id, agent, window) for window in rate_windows_s},
            agent_running=agent.running,
        )

    # life of a hold

    def hold(self, tx: Tx, hold: Hold) -> None:
        """Reserve. Called only after the decision allowed it, in the same unit, so no cap can be passed (P2)."""
        self._session(tx, hold.session_id)
        self._agent(tx, hold.agent_id)
        tx.execute(
            "INSERT INTO holds (id, agent_id, session_id, tool, upstream, amount_micros, state, charge_on_error, read_only,"
            " admitted_us) VALUES (?,?,?,?,?,?,'held',?,?,?)",
            (
                hold.id,
                hold.agent_id,
                hold.session_id,
                hold.tool,
                hold.upstream,
                hold.amount_micros,
                hold.charge_on_error,
                hold.read_only,
                tx.now_us,
            ),
        )
        entry = _Entry(hold.agent_id, hold.session_id, hold.amount_micros, tx.now_us, "held")
        tx.on_release(lambda: self._remember(hold.id, entry))

    def settle(self, tx: Tx, call_id: str, charged_micros: int, why: str | None = None) -> Hold:
        return self._end(tx, call_id, "settled", charged=charged_micros, why=why)

    def void(self, tx: Tx, call_id: str, why: str) -> Hold:
        return self._end(tx, call_id, "voided", why=why)

    def doubt(self, tx: Tx, call_id: str, why: str, charges_at_us: int) -> Hold:
        """It may have run: keeps counting, never resent; charged in full at its own deadline (R10)."""
        return self._end(tx, call_id, "in_doubt", why=why, charges_at=charges_at_us)

    def get(self, tx: Tx, call_id: str) -> Hold:
        row = tx.execute(f"{_HOLD} WHERE id = ?", (call_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no admitted call {call_id!r}")
        return _hold(row)

    def left_held(self, tx: Tx) -> list[Hold]:
        """Holds that a crash left open: nobody knows what became of them (R10)."""
        return [_hold(row) for row in tx.execute(f"{_HOLD} WHERE state = 'held'").fetchall()]

    def due(self, tx: Tx) -> list[Hold]:
        """In-doubt holds whose deadline has come."""
        rows = tx.execute(f"{_HOLD} WHERE state = 'in_doubt' AND charges_at_us <= ?", (tx.now_us,)).fetchall()
        return [_hold(row) for row in rows]

    def _end(
        self, tx: Tx, call_id: str, to: HoldState, *, charged: int | None = None, why: str | None, charges_at: int | None = None
    ) -> Hold:
        before = self.get(tx, call_id)
        if (before.state, to) not in _LIFE:
            raise Conflict(f"call {call_id} is {before.state} and cannot become {to}")
        self._session(tx, before.session_id)  # loaded before the row changes, or the change would be counted twice
        self._agent(tx, before.agent_id)
        tx.execute(
            "UPDATE holds SET state = ?, charged_micros = ?, ended_us = ?, doubt_us = coalesce(doubt_us, ?),"
            " charges_at_us = ?, why = coalesce(?, why) WHERE id = ?",
            (
                to,
                charged,
                None if to == "in_doubt" else tx.now_us,
                tx.now_us if to == "in_doubt" else None,
                charges_at,
                why,
                call_id,
            ),
        )
        tx.on_release(lambda: self._moved(call_id, before, to, charged or 0))
        return before

    # what is remembered

    def _remember(self, call_id: str, entry: _Entry) -> None:
        if (session := self._sessions.get(entry.session_id)) is not None:
            session.held += entry.amount
            session.calls_open += 1
        if (agent := self._agents.get(entry.agent_id)) is not None:
            agent.running += 1
            agent.hour.append(entry)
            agent.hour_held += entry.amount
            if agent.day_start_us <= entry.admitted_us < agent.day_end_us:
                agent.day_held += entry.amount
            for times in agent.admissions.values():
                times.append(entry.admitted_us)
            self._open[call_id] = entry

    def _moved(self, call_id: str, before: Hold, to: HoldState, charged: int) -> None:
        amount = before.amount_micros
        if (session := self._sessions.get(before.session_id)) is not None:
            _move_session(session, to, amount, charged)
        agent = self._agents.get(before.agent_id)
        if agent is None:
            return
        entry = self._open[call_id]
        in_hour = bool(agent.hour) and entry.admitted_us >= agent.hour[0].admitted_us
        in_day = agent.day_start_us <= entry.admitted_us < agent.day_end_us
        settled_before, held_before = entry.settled(), entry.held()
        agent.running -= entry.state == "held"
        agent.in_doubt += (amount if to == "in_doubt" else 0) - (amount if entry.state == "in_doubt" else 0)
        entry.state, entry.charged = to, charged
        settled_by, held_by = entry.settled() - settled_before, entry.held() - held_before
        if in_hour:
            agent.hour_settled += settled_by
            agent.hour_held += held_by
        if in_day:
            agent.day_settled += settled_by
            agent.day_held += held_by
        if to != "in_doubt":
            self._open.pop(call_id, None)

    def _session(self, tx: Tx, session_id: str) -> _Session:
        known = self._sessions.get(session_id)
        if known is None:
            if len(self._sessions) >= _ACCOUNTS_MAX:
                self._sessions.clear()
            row = tx.execute(
                "SELECT coalesce(sum(charged_micros), 0),"
                " coalesce(sum(amount_micros) FILTER (WHERE state IN ('held', 'in_doubt')), 0),"
                " count(*) FILTER (WHERE state = 'settled'), count(*) FILTER (WHERE state IN ('held', 'in_doubt'))"
                " FROM holds WHERE session_id = ?",
                (session_id,),
            ).fetchone()
            known = self._sessions[session_id] = _Session(*row)
        return known

    def _agent(self, tx: Tx, agent_id: str) -> _Agent:
        known = self._agents.get(agent_id)
        if known is None:
            if len(self._agents) >= _ACCOUNTS_MAX:
                self.forget()
            known = self._agents[agent_id] = self._load_agent(tx, agent_id)
        return known

    def _load_agent(self, tx: Tx, agent_id: str) -> _Agent:
        agent = _Agent()
        agent.day_start_us, agent.day_end_us = self._day_bounds(tx.now_us)
        agent.in_doubt, agent.running = tx.execute(
            "SELECT coalesce(sum(amount_micros) FILTER (WHERE state = 'in_doubt'), 0), count(*) FILTER (WHERE state = 'held')"
            " FROM holds WHERE state IN ('held', 'in_doubt') AND agent_id = ?",
            (agent_id,),
        ).fetchone()
        agent.day_settled, agent.day_held = tx.execute(
            "SELECT coalesce(sum(charged_micros), 0), coalesce(sum(amount_micros) FILTER (WHERE state = 'held'), 0)"
            " FROM holds WHERE agent_id = ? AND admitted_us >= ?",
            (agent_id, agent.day_start_us),
        ).fetchone()
        rows = tx.execute(
            "SELECT id, session_id, amount_micros, admitted_us, state, coalesce(charged_micros, 0) FROM holds"
            " WHERE agent_id = ? AND (admitted_us > ? OR state IN ('held', 'in_doubt')) ORDER BY admitted_us",
            (agent_id, tx.now_us - HOUR_US),
        )
        for identifier, session_id, amount, admitted_us, state, charged in rows:
            entry = _Entry(agent_id, session_id, amount, admitted_us, state, charged)
            if state in {"held", "in_doubt"}:
                self._open[identifier] = entry
            if admitted_us > tx.now_us - HOUR_US:
                agent.hour.append(entry)
                agent.hour_settled += entry.settled()
                agent.hour_held += entry.held()
        return agent

    def _roll(self, agent: _Agent, now_us: int) -> None:
        while agent.hour and agent.hour[0].admitted_us <= now_us - HOUR_US:
            gone = agent.hour.popleft()
            agent.hour_settled -= gone.settled()
            agent.hour_held -= gone.held()
        if now_us >= agent.day_end_us:
            agent.day_start_us, agent.day_end_us = self._day_bounds(now_us)
            agent.day_settled = agent.day_held = 0

    @staticmethod
    def _admissions(tx: Tx, agent_id: str, agent: _Agent, window_s: int) -> int:
        since = tx.now_us - window_s * 1_000_000
        times = agent.admissions.get(window_s)
        if times is None:
            rows = tx.execute(
                "SELECT admitted_us FROM holds WHERE agent_id = ? AND admitted_us > ? ORDER BY admitted_us", (agent_id, since)
            )
            times = agent.admissions[window_s] = deque(row[0] for row in rows)
        while times and times[0] <= since:
            times.popleft()
        return len(times)


def _move_session(session: _Session, to: HoldState, amount: int, charged: int) -> None:
    """Held and in doubt both count against the task; only an end frees or settles it."""
    if to == "in_doubt":
        return
    session.held -= amount
    session.calls_open -= 1
    if to == "settled":
        session.settled += charged
        session.calls_settled += 1


_HOLD = (
    "SELECT id, agent_id, session_id, tool, upstream, amount_micros, charged_micros, state, charge_on_error, read_only,"
    " admitted_us, doubt_us, charges_at_us, why FROM holds"
)


def _hold(row: tuple[object, ...]) -> Hold:
    *head, on_error, read_only, admitted_us, doubt_us, charges_at_us, why = row
    return Hold(*head, bool(on_error), bool(read_only), admitted_us, doubt_us, charges_at_us, why)  # type: ignore[arg-type]
