"""Money: a hold before each dispatch, ended exactly once (P2, P7), and what counts in each window (R1, R2).

Owns the table holds. The rows are the truth; `accounts` remembers sums of them. Knows no policy and no identity beyond ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from haltline.accounts import REMEMBERED_MAX, Accounts, HoldState
from haltline.errors import Conflict, NotFound
from haltline.policy.drill import DRILL
from haltline.policy.model import Usage
from haltline.store.remembered import Remembered

if TYPE_CHECKING:
    from haltline.accounts import AgentAccount, Differs, TaskAccount
    from haltline.store.writer import Tx

__all__ = ["Doubted", "Hold", "HoldState", "Ledger", "Spent"]

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

_AMOUNT_MAX = 2**63 - 1


class Hold(NamedTuple):
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


class Spent(NamedTuple):
    """What the decision reads: usage of the session (task) and of its agent (hour, day)."""

    task: Usage
    hour: Usage
    day: Usage
    hour_resets_at_us: int | None
    day_resets_at_us: int
    calls_settled: int
    calls_open: int
    calls_in_doubt: int
    rate_counts: dict[int, int]
    rate_resets_us: dict[int, int]
    agent_running: int


class Doubted(NamedTuple):
    """The calls in doubt: since when the first is, and when the first ends by itself."""

    calls: int
    amount_micros: int
    oldest_us: int | None
    charges_at_us: int | None


class Ledger:
    """Every method runs inside the writer's transaction. `day_bounds(now_us)` gives the calendar day in the policy's zone."""

    def __init__(self, day_bounds: Callable[[int], tuple[int, int]], remembered_max: int = REMEMBERED_MAX) -> None:
        self._accounts = Accounts(day_bounds, remembered_max)
        self._held: Remembered[str, Hold] = Remembered(remembered_max)
        """Those that this process made and that are still held, so that most ends read nothing."""

    def forget(self) -> None:
        """Drop all that is remembered; rows are read again: a commit failed (`on_lost`), or the policy's zone changed
        (from within a unit).
        """
        self._accounts.forget()
        self._held.forget()

    # facts

    def spent(self, tx: Tx, agent_id: str, session_id: str, rate_windows_s: Iterable[int]) -> Spent:
        """Usage now, each amount in the windows of its admission; in doubt counts in every current window (R1)."""
        task = self._accounts.task(tx, session_id)
        agent = self._accounts.agent(tx, agent_id)
        return Spent(
            task=Usage(task.settled, task.held, task.in_doubt),
            hour=Usage(agent.hour_settled, agent.hour_held + agent.in_doubt, agent.in_doubt),
            day=Usage(agent.day_settled, agent.day_held + agent.in_doubt, agent.in_doubt),
            hour_resets_at_us=agent.hour_resets_at_us,
            day_resets_at_us=agent.day_end_us,
            calls_settled=task.calls_settled,
            calls_open=task.calls_open,
            calls_in_doubt=task.calls_in_doubt,
            rate_counts={window_s: agent.admissions(tx, agent_id, window_s) for window_s in rate_windows_s},
            rate_resets_us=agent.rate_resets_us(),
            agent_running=agent.running,
        )

    def remembered(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The agents and the sessions whose sums are in memory. Within a unit, as all here."""
        return self._accounts.remembered

    def differing(self, tx: Tx, agents: Iterable[str], sessions: Iterable[str]) -> list[Differs]:
        """Which sums in memory are not those of the rows, as of this transaction's time."""
        return self._accounts.differing(tx, agents, sessions)

    # life of a hold

    def hold(self, tx: Tx, hold: Hold) -> None:
        """Reserve, as of this transaction's time. Called only after the decision allowed it, in the same unit (P2)."""
        tasks, agent = self._touch(tx, hold.agent_id, hold.session_id)
        if self._held.get(hold.id) is not None:
            raise Conflict(f"call {hold.id} is held already")
        _money(hold.amount_micros)
        tx.insert(
            _INSERT,
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
        self._held.changes(tx, hold.id)
        self._held.keep(hold.id, hold if hold.admitted_us == tx.now_us else hold._replace(admitted_us=tx.now_us))
        for task in tasks:
            task.admit(hold.amount_micros)
        agent.admit(hold.id, hold.amount_micros, tx.now_us, rated=hold.upstream != DRILL)

    def settle(self, tx: Tx, call_id: str, charged_micros: int, why: str | None = None) -> Hold:
        """It ran and costs this. Like `void` and `doubt`: returns the hold as it was, raises NotFound or Conflict."""
        return self._end(tx, call_id, "settled", charged=charged_micros, why=why)

    def void(self, tx: Tx, call_id: str, why: str) -> Hold:
        """It provably never left (R11), or a person says that it did not happen: nothing is charged."""
        return self._end(tx, call_id, "voided", why=why)

    def doubt(self, tx: Tx, call_id: str, why: str, charges_at_us: int) -> Hold:
        """It may have run: keeps counting, never resent; charged in full at its own deadline (R10)."""
        return self._end(tx, call_id, "in_doubt", why=why, charges_at=charges_at_us)

    def note(self, tx: Tx, call_id: str, why: str) -> None:
        """Say more about a call in doubt, which stays so."""
        tx.execute("UPDATE holds SET why = ? WHERE id = ? AND state = 'in_doubt'", (why, call_id))

    def get(self, tx: Tx, call_id: str) -> Hold:
        row = tx.execute(f"{_HOLD} WHERE id = ?", (call_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no admitted call {call_id!r}")
        return _hold(row)

    def left_held(self, tx: Tx) -> list[Hold]:
        """Holds that a crash left open: nobody knows what became of them (R10)."""
        rows = tx.execute(f"{_HOLD} WHERE state IN ('held', 'in_doubt') AND state = 'held'")
        return [_hold(row) for row in rows.fetchall()]

    def in_doubt(self, tx: Tx, most: int = 10_000) -> list[Hold]:
        """The calls whose outcome is unknown, those that are charged first in front."""
        rows = tx.execute(
            f"{_HOLD} WHERE state IN ('held', 'in_doubt') AND state = 'in_doubt' ORDER BY charges_at_us LIMIT ?",
            (most,),
        )
        return [_hold(row) for row in rows.fetchall()]

    def doubted(self, tx: Tx) -> Doubted:
        """All of them in figures."""
        row = tx.execute(
            "SELECT count(*), coalesce(sum(amount_micros), 0), min(doubt_us), min(charges_at_us) FROM holds"
            " WHERE state IN ('held', 'in_doubt') AND state = 'in_doubt'"
        ).fetchone()
        return Doubted(*row)

    def due(self, tx: Tx, most: int = 500) -> list[Hold]:
        """In-doubt holds whose deadline has come, the oldest first, `most` at once."""
        rows = tx.execute(f"{_HOLD} WHERE charges_at_us <= ? ORDER BY charges_at_us LIMIT ?", (tx.now_us, most))
        return [_hold(row) for row in rows.fetchall()]

    def _end(
        self,
        tx: Tx,
        call_id: str,
        to: HoldState,
        *,
        charged: int | None = None,
        why: str | None,
        charges_at: int | None = None,
    ) -> Hold:
        before = self._held.get(call_id) or self.get(tx, call_id)
        if (before.state, to) not in _LIFE:
            raise Conflict(f"call {call_id} is {before.state} and cannot become {to}")
        tasks, agent = self._touch(tx, before.agent_id, before.session_id)
        _money(charged or 0)
        self._held.changes(tx, call_id)
        tx.update(
            _END,
            (
                to,
                charged,
                None if to == "in_doubt" else tx.now_us,
                tx.now_us if to == "in_doubt" else None,
                charges_at,
                why if why is None or why.isascii() else why.encode("utf-8", "replace").decode(),
                call_id,
            ),
        )
        for task in tasks:
            task.move(before.state, to, before.amount_micros, charged or 0)
        agent.move(call_id, to, charged or 0)
        return before

    def _touch(self, tx: Tx, agent_id: str, session_id: str) -> tuple[tuple[TaskAccount, ...], AgentAccount]:
        """All accounts that it counts in, loaded before a row changes: after it, the change would be counted twice."""
        tasks, agent = self._accounts.line(tx, session_id), self._accounts.agent(tx, agent_id)
        tx.on_rollback(lambda: self._accounts.drop(agent_id, (session_id, *tasks[0].above)))
        return tasks, agent


def _money(amount: int) -> None:
    """What the rows would refuse is refused where it is one unit's matter: they are written with those of others."""
    if not 0 <= amount <= _AMOUNT_MAX:
        raise ValueError(f"{amount} is no amount of money")


_INSERT = (
    "INSERT INTO holds (id, agent_id, session_id, tool, upstream, amount_micros, state, charge_on_error, read_only,"
    " admitted_us) VALUES (?,?,?,?,?,?,'held',?,?,?)"
)
_END = (
    "WITH one (state, charged_micros, ended_us, doubt_us, charges_at_us, why, id) AS (VALUES (?,?,?,?,?,?,?))"
    " UPDATE holds SET state = one.state, charged_micros = one.charged_micros, ended_us = one.ended_us,"
    " doubt_us = coalesce(holds.doubt_us, one.doubt_us), charges_at_us = one.charges_at_us,"
    " why = coalesce(one.why, holds.why) FROM one WHERE holds.id = one.id"
)
_HOLD = (
    "SELECT id, agent_id, session_id, tool, upstream, amount_micros, charged_micros, state, charge_on_error, read_only,"
    " admitted_us, doubt_us, charges_at_us, why FROM holds"
)


def _hold(row: tuple[object, ...]) -> Hold:
    *head, on_error, read_only, admitted_us, doubt_us, charges_at_us, why = row
    return Hold(*head, bool(on_error), bool(read_only), admitted_us, doubt_us, charges_at_us, why)  # type: ignore[arg-type,call-arg]  # the columns of _HOLD
