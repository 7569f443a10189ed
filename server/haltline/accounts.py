"""Sums over the ledger's rows, kept in memory so that a decision costs the same however long the history is.

They always say what the writer's connection sees now: changed beside each row, loaded from the rows at first touch,
dropped when a unit rolls back or a commit fails. Touched by units alone. Reads the table holds, writes nothing.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from haltline.lineage import FAMILY, parents
from haltline.policy.drill import DRILL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haltline.store.writer import Tx

__all__ = ["HOUR_US", "REMEMBERED_MAX", "Accounts", "AgentAccount", "Differs", "HoldState", "TaskAccount"]

HoldState = Literal["held", "settled", "voided", "in_doubt"]
DayBounds = Callable[[int], tuple[int, int]]

HOUR_US = 3_600_000_000
LEAVING_READ = 256
"""So many moments of an agent's hour, the oldest, are in memory at once: a busy hour has millions."""
REMEMBERED_MAX = 20_000
"""More accounts than this are all dropped, and loaded again when touched."""


@dataclass(slots=True)
class TaskAccount:
    """Money and calls of one session and those below it. Held and in doubt both count; only an end frees or settles them."""

    settled: int = 0
    held: int = 0
    calls_settled: int = 0
    calls_open: int = 0
    in_doubt: int = 0
    calls_in_doubt: int = 0
    above: tuple[str, ...] = ()
    """The sessions in whose accounts this one's calls count too (R20)."""

    def admit(self, amount: int) -> None:
        self.held += amount
        self.calls_open += 1

    def move(self, before: HoldState, to: HoldState, amount: int, charged: int) -> None:
        doubted = (to == "in_doubt") - (before == "in_doubt")
        self.in_doubt += amount * doubted
        self.calls_in_doubt += doubted
        if to == "in_doubt":
            return
        self.held -= amount
        self.calls_open -= 1
        if to == "settled":
            self.settled += charged
            self.calls_settled += 1

    def figures(self) -> dict[str, int | None]:
        """All that it says, by name."""
        names = ("settled", "held", "calls_settled", "calls_open", "in_doubt", "calls_in_doubt")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Differs:
    """One figure of an account that is not what the rows of the ledger say."""

    of: Literal["agent", "session"]
    id: str
    figure: str
    remembered: int | None
    rows: int | None


@dataclass(slots=True)
class _Entry:
    """A hold while it can still move."""

    amount: int
    admitted_us: int
    state: HoldState
    drill: bool = False
    """A drill's: it takes no place of the agent that is drilled."""
    in_hour: bool = False
    """Its amount is among what is held in the hour. In doubt is not held: it counts apart, in every current window (R1)."""


