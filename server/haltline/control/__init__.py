"""What an operator can do; every act audited.

    stops      revoke · halt    the kill switch        resume     its undoing, by a person
    agents     add · list · show · reissue             sessions   open · list · show
    money      calls in doubt: list · settle · void    records    audit log
    ledger     check: memory, rows and events agree
    alerts     list · ack · resolve · retry · test · stats
    tools      list · import · review · approve        policies   explain · reload
    operators  add · list · rotate · revoke            status     everything at a glance
    drills     run                                     the kill switch, proved

Each act is one unit of work on the `desk`, in which the credential and its class are checked, the act is done and its
event is written: who, when, from where and why. One that is refused leaves `control.refused`. Knows no wire.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from haltline.control.agents import Agents
from haltline.control.alerts import AlertDesk
from haltline.control.definitions import Definitions
from haltline.control.desk import Desk, Request, Stranger
from haltline.control.drills import DrillDesk
from haltline.control.ledgers import LedgerDesk
from haltline.control.money import Money
from haltline.control.operators import Operators
from haltline.control.policies import Policies
from haltline.control.records import Records
from haltline.control.resume import Resumes
from haltline.control.sessions import Sessions
from haltline.control.status import StatusDesk
from haltline.control.stops import Stops
from haltline.control.tools import Tools
from haltline.errors import ConfigError, Forbidden, RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from haltline.control.desk import Operator
    from haltline.control.drills import RunDrill
    from haltline.control.policies import Reload
    from haltline.health import Health
    from haltline.parts import Parts

__all__ = ["Control", "Request", "Stranger"]


class Control:
    """All acts by name. Arguments must have passed the act's schema; what they mean is checked by the act."""

    def __init__(
        self, parts: Parts, health: Health, *, version: str, reload_policy: Reload, run_drill: RunDrill
    ) -> None:
        self._desk = Desk(parts)
        stops, agents, sessions = Stops(self._desk), Agents(self._desk), Sessions(self._desk)
        records, money, tools = Records(self._desk), Money(self._desk), Tools(self._desk)
        policies, operators = Policies(self._desk, reload_policy), Operators(self._desk)
        definitions, alerts = Definitions(self._desk), AlertDesk(self._desk)
        acts = (
            stops.revoke,
            stops.halt,
            Resumes(self._desk).resume,
            StatusDesk(self._desk, health, version).status,
            DrillDesk(self._desk, run_drill).run_drill,
            agents.add_agent,
            agents.list_agents,
            agents.show_agent,
            agents.reissue_agent,
            sessions.open_session,
            sessions.list_sessions,
            sessions.show_session,
            records.query_audit,
            alerts.list_alerts,
            alerts.acknowledge_alert,
            alerts.resolve_alert,
            alerts.retry_alert,
            alerts.test_alert_channel,
            alerts.alert_stats,
            money.list_in_doubt,
            money.resolve_in_doubt,
            LedgerDesk(self._desk).check_ledger,
            tools.list_tools,
            tools.import_tools,
            definitions.review_tools,
            definitions.approve_tool,
            policies.explain_decision,
            policies.reload_policy,
            operators.add_operator,
            operators.list_operators,
            operators.rotate_operator,
            operators.revoke_operator,
        )
        self.acts: Mapping[str, Callable[..., Awaitable[Any]]] = {act.__name__: act for act in acts}

    async def operator(self, token: str | None) -> Operator:
        """Whose token this is. Raises Stranger."""
        return await self._desk.parts.writer.run(lambda tx: self._desk.identify(tx, token), urgent=True)

    async def perform(self, request: Request, *, complaint: str | None = None) -> Mapping[str, Any]:
        """Do one act and return its result. `complaint`: what is wrong with the arguments, known before anything is done.

        Raises Stranger for a token that is nobody's; Forbidden, RequestError (NotFound, Conflict) and ConfigError once the
        refusal is recorded; StoreUnavailable.
        """
        try:
            _hold_to_schema(complaint)
            begun = time.perf_counter()
            result: Mapping[str, Any] = await self.acts[request.act](request, **request.arguments)
            if request.act in {"revoke", "halt"}:
                self._desk.parts.telemetry.stopped(request.act, time.perf_counter() - begun)
        except (RequestError, Forbidden, ConfigError) as error:
            await self._desk.refused(request, error)
            raise
        return result


def _hold_to_schema(complaint: str | None) -> None:
    if complaint is not None:
        raise RequestError(complaint)
