"""What a data folder needs before it can serve: keys, the operators' first credentials (R21).

The person's credential is shown once. The local one lies in the data folder for the command line of the same machine;
it may read, halt, revoke and open sessions, never loosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.audit import Event, Kind
from haltline.store.folder import write_private

if TYPE_CHECKING:
    from haltline.audit import Audit
    from haltline.identity import Identity
    from haltline.store.folder import DataFolder
    from haltline.store.writer import Tx, Writer

__all__ = ["FIRST_OPERATOR", "LOCAL_OPERATOR", "first_operators"]

FIRST_OPERATOR = "admin"
LOCAL_OPERATOR = "local"


async def first_operators(writer: Writer, identity: Identity, audit: Audit, folder: DataFolder) -> str | None:
    """Make what is missing; returns the person's token the one time that it is made."""

    def person(tx: Tx) -> str | None:
        if tx.execute("SELECT 1 FROM operators WHERE class = 'person'").fetchone():
            return None
        return _add(tx, FIRST_OPERATOR, "person")

    def local(tx: Tx) -> str | None:
        known = tx.execute("SELECT state FROM operators WHERE name = ?", (LOCAL_OPERATOR,)).fetchone()
        if known is None:
            return _add(tx, LOCAL_OPERATOR, "local")
        if known[0] != "active":
            return None  # a person revoked it, so it does not come back by itself
        audit.append(tx, Event(Kind.OPERATOR_ROTATED, "broker", body={"operator": LOCAL_OPERATOR}))
        return identity.rotate_operator(tx, LOCAL_OPERATOR)

    def _add(tx: Tx, name: str, cls: str) -> str:
        audit.append(tx, Event(Kind.OPERATOR_ADDED, "broker", body={"operator": name, "class": cls}))
        return identity.add_operator(tx, name, cls)  # type: ignore[arg-type]  # the two literals above

    token = await writer.run(person)
    if not folder.local_token.exists():
        local_token = await writer.run(local)
        if local_token is not None:
            write_private(folder.local_token, local_token.encode() + b"\n")
    return token