@dataclass(slots=True)
class AgentAccount:
    """One agent's money in its rolling hour and its calendar day, and its admissions for rate caps."""

    day_start_us: int
    day_end_us: int
    day_settled: int = 0
    day_held: int = 0
    hour_settled: int = 0
    hour_held: int = 0
    in_doubt: int = 0
    running: int = 0
    _open: dict[str, _Entry] = field(default_factory=dict)
    _admissions: dict[int, deque[int]] = field(default_factory=dict)
    _hour_since_us: int = 0
    _held: list[tuple[int, int, _Entry]] = field(default_factory=list)
    """What is held in the hour, the oldest admission in front; what is held no more goes when it comes to the front."""
    _leaving: deque[tuple[int, int]] = field(default_factory=deque)
    """(admission, settled) of the oldest moments of the hour, up to `_read_to_us`; the later ones are in the rows alone."""
    _read_to_us: int = 0
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    def roll(self, tx: Tx, agent_id: str, day_bounds: DayBounds) -> None:
        """Let go of what the windows have left behind, as of this transaction's time."""
        self._hour_since_us = since_us = tx.now_us - HOUR_US
        while self._held and (self._held[0][0] <= since_us or not self._held[0][2].in_hour):
            self._leave_held(heapq.heappop(self._held)[2])
        while True:
            while self._leaving and self._leaving[0][0] <= since_us:
                self.hour_settled -= self._leaving.popleft()[1]
            oldest_known = self._leaving or (self._read_to_us >= since_us and not self.hour_settled)
            if oldest_known or not self._read_on(tx, agent_id):
                break
        if tx.now_us >= self.day_end_us:
            self.day_start_us, self.day_end_us = day_bounds(tx.now_us)
            self.day_settled = self.day_held = 0

    def _read_on(self, tx: Tx, agent_id: str) -> bool:
        """Read the next moments that will leave the hour, of those before this one, which may not be over."""
        rows = tx.execute(
            "SELECT admitted_us, sum(charged_micros) FROM holds WHERE agent_id = ? AND admitted_us > ? AND admitted_us < ?"
            " AND charged_micros > 0 GROUP BY admitted_us ORDER BY admitted_us LIMIT ?",
            (agent_id, self._read_to_us, tx.now_us, LEAVING_READ),
        ).fetchall()
        self._leaving.extend(rows)
        self._read_to_us = rows[-1][0] if len(rows) == LEAVING_READ else max(self._read_to_us, tx.now_us - 1)
        return bool(rows)

    def _leave_held(self, entry: _Entry) -> None:
        if entry.in_hour:
            entry.in_hour = False
            self.hour_held -= entry.amount

    def admit(self, call_id: str, amount: int, now_us: int, *, rated: bool) -> None:
        """`rated`: whether the caps on rate and on calls at once count it; a drill's they do not."""
        entry = self._open[call_id] = _Entry(amount, now_us, "held", drill=not rated)
        self.running += rated
        self.day_held += amount
        self._hold_in_hour(entry)
        for window_s, times in self._admissions.items() if rated else ():
            times.append(now_us)
            _trim(times, now_us - window_s * 1_000_000)

    def move(self, call_id: str, to: HoldState, charged: int) -> None:
        """Correct each window that the admission is still in (R8)."""
        entry = self._open[call_id]
        held = entry.amount if entry.state == "held" else 0
        self.running -= entry.state == "held" and not entry.drill
        self.in_doubt += entry.amount * ((to == "in_doubt") - (entry.state == "in_doubt"))
        entry.state = to
        settled = charged if to == "settled" else 0
        if self.day_start_us <= entry.admitted_us < self.day_end_us:
            self.day_settled += settled
            self.day_held -= held
        self._leave_held(entry)
        if settled and entry.admitted_us > self._hour_since_us:
            self.hour_settled += settled
            if entry.admitted_us <= self._read_to_us:
                bisect.insort(self._leaving, (entry.admitted_us, settled))
        if to != "in_doubt":
            del self._open[call_id]

    def admissions(self, tx: Tx, agent_id: str, window_s: int) -> int:
        """How many calls were admitted in the last `window_s` seconds, whatever became of them; a drill's not."""
        since_us = tx.now_us - window_s * 1_000_000
        times = self._admissions.get(window_s)
        if times is None:
            rows = tx.execute(
                "SELECT admitted_us FROM holds WHERE agent_id = ? AND admitted_us > ? AND upstream <> ? ORDER BY admitted_us",
                (agent_id, since_us, DRILL),
            )
            times = self._admissions[window_s] = deque(row[0] for row in rows)
        _trim(times, since_us)
        return len(times)

    def rate_resets_us(self) -> dict[int, int]:
        """When the oldest admission leaves its window, for the windows asked for so far."""
        return {window_s: times[0] + window_s * 1_000_000 for window_s, times in self._admissions.items() if times}

    def figures(self, tx: Tx, agent_id: str, rate_windows_s: Iterable[int]) -> dict[str, int | None]:
        """All that it says, by name, with the admissions of these windows."""
        names = ("day_settled", "day_held", "hour_settled", "hour_held", "in_doubt", "running", "hour_resets_at_us")
        figures: dict[str, int | None] = {name: getattr(self, name) for name in names}
        return figures | {f"admitted_{w}s": self.admissions(tx, agent_id, w) for w in rate_windows_s}

    @property
    def rate_windows_s(self) -> tuple[int, ...]:
        """The windows whose admissions it remembers."""
        return tuple(self._admissions)

    @property
    def hour_resets_at_us(self) -> int | None:
        """When the oldest amount that counts leaves the hour."""
        oldest = [one[0][0] for one in (self._held, self._leaving) if one]
        if not self._leaving and self.hour_settled:  # all of this very moment, else they would have been read
            oldest.append(self._read_to_us + 1)
        return min(oldest) + HOUR_US if oldest else None

    def load(self, tx: Tx, agent_id: str) -> None:
        self.day_settled, self.day_held = tx.execute(
            "SELECT coalesce(sum(charged_micros), 0), coalesce(sum(amount_micros) FILTER (WHERE state = 'held'), 0)"
            " FROM holds WHERE agent_id = ? AND admitted_us >= ?",
            (agent_id, self.day_start_us),
        ).fetchone()
        self._load_open(
            tx.execute(
                "SELECT id, amount_micros, admitted_us, state, upstream = ? FROM holds"
                " WHERE state IN ('held', 'in_doubt') AND agent_id = ?",
                (DRILL, agent_id),
            )
        )
        self._hour_since_us = self._read_to_us = tx.now_us - HOUR_US
        self.hour_settled = tx.execute(
            "SELECT coalesce(sum(charged_micros), 0) FROM holds WHERE agent_id = ? AND admitted_us > ?",
            (agent_id, self._hour_since_us),
        ).fetchone()[0]
        for entry in self._open.values():
            if entry.admitted_us > self._hour_since_us:
                self._hold_in_hour(entry)

    def _load_open(self, rows: Iterable[tuple[str, int, int, HoldState, int]]) -> None:
        for call_id, amount, admitted_us, state, drill in rows:
            self._open[call_id] = _Entry(amount, admitted_us, state, drill=bool(drill))
            self.running += state == "held" and not drill
            self.in_doubt += amount if state == "in_doubt" else 0

    def _hold_in_hour(self, entry: _Entry) -> None:
        if entry.state != "held" or not entry.amount:
            return
        entry.in_hour = True
        self.hour_held += entry.amount
        heapq.heappush(self._held, (entry.admitted_us, next(self._serial), entry))
        if len(self._held) > 2 * len(self._open) + LEAVING_READ:  # behind one that runs long
            self._held = [one for one in self._held if one[2].in_hour]
            heapq.heapify(self._held)


