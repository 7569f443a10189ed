"""What is on record: the audit log.

Reading history is an act: it shows arguments and results, so who read which part of it is recorded as `control.read`, once
for each operator and filter in ten minutes, since a log that is followed is read every second. Looking at the present
(status, lists, one agent or session) is not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.audit import Kind
from haltline.control.reading import Filters, Page, described, kinds_of, moment_us, page
from haltline.errors import RequestError

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["Records"]

RECORDED_FOR_US = 600_000_000
_READERS_MAX = 1_000


class Records:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts
        self._recorded_us: dict[tuple[str, str], int] = {}

    async def query_audit(
        self,
        request: Request,
        *,
        agent: str | None = None,
        session: str | None = None,
        kind: str | None = None,
        call: str | None = None,
        tool: str | None = None,
        since: str | None = None,
        until: str | None = None,
        after_seq: int | None = None,
        before_seq: int | None = None,
        limit: int = 100,
        newest: bool = False,
    ) -> r.AuditPage:
        """A page of events by rising `seq`. Raises RequestError for what names nothing, and when it takes too long."""
        wanted_kind = None if kind is None else kinds_of(kind)
        asked = {key: value for key, value in request.arguments.items() if key not in Page.__dataclass_fields__}

        def unit(tx: Tx, operator: Operator) -> Filters:
            filters = Filters(
                agent_id=None if agent is None else self._parts.identity.agent(tx, agent).id,
                session=session,
                kind=wanted_kind,
                call=call,
                tool=tool,
                since_us=None if since is None else moment_us("since", since, tx.now_us),
                until_us=None if until is None else moment_us("until", until, tx.now_us),
            )
            self._record(tx, operator, request, asked, filters)
            return filters

        filters = await self._desk.act(request, unit)
        try:
            return await page(self._parts.reader, filters, Page(after_seq, before_seq, limit, newest))
        except TimeoutError:
            raise RequestError(
                "that query took too long; narrow it with since, agent, session or kind, or ask for fewer events"
            ) from None

    def _record(self, tx: Tx, operator: Operator, request: Request, asked: dict[str, object], filters: Filters) -> None:
        key = (operator.name, repr(sorted(asked.items())))
        last_us = self._recorded_us.get(key)
        if last_us is not None and tx.now_us - last_us < RECORDED_FOR_US:
            return
        body = {"read": "audit", "filters": {name: self._plain(value) for name, value in described(filters).items()}}
        self._parts.audit.append(tx, self._desk.event(Kind.CONTROL_READ, operator, request, body=body))
        at_us = tx.now_us
        tx.after_commit(lambda: self._remember(key, at_us))

    def _remember(self, key: tuple[str, str], at_us: int) -> None:
        if len(self._recorded_us) >= _READERS_MAX:
            self._recorded_us.clear()
        self._recorded_us[key] = at_us

    def _plain(self, value: object) -> object:
        return self._desk.plain(value) if isinstance(value, str) else value
