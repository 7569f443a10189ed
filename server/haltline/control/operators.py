"""Operators: who may operate the broker, each under a name of their own, and their credentials.

A credential is returned once and kept as a keyed hash; it is never part of an event (P9). All but the list needs a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.audit import Kind
from haltline.clock import iso
from haltline.errors import Conflict

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["Operators"]


class Operators:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def list_operators(self, request: Request) -> r.OperatorList:
        rows = await self._desk.act(request, lambda tx, _: self._parts.identity.operators(tx))
        return {
            "operators": [
                {"name": row.name, "class": row.cls, "created_at": iso(row.created_us), "state": row.state}
                for row in rows
            ]
        }

    async def add_operator(self, request: Request, *, name: str, reason: str | None = None) -> r.NewToken:
        """A new person; the other class is the broker's own to make (R21)."""
        why = None if reason is None else self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> str:
            token = self._parts.identity.add_operator(tx, name, "person")
            self._record(tx, Kind.OPERATOR_ADDED, operator, request, name, why)
            return token

        return {"operator": name, "token": await self._desk.act(request, unit)}

    async def rotate_operator(self, request: Request, *, name: str, reason: str | None = None) -> r.NewToken:
        """A new credential; the old one ends in the same unit."""
        why = None if reason is None else self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> str:
            if self._parts.identity.operator(tx, name).cls == "local":
                raise Conflict(
                    f"the credential of {name} lies in the broker's data folder: remove local-operator.token there and "
                    "restart the broker, and it makes a new one"
                )
            token = self._parts.identity.rotate_operator(tx, name)
            self._record(tx, Kind.OPERATOR_ROTATED, operator, request, name, why)
            return token

        return {"operator": name, "token": await self._desk.act(request, unit)}

    async def revoke_operator(self, request: Request, *, name: str, reason: str) -> r.RevokedOperator:
        """End an operator's credential; never the last person's, or nothing could be resumed any more."""
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> None:
            self._parts.identity.revoke_operator(tx, name)
            self._record(tx, Kind.OPERATOR_REVOKED, operator, request, name, why)

        await self._desk.act(request, unit)
        return {"operator": name}

    def _record(self, tx: Tx, kind: Kind, operator: Operator, request: Request, name: str, why: str | None) -> None:
        body = {"target": name, "operator": name, "reason": why}
        self._parts.audit.append(tx, self._desk.event(kind, operator, request, body=body))
