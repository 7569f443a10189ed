"""The drill as an operator asks for it. Who may is decided here; what it does is `drill`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from haltline.errors import Forbidden

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.store.writer import Tx
    from haltline_client.drill_results import Drilled

__all__ = ["DrillDesk", "RunDrill"]


class RunDrill(Protocol):
    async def __call__(self, operator: Operator, *, agent: str | None = None, halt: bool = False) -> Drilled: ...


class DrillDesk:
    def __init__(self, desk: Desk, run: RunDrill) -> None:
        self._desk = desk
        self._run = run

    async def run_drill(self, request: Request, *, agent: str | None = None, halt: bool = False) -> Drilled:
        """Prove the stop path now. With `halt` it also resumes, which takes a person (R21)."""

        def unit(tx: Tx, operator: Operator) -> Operator:
            if agent is not None:
                self._desk.parts.identity.agent(tx, agent)
            return operator

        operator = await self._desk.act(request, unit)
        if halt and operator.cls != "person":
            raise Forbidden(
                "a drill with halt resumes what it halted, which needs a person's own operator credential "
                "(set HALTLINE_OPERATOR_TOKEN); without halt it revokes, which this credential may"
            )
        return await self._run(operator, agent=agent, halt=halt)