class Accounts:
    """All that is remembered, by session and by agent."""

    def __init__(self, day_bounds: DayBounds, most: int) -> None:
        self._day_bounds = day_bounds
        self._most = most
        self._tasks: dict[str, TaskAccount] = {}
        self._agents: dict[str, AgentAccount] = {}

    def forget(self) -> None:
        self._tasks.clear()
        self._agents.clear()

    def drop(self, agent_id: str, session_ids: Iterable[str]) -> None:
        self._agents.pop(agent_id, None)
        for session_id in session_ids:
            self._tasks.pop(session_id, None)

    def line(self, tx: Tx, session_id: str) -> tuple[TaskAccount, ...]:
        """Every account in which a call of this session counts: its own, and those of the sessions above it."""
        task = self.task(tx, session_id)
        if not task.above:
            return (task,)
        return (task, *(self.task(tx, above) for above in task.above))

    @property
    def remembered(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The agents and the sessions that have an account in memory."""
        return tuple(self._agents), tuple(self._tasks)

    def differing(self, tx: Tx, agents: Iterable[str], sessions: Iterable[str]) -> list[Differs]:
        """Where what is remembered is not what the rows say; those without an account in memory are passed over."""
        fresh = Accounts(self._day_bounds, self._most)
        found = []
        for agent_id in agents:
            if agent_id in self._agents:
                mine = self.agent(tx, agent_id)
                windows_s = mine.rate_windows_s
                rows = fresh.agent(tx, agent_id).figures(tx, agent_id, windows_s)
                found += _compare("agent", agent_id, mine.figures(tx, agent_id, windows_s), rows)
        for session_id in sessions:
            if session_id in self._tasks:
                own = self._tasks[session_id].figures()
                found += _compare("session", session_id, own, fresh.task(tx, session_id).figures())
        return found

    def task(self, tx: Tx, session_id: str) -> TaskAccount:
        known = self._tasks.get(session_id)
        if known is None:
            if len(self._tasks) >= self._most:
                self._tasks.clear()
            settled, held, ended, running, doubted, in_doubt = tx.execute(
                "SELECT coalesce(sum(charged_micros), 0),"  # noqa: S608 - a constant
                " coalesce(sum(amount_micros) FILTER (WHERE holds.state IN ('held', 'in_doubt')), 0),"
                " count(*) FILTER (WHERE holds.state = 'settled'),"
                " count(*) FILTER (WHERE holds.state IN ('held', 'in_doubt')),"
                " coalesce(sum(amount_micros) FILTER (WHERE holds.state = 'in_doubt'), 0),"
                " count(*) FILTER (WHERE holds.state = 'in_doubt')"
                " FROM sessions CROSS JOIN holds ON holds.agent_id = sessions.agent_id"  # sessions first: their index is by agent
                " AND holds.admitted_us >= sessions.opened_us AND holds.session_id = sessions.id"
                f" WHERE sessions.id IN ({FAMILY})",
                (session_id,),
            ).fetchone()
            known = self._tasks[session_id] = TaskAccount(
                settled, held, ended, running, doubted, in_doubt, parents(tx, session_id)
            )
        return known

    def agent(self, tx: Tx, agent_id: str) -> AgentAccount:
        """Rolled to this transaction's time."""
        known = self._agents.get(agent_id)
        if known is None:
            if len(self._agents) >= self._most:
                self._agents.clear()
            known = AgentAccount(*self._day_bounds(tx.now_us))
            known.load(tx, agent_id)
            self._agents[agent_id] = known
        known.roll(tx, agent_id, self._day_bounds)
        return known


def _compare(
    of: Literal["agent", "session"], name: str, mine: dict[str, int | None], rows: dict[str, int | None]
) -> list[Differs]:
    return [Differs(of, name, figure, mine[figure], said) for figure, said in rows.items() if mine[figure] != said]


def _trim(times: deque[int], since_us: int) -> None:
    while times and times[0] <= since_us:
        times.popleft()
